/* Faults of a disk and of a clock, for one process: preloaded, it fails what touches files below
 * VERGE_FAULTS_DIR as the file VERGE_FAULTS says, which is read through a shared mapping:
 *
 *   byte 0  errno of writes     byte 1  errno of fsync and its kin     byte 2  errno of reads
 *   byte 8  seconds (signed 64 bits, the machine's order) by which the wall clock is wrong
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned char *plan;
static const char *dir;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("VERGE_FAULTS");
    dir = getenv("VERGE_FAULTS_DIR");
    if (!path || !dir) return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    void *at = mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) plan = at;
    close(fd);
}

static int below(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return strncmp(path, dir, strlen(dir)) == 0;
}

static int fails(int what, int fd) {
    if (!plan || !plan[what] || !below(fd)) return 0;
    errno = plan[what];
    return 1;
}

#define REAL(ret, name, args, call)                                   \
    static ret (*real) args;                                          \
    if (!real) real = (ret(*) args)dlsym(RTLD_NEXT, #name);           \
    return real call

ssize_t write(int fd, const void *b, size_t n) {
    if (fails(0, fd)) return -1;
    REAL(ssize_t, write, (int, const void *, size_t), (fd, b, n));
}
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) {
    if (fails(0, fd)) return -1;
    REAL(ssize_t, pwrite, (int, const void *, size_t, off_t), (fd, b, n, o));
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
    if (fails(0, fd)) return -1;
    REAL(ssize_t, pwrite64, (int, const void *, size_t, off64_t), (fd, b, n, o));
}
int fsync(int fd) {
    if (fails(1, fd)) return -1;
    REAL(int, fsync, (int), (fd));
}
int fdatasync(int fd) {
    if (fails(1, fd)) return -1;
    REAL(int, fdatasync, (int), (fd));
}
int sync_file_range(int fd, off64_t o, off64_t n, unsigned f) {
    if (fails(1, fd)) return -1;
    REAL(int, sync_file_range, (int, off64_t, off64_t, unsigned), (fd, o, n, f));
}
ssize_t read(int fd, void *b, size_t n) {
    if (fails(2, fd)) return -1;
    REAL(ssize_t, read, (int, void *, size_t), (fd, b, n));
}
ssize_t pread(int fd, void *b, size_t n, off_t o) {
    if (fails(2, fd)) return -1;
    REAL(ssize_t, pread, (int, void *, size_t, off_t), (fd, b, n, o));
}
ssize_t pread64(int fd, void *b, size_t n, off64_t o) {
    if (fails(2, fd)) return -1;
    REAL(ssize_t, pread64, (int, void *, size_t, off64_t), (fd, b, n, o));
}

static int64_t wrong_by(void) {
    int64_t seconds = 0;
    if (plan) memcpy(&seconds, (const void *)(plan + 8), sizeof seconds);
    return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, t);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) t->tv_sec += wrong_by();
    return result;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(t, zone);
    if (!result && t) t->tv_sec += wrong_by();
    return result;
}

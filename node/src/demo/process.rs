//! One node as a child process: started, waited for, killed, measured.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::http;

/// How often a node that starts is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The beginning of the line a node prints when it serves.
const READY: &str = "ready ";
/// Lines of a log that are shown when a node fails.
const TAIL_LINES: usize = 12;
/// Bytes at the end of a log in which those lines are looked for.
const TAIL_BYTES: u64 = 8 << 10;
/// Clock ticks a second in `/proc/<pid>/stat`; Linux shows 100 whatever the kernel's own rate.
const TICKS_PER_SEC: f64 = 100.0;

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The home directory it sees.
    pub home: PathBuf,
    /// Where its logs go: `<name>.out` and `<name>.log`.
    pub logs: PathBuf,
    /// Its admin API.
    pub admin: SocketAddr,
}

/// What a node has used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Usage {
    /// Largest resident set, over all its lives.
    pub rss_peak_bytes: u64,
    /// Processor time, of all its lives together.
    pub cpu_secs: f64,
}

/// A node's process, or the place of one.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    child: Option<Child>,
    /// Length of the output file when the present life began.
    out_start: u64,
    /// What earlier lives have used.
    past: Usage,
}

impl Process {
    /// A node that is not running.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, child: None, out_start: 0, past: Usage::default() }
    }

    /// Starts the node.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(&mut self) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.spec.program.display());
        let out = append(&self.out_path()).map_err(failed)?;
        self.out_start = out.metadata().map_err(failed)?.len();
        let log = append(&self.log_path()).map_err(failed)?;
        let mut command = Command::new(&self.spec.program);
        // Settings of the user's own nodes are none of the demo's.
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("VERGE") {
                command.env_remove(key);
            }
        }
        let child = command
            .args(&self.spec.args)
            .env("HOME", &self.spec.home)
            .current_dir(&self.spec.logs)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.map_err(failed)?);
        Ok(())
    }

    /// Waits until the node says that it serves, on its output and on its admin API.
    ///
    /// # Errors
    /// It ends before, or takes too long. The message has the end of its log.
    pub async fn ready(&mut self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(self.failure(&format!("ended at start ({status})")));
            }
            if self.said_ready() && http::get(self.spec.admin, "/readyz", within).await.is_ok() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.failure(&format!("is not ready after {within:?}")));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the node with SIGKILL, as a power cut would, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.past = self.usage();
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which is as well.
            let _ = child.kill().await;
        }
    }

    /// Asks the node to end, and ends it if it does not.
    ///
    /// # Errors
    /// It did not end in time, or not with status 0.
    pub async fn terminate(&mut self, within: Duration) -> Result<(), String> {
        self.past = self.usage();
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let Some(pid) = child.id() else { return Ok(()) };
        // The shell's own `kill` is there on the smallest system.
        let asked = Command::new("/bin/sh")
            .args(["-c", &format!("kill -TERM {pid}")])
            .stderr(Stdio::null())
            .status();
        let _ = asked.await;
        match timeout(within, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.failure(&format!("ended with {status}"))),
            Ok(Err(error)) => Err(self.failure(&error.to_string())),
            Err(_) => {
                let _ = child.kill().await;
                Err(self.failure(&format!("did not end within {within:?} of SIGTERM")))
            }
        }
    }

    /// Its last words, if it was started and ended by itself.
    pub fn death(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(self.failure(&format!("ended in the middle of the run ({status})")))
    }

    /// What the node has used until now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let present = self.child.as_ref().and_then(Child::id).map(usage_of).unwrap_or_default();
        Usage {
            rss_peak_bytes: self.past.rss_peak_bytes.max(present.rss_peak_bytes),
            cpu_secs: self.past.cpu_secs + present.cpu_secs,
        }
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The node's admin API.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.spec.admin
    }

    /// What happened to the node, with the end of its log.
    #[must_use]
    pub fn failure(&self, what: &str) -> String {
        let tail = tail(&self.log_path()).unwrap_or_default();
        format!("{} {what}; the end of its log:\n{tail}", self.spec.name)
    }

    fn said_ready(&self) -> bool {
        let mut text = String::new();
        let read = File::open(self.out_path()).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.out_start))?;
            file.take(TAIL_BYTES).read_to_string(&mut text)
        });
        read.is_ok() && text.lines().any(|line| line.starts_with(READY))
    }

    fn out_path(&self) -> PathBuf {
        self.spec.logs.join(format!("{}.out", self.spec.name))
    }

    fn log_path(&self) -> PathBuf {
        self.spec.logs.join(format!("{}.log", self.spec.name))
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    Ok(lines[first..].iter().map(|line| format!("    {line}\n")).collect())
}

/// What `/proc` says of a process; nothing if it is gone.
fn usage_of(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    Usage { rss_peak_bytes: peak_bytes(&status), cpu_secs: cpu_secs(&stat) }
}

/// The line `VmHWM: 12345 kB` of `/proc/<pid>/status`. (proc_pid_status(5))
fn peak_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Fields 14 and 15, user and system time, of `/proc/<pid>/stat`. (proc_pid_stat(5))
fn cpu_secs(stat: &str) -> f64 {
    // The second field, the name in parentheses, may hold spaces and parentheses.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SEC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_what_the_kernel_writes() {
        assert_eq!(peak_bytes("Name:\tverge\nVmHWM:\t   20480 kB\nVmRSS:\t 1 kB\n"), 20_480 * 1024);
        assert_eq!(peak_bytes(""), 0);
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 99 1 1";
        assert_eq!(cpu_secs(stat), 2.0);
        assert!(usage_of(std::process::id()).rss_peak_bytes > 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_that_ends_at_start_is_told_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell(dir.path(), "echo port 1 is in use >&2; exit 2");
        process.spawn().unwrap();
        let error = process.ready(Duration::from_secs(5)).await.unwrap_err();
        assert!(error.contains("n ended at start (exit status: 2)"), "{error}");
        assert!(error.contains("    port 1 is in use"), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn sigterm_is_enough_for_a_program_that_listens_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell(dir.path(), "trap 'exit 0' TERM; echo ready now; sleep 10 & wait");
        process.spawn().unwrap();
        while !process.said_ready() {
            sleep(LOOK_EVERY).await;
        }
        assert_eq!(process.death(), None);
        assert_eq!(process.terminate(Duration::from_secs(5)).await, Ok(()));
        assert_eq!(process.death(), None, "it was asked to");

        let mut deaf = shell(dir.path(), "trap '' TERM; echo ready now; exec sleep 10");
        deaf.spawn().unwrap();
        while !deaf.said_ready() {
            sleep(LOOK_EVERY).await;
        }
        let error = deaf.terminate(Duration::from_millis(100)).await.unwrap_err();
        assert!(error.contains("did not end within"), "{error}");
    }

    fn shell(dir: &Path, script: &str) -> Process {
        Process::new(Spec {
            name: "n".into(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            home: dir.to_owned(),
            logs: dir.to_owned(),
            admin: "127.0.0.1:1".parse().unwrap(),
        })
    }
}

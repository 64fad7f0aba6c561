//! What `/proc` says about processes and the machine.

use std::fs;

/// Clock ticks a second in `/proc/PID/stat`; Linux shows 100 whatever the kernel's own rate.
const TICKS_PER_SEC: f64 = 100.0;

/// What some processes have used until now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// User and system time, in seconds.
    pub(super) cpu_secs: f64,
    /// Time in which a thread could run and no core was free, in seconds, over all threads.
    pub(super) wait_secs: f64,
}

impl Usage {
    /// Of these processes together.
    pub(super) fn of(pids: &[u32]) -> Self {
        pids.iter().fold(Self::default(), |sum, pid| {
            // The scheduler counts nanoseconds; where it does not, there are ticks.
            let (run, wait) = schedule(*pid).unwrap_or_else(|| (cpu_secs(*pid), 0.0));
            Self { cpu_secs: sum.cpu_secs + run, wait_secs: sum.wait_secs + wait }
        })
    }

    /// What was used since an earlier look.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu_secs: self.cpu_secs - before.cpu_secs,
            wait_secs: self.wait_secs - before.wait_secs,
        }
    }
}

/// Resident bytes of these processes together.
pub(super) fn resident_bytes(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| status_bytes(&read(&format!("/proc/{pid}/status")), "VmRSS:")).sum()
}

/// Bytes these processes have caused to be written to disk, dirty pages included.
/// (`write_bytes` of proc_pid_io(5))
pub(super) fn written_bytes(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let io = read(&format!("/proc/{pid}/io"));
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:"));
        line.and_then(|rest| rest.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    pids.iter().map(of).sum()
}

/// Processor time all processes of the machine have used, in seconds.
pub(super) fn machine_cpu_secs() -> f64 {
    let stat = read("/proc/stat");
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal. (proc_stat(5))
    let busy = ticks.iter().enumerate().filter(|(at, _)| ![3, 4, 7].contains(at) && *at < 8);
    busy.map(|(_, ticks)| ticks).sum::<f64>() / TICKS_PER_SEC
}

/// A line such as `VmRSS:   1234 kB` of `/proc/PID/status`.
fn status_bytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Fields 14 and 15 of `/proc/PID/stat`. (proc_pid_stat(5))
fn cpu_secs(pid: u32) -> f64 {
    let stat = read(&format!("/proc/{pid}/stat"));
    // The second field, the name in parentheses, may hold spaces and parentheses.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SEC
}

/// Seconds on a core and seconds on a run queue of all threads, from
/// `/proc/PID/task/TID/schedstat`; none where the kernel does not count them.
fn schedule(pid: u32) -> Option<(f64, f64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut sum = None;
    for task in tasks.flatten() {
        let schedstat = read(&task.path().join("schedstat").to_string_lossy());
        let mut fields = schedstat.split_whitespace().map(|field| field.parse::<f64>().ok());
        if let (Some(Some(run)), Some(Some(wait))) = (fields.next(), fields.next()) {
            let (runs, waits) = sum.unwrap_or((0.0, 0.0));
            sum = Some((runs + run / 1e9, waits + wait / 1e9));
        }
    }
    sum
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let own = [std::process::id()];
        assert!(resident_bytes(&own) > 1 << 20);
        assert!(machine_cpu_secs() > 0.0 && Usage::of(&own).cpu_secs >= 0.0);
        assert_eq!(resident_bytes(&[]), 0);
    }
}

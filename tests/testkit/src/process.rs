//! What a process of ours has used so far, as the kernel accounts for it (proc_pid_stat(5), proc_pid_status(5)).
use std::time::Duration;
use std::{fs, io};

/// Ticks of a second in what the kernel tells users: USER_HZ, 100 wherever Linux runs today.
const TICKS: u64 = 100;

/// So much of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Time on processors, of all threads, in and out of the kernel.
    pub cpu: Duration,
    /// Bytes in memory.
    pub resident: u64,
}

impl Usage {
    /// Of a process that runs.
    pub fn of(pid: u32) -> io::Result<Self> {
        let (stat, status) = (read(pid, "stat")?, read(pid, "status")?);
        // The program's name stands in parentheses and may hold anything.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        let ticks: Option<u64> =
            fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().ok()).sum();
        let kibibytes =
            || status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next();
        let resident = kibibytes().and_then(|number| number.parse::<u64>().ok());
        match (ticks, resident) {
            (Some(ticks), Some(resident)) => {
                Ok(Self { cpu: Duration::from_millis(ticks * 1000 / TICKS), resident: resident * 1024 })
            }
            (None, _) | (_, None) => Err(io::Error::other(format!("process {pid} is over"))),
        }
    }
}

fn read(pid: u32, name: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_has_some_memory_and_who_does_not_has_no_usage() -> io::Result<()> {
        assert!(Usage::of(std::process::id())?.resident > 100_000);
        assert!(Usage::of(u32::MAX).is_err());
        Ok(())
    }
}

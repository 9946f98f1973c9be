//! What a process uses: memory, processor time, descriptors.

use std::path::Path;
use std::time::Duration;

use super::limits::descriptors_in;
use super::{FactError, read};

/// `USER_HZ`: 100 on every architecture that throng is built for, whatever the kernel's own tick.
const TICKS_PER_SECOND: u64 = 100;

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// `VmRSS`: everything resident, pages of shared libraries included.
    pub resident: u64,
    /// `RssAnon`: what the process alone has (heap and stacks).
    pub anonymous: u64,
}

/// Reads how much memory a process has resident.
///
/// # Errors
/// When the process is gone, or is a kernel thread (which has no memory of its own).
pub fn memory(pid: u32) -> Result<Memory, FactError> {
    let path = format!("/proc/{pid}/status");
    let path = Path::new(&path);
    let text = read(path)?;
    parse_memory(&text).ok_or_else(|| FactError::unexpected(path, "VmRSS"))
}

/// Reads how much processor time all living threads of a process have had.
///
/// A thread that ends takes its nanoseconds along, so between two readings the threads should be
/// the same ones; where the kernel counts no nanoseconds, the ticks of the whole process are used.
///
/// # Errors
/// When the process is gone.
pub fn cpu_time(pid: u32) -> Result<Duration, FactError> {
    match scheduled_time(pid) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => ticked_time(pid),
    }
}

/// Reads how many descriptors a process has open.
///
/// # Errors
/// When the process is gone, or (before Linux 6.2) belongs to another user.
pub fn descriptors(pid: u32) -> Result<u64, FactError> {
    descriptors_in(Path::new(&format!("/proc/{pid}/fd")))
}

/// Finds the resident sizes in the text of `/proc/PID/status`.
#[must_use]
pub fn parse_memory(text: &str) -> Option<Memory> {
    let resident = kibibytes(text, "VmRSS:")?;
    // Linux splits VmRSS by kind since 4.5; should a kernel not, the whole is the honest bound.
    let anonymous = kibibytes(text, "RssAnon:").unwrap_or(resident);
    Some(Memory { resident, anonymous })
}

/// Finds the nanoseconds on a processor in the text of a `schedstat`.
#[must_use]
pub fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Finds user and system time in the text of `/proc/PID/stat`.
#[must_use]
pub fn parse_stat(text: &str) -> Option<Duration> {
    // The name of the program stands in parentheses and may hold spaces and parentheses itself.
    let after_name = &text[text.rfind(')')? + 1..];
    // proc(5): state is field 3, utime 14, stime 15.
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * (1000 / TICKS_PER_SECOND)))
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let row = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = row.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

fn scheduled_time(pid: u32) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut total = Duration::ZERO;
    for thread in threads {
        // A thread may end between the listing and the reading.
        let Ok(text) = std::fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        total += parse_schedstat(&text)?;
    }
    Some(total)
}

fn ticked_time(pid: u32) -> Result<Duration, FactError> {
    let path = format!("/proc/{pid}/stat");
    let path = Path::new(&path);
    let text = read(path)?;
    parse_stat(&text).ok_or_else(|| FactError::unexpected(path, "utime and stime"))
}

#[cfg(test)]
mod tests;

//! What the machine has, where a default depends on it.

use std::path::Path;

/// The share of memory that all clients' buffers may have.
const BUFFER_SHARE: u64 = 8;
/// Less than this does not carry a few hundred slow clients.
const BUFFER_BYTES_MIN: u64 = 64 << 20;

/// As many threads as the process may use cores.
pub(super) fn shards() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// An eighth of the memory that the process may use, at least 64 MiB.
pub(super) fn buffer_bytes() -> usize {
    let memory = memory_total().unwrap_or(0).min(cgroup_limit().unwrap_or(u64::MAX));
    usize::try_from((memory / BUFFER_SHARE).max(BUFFER_BYTES_MIN)).unwrap_or(usize::MAX)
}

fn memory_total() -> Option<u64> {
    total_of(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest memory limit of the process's control group and those above it.
fn cgroup_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut group = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::/"))?);
    let mut limit: Option<u64> = None;
    loop {
        let file = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
        let here = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        limit = [limit, here].into_iter().flatten().min();
        match group.parent() {
            Some(parent) => group = parent,
            None => return limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_and_bounded_below() {
        assert_eq!(total_of("MemTotal:       16 kB\nMemFree: 3 kB\n"), Some(16 * 1024));
        assert_eq!(total_of("nothing"), None);
        assert!(buffer_bytes() >= 64 << 20);
        assert!(shards() >= 1);
    }
}

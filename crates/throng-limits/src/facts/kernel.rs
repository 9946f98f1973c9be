//! What the kernel allows everybody together: `fs.nr_open`, `fs.file-max`, `net.core.somaxconn`.

use std::path::Path;

use super::{FactError, read};

/// How many files the machine has open, and may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNumbers {
    pub open: u64,
    /// `fs.file-max`.
    pub max: u64,
}

impl FileNumbers {
    /// How many more the machine may open.
    #[must_use]
    pub fn left(self) -> u64 {
        self.max.saturating_sub(self.open)
    }
}

/// Reads `fs.file-nr`; `proc` is where the proc file system is mounted.
///
/// # Errors
/// When it is not there.
pub fn file_numbers(proc: &Path) -> Result<FileNumbers, FactError> {
    let path = proc.join("sys/fs/file-nr");
    let text = read(&path)?;
    parse_file_numbers(&text).ok_or_else(|| FactError::unexpected(&path, "three numbers"))
}

/// Reads `fs.nr_open`: no process gets a higher limit, whoever asks.
///
/// # Errors
/// When it is not there.
pub fn nr_open(proc: &Path) -> Result<u64, FactError> {
    number(&proc.join("sys/fs/nr_open"))
}

/// Reads `net.core.somaxconn`: no listener has a longer queue.
///
/// # Errors
/// When it is not there.
pub fn somaxconn(proc: &Path) -> Result<u64, FactError> {
    number(&proc.join("sys/net/core/somaxconn"))
}

/// Finds the numbers in the text of `file-nr`: allocated, always zero, maximum.
#[must_use]
pub fn parse_file_numbers(text: &str) -> Option<FileNumbers> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let open = numbers.next()?.ok()?;
    let max = numbers.nth(1)?.ok()?;
    Some(FileNumbers { open, max })
}

fn number(path: &Path) -> Result<u64, FactError> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| FactError::unexpected(path, "number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_numbers_are_the_first_and_the_third() {
        let numbers = parse_file_numbers("1152\t0\t456\n").unwrap();
        assert_eq!(numbers, FileNumbers { open: 1152, max: 456 });
        assert_eq!(numbers.left(), 0);
        assert_eq!(parse_file_numbers("1152 0\n"), None);
        assert_eq!(parse_file_numbers("many 0 456\n"), None);
    }

    #[test]
    fn this_kernel_says_what_it_allows() {
        let proc = Path::new("/proc");
        assert!(nr_open(proc).unwrap() >= 1024);
        assert!(somaxconn(proc).unwrap() >= 1);
        assert!(file_numbers(proc).unwrap().max > 0);
    }
}

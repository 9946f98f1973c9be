//! Logs among the files that a process writes to, and how fast they grow.

use super::facts::WrittenFile;
use crate::descriptors::Written;

/// The output of a program, and its errors.
const OUTPUT: [u32; 2] = [1, 2];
/// How the names of logs end, before the number or the day that a rotation appends.
const ENDINGS: [&str; 5] = ["log", "logs", "out", "err", "stdout"];
/// What ends like a log and is data: emptying it would lose what cannot be had again.
const DATA: [&str; 6] = ["binlog", "binary", "bin", "redo", "wal", "journal"];
/// Rates below this are of two looks at once.
const APART_MIN_MS: u64 = 200;

/// Whether a file is a log: somebody will be told to empty it, so what is read back, what is
/// written in its middle, and what is named like the data of a database is none.
pub(super) fn is_log(file: &Written) -> bool {
    if file.is_read {
        return false;
    }
    if OUTPUT.contains(&file.number) {
        return true;
    }
    let name = file.name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let words: Vec<&str> = name.split(['.', '-', '_']).collect();
    file.appends
        && words.iter().any(|word| ENDINGS.contains(word))
        && !words.iter().any(|word| DATA.iter().any(|data| word.ends_with(data)))
}

/// The files of the last look, and when that was.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    last: Option<(u64, Vec<(String, u64)>)>,
}

impl Pace {
    /// Fills in how fast each file grew since the last look; `at_ms` is on any clock that only goes
    /// forward. A file that is new or became smaller has no pace yet.
    pub fn fill(&mut self, at_ms: u64, files: &mut [WrittenFile]) {
        let now = files.iter().map(|file| (file.name.clone(), file.taken)).collect();
        let Some((then, before)) = &self.last else {
            self.last = Some((at_ms, now));
            return;
        };
        let apart_ms = at_ms.saturating_sub(*then);
        if apart_ms < APART_MIN_MS {
            return;
        }
        for file in files {
            let known = before.iter().find(|(name, _)| *name == file.name);
            let grown = known.and_then(|(_, taken)| file.taken.checked_sub(*taken));
            file.per_second = grown.map(|bytes| bytes.saturating_mul(1000) / apart_ms);
        }
        self.last = Some((at_ms, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Space;

    fn written(name: &str, number: u32, appends: bool, is_read: bool) -> Written {
        Written { name: name.to_owned(), number, appends, is_read, space: Space::default() }
    }

    #[test]
    fn a_log_is_told_from_data() {
        for name in
            ["/var/log/push.log", "/srv/log", "/srv/push.log.1", "/srv/push-stdout", "/a.err"]
        {
            assert!(is_log(&written(name, 7, true, false)), "{name}");
            assert!(!is_log(&written(name, 7, false, false)), "{name}");
            assert!(!is_log(&written(name, 7, true, true)), "{name}");
        }
        let data = [
            "/data/appendonly.aof",
            "/var/lib/mysql/binlog.000001",
            "/var/lib/mysql/mysql-bin.log",
            "/data/wal.log",
            "/var/log/data.db",
        ];
        for name in data {
            assert!(!is_log(&written(name, 7, true, false)), "{name}");
        }
        // What a shell or a keeper opened for its output, whatever it is called.
        assert!(is_log(&written("/srv/push", 1, false, false)));
        assert!(!is_log(&written("/srv/push.db", 1, false, true)));
    }

    #[test]
    fn the_pace_is_of_the_last_two_looks() {
        let file = |taken| WrittenFile {
            name: "/srv/push.log".to_owned(),
            number: 3,
            taken,
            free: 1,
            of: 1,
            appends: true,
            is_log: true,
            per_second: None,
        };
        let mut pace = Pace::default();
        let mut at = |ms, taken| {
            let mut files = [file(taken)];
            pace.fill(ms, &mut files);
            files[0].per_second
        };
        assert_eq!(at(0, 1_000), None);
        assert_eq!(at(2_000, 9_000), Some(4_000));
        // Two looks at once say nothing, and the earlier one counts on.
        assert_eq!(at(2_100, 9_500), None);
        assert_eq!(at(3_000, 10_000), Some(1_000));
        // Emptied, or rotated.
        assert_eq!(at(4_000, 0), None);
        assert_eq!(at(5_000, 0), Some(0));
    }
}

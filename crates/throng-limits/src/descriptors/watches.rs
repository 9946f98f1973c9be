//! How much a process has put into its epoll and inotify descriptors, from `/proc/PID/fdinfo`.

use crate::tree::Tree;

use super::Descriptors;

/// BOUNDED: descriptors whose `fdinfo` is read: a server has one epoll per thread, and the kernel
/// writes a line for each thing that is watched.
const ASKED_MAX: usize = 256;

/// What is watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watches {
    /// Descriptors that its epolls watch, once for each.
    pub epoll: Watched,
    /// Files that its inotifies watch.
    pub inotify: u64,
    /// Descriptors that were not asked, or did not answer.
    pub unknown: u32,
}

/// How many are watched by epoll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    Exactly(u64),
    /// So few at most that it does not matter: less than a tenth of what the user may watch.
    AtMost(u64),
}

impl Watches {
    /// How many are watched by epoll; where nobody counted, how many there are at most.
    #[must_use]
    pub fn by_epoll(&self) -> u64 {
        match self.epoll {
            Watched::Exactly(count) | Watched::AtMost(count) => count,
        }
    }
}

impl Default for Watched {
    fn default() -> Self {
        Self::Exactly(0)
    }
}

/// Reads what each epoll and inotify of a process watches.
///
/// For an epoll the kernel writes a line for each descriptor, which takes as long as everything
/// else about them. It is spared where the limit is far away however many they are.
#[must_use]
pub fn watches(tree: &Tree, pid: u32, descriptors: &Descriptors) -> Watches {
    let mut unknown = 0;
    let mut lines = |numbers: &[u32], word: &str| {
        let mut sum = 0;
        for (place, number) in numbers.iter().enumerate() {
            let path = format!("{pid}/fdinfo/{number}");
            match (place < ASKED_MAX).then(|| tree.read_proc(&path)) {
                Some(Ok(text)) => sum += lines_with(&text, word),
                _ => unknown += 1,
            }
        }
        sum
    };
    let inotify = lines(&descriptors.inotifies, "inotify wd:");
    let epolls = u64::try_from(descriptors.epolls.len()).unwrap_or(u64::MAX);
    let most = epolls.saturating_mul(descriptors.count());
    let allowed = tree.read_proc("sys/fs/epoll/max_user_watches");
    let allowed: Option<u64> = allowed.ok().and_then(|text| text.trim().parse().ok());
    let epoll = if allowed.is_some_and(|allowed| most < allowed / 10) {
        Watched::AtMost(most)
    } else {
        Watched::Exactly(lines(&descriptors.epolls, "tfd:"))
    };
    Watches { epoll, inotify, unknown }
}

/// One line for each thing that is watched, which begins with this word.
fn lines_with(text: &str, word: &str) -> u64 {
    let count = text.lines().filter(|line| line.starts_with(word)).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use rustix::event::epoll;

    use super::*;

    #[test]
    fn a_line_is_a_thing_that_is_watched() {
        let epoll = "pos:\t0\nflags:\t02000002\ntfd:        5 events:       19 data: 5\n\
                     tfd:        6 events:       19 data: 6\n";
        assert_eq!(lines_with(epoll, "tfd:"), 2);
        let inotify = "pos:\t0\ninotify wd:1 ino:9e7e sdev:800013 mask:800afce\n";
        assert_eq!(lines_with(inotify, "inotify wd:"), 1);
        assert_eq!(lines_with("", "tfd:"), 0);
    }

    #[test]
    fn our_own_epoll_watches_what_we_gave_it() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        for end in [&a, &b] {
            let data = epoll::EventData::new_u64(0);
            epoll::add(&epoll, end, data, epoll::EventFlags::IN).unwrap();
        }
        let number = u32::try_from(epoll.as_raw_fd()).unwrap();
        let text = Tree::live().read_proc(&format!("self/fdinfo/{number}")).unwrap();
        assert_eq!(lines_with(&text, "tfd:"), 2);
    }

    /// A process with two epolls that watch three descriptors, where the user may watch so many.
    fn watched(allowed: &str) -> Watches {
        let name = format!("throng-watches-{}-{}", std::process::id(), allowed.trim());
        let dir = std::env::temp_dir().join(name);
        let write = |path: &str, text: &str| {
            let path = dir.join("proc").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("7/fdinfo/4", "pos:\t0\ntfd: 5 events: 19\ntfd: 6 events: 19\n");
        write("7/fdinfo/5", "pos:\t0\ntfd: 6 events: 19\n");
        write("7/fdinfo/6", "inotify wd:1 ino:9e7e\n");
        write("sys/fs/epoll/max_user_watches", allowed);
        let descriptors = Descriptors {
            numbers: vec![4, 5, 6],
            epolls: vec![4, 5],
            inotifies: vec![6, 7],
            ..Descriptors::default()
        };
        let found = watches(&Tree::at(dir.join("proc"), dir.join("root")), 7, &descriptors);
        std::fs::remove_dir_all(&dir).unwrap();
        found
    }

    #[test]
    fn epolls_are_counted_where_the_limit_is_near() {
        let near = watched("20\n");
        assert_eq!(near.epoll, Watched::Exactly(3));
        assert_eq!((near.inotify, near.unknown), (1, 1));
        assert_eq!(watched("garbage").epoll, Watched::Exactly(3));
    }

    #[test]
    fn epolls_are_not_counted_where_the_limit_is_far() {
        assert_eq!(watched("5000000\n").epoll, Watched::AtMost(6));
    }
}

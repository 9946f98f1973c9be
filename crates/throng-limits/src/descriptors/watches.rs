//! How much a process has put into its epoll and inotify descriptors, from `/proc/PID/fdinfo`.

use crate::tree::Tree;

use super::Descriptors;

/// BOUNDED: descriptors whose `fdinfo` is read: a server has one epoll per thread, and the kernel
/// writes a line for each thing that is watched.
const ASKED_MAX: usize = 256;

/// What is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watches {
    /// Each epoll's number, and how many descriptors it watches.
    pub epolls: Vec<(u32, u32)>,
    /// Each inotify's number, and how many files it watches.
    pub inotifies: Vec<(u32, u32)>,
    /// Descriptors that were not asked, or did not answer.
    pub unknown: u32,
}

impl Watches {
    /// Descriptors that are watched by epoll, counted once for each epoll.
    #[must_use]
    pub fn by_epoll(&self) -> u64 {
        self.epolls.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Files that are watched by inotify.
    #[must_use]
    pub fn by_inotify(&self) -> u64 {
        self.inotifies.iter().map(|(_, count)| u64::from(*count)).sum()
    }
}

/// Reads what each epoll and inotify of a process watches.
#[must_use]
pub fn watches(tree: &Tree, pid: u32, descriptors: &Descriptors) -> Watches {
    let mut found = Watches::default();
    let mut ask = |numbers: &[u32], word: &str| -> Vec<(u32, u32)> {
        let mut counts = Vec::new();
        for (place, number) in numbers.iter().enumerate() {
            let text = (place < ASKED_MAX)
                .then(|| tree.read_proc(&format!("{pid}/fdinfo/{number}")).ok())
                .flatten();
            match text {
                Some(text) => counts.push((*number, lines_with(&text, word))),
                None => found.unknown = found.unknown.saturating_add(1),
            }
        }
        counts
    };
    let epolls = ask(&descriptors.epolls, "tfd:");
    let inotifies = ask(&descriptors.inotifies, "inotify wd:");
    found.epolls = epolls;
    found.inotifies = inotifies;
    found
}

/// One line for each thing that is watched, which begins with this word.
fn lines_with(text: &str, word: &str) -> u32 {
    let count = text.lines().filter(|line| line.starts_with(word)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
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
        let epoll =
            rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        for end in [&a, &b] {
            let data = rustix::event::epoll::EventData::new_u64(0);
            rustix::event::epoll::add(&epoll, end, data, rustix::event::epoll::EventFlags::IN)
                .unwrap();
        }
        let pid = std::process::id();
        let tree = Tree::live();
        let open = super::super::descriptors(&tree, pid).unwrap();
        let number = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&epoll)).unwrap();
        assert!(watches(&tree, pid, &open).epolls.contains(&(number, 2)));
    }
}

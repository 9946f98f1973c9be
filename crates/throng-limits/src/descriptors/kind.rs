//! What a descriptor is, told from what its link in `/proc/PID/fd` says.

/// A sort of descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Socket,
    Pipe,
    File,
    /// A file whose name is gone; its space comes back when it is closed.
    DeletedFile,
    Device,
    /// `memfd_create`, and other files that never had a name.
    Memory,
    Epoll,
    Event,
    Timer,
    Signal,
    Inotify,
    Fanotify,
    /// `pidfd_open`
    Process,
    IoUring,
    Bpf,
    Perf,
    Namespace,
    Other,
}

impl Kind {
    /// Every kind, in the order in which they are listed when there are equally many.
    pub const ALL: [Self; 18] = [
        Self::Socket,
        Self::Pipe,
        Self::File,
        Self::DeletedFile,
        Self::Device,
        Self::Memory,
        Self::Epoll,
        Self::Event,
        Self::Timer,
        Self::Signal,
        Self::Inotify,
        Self::Fanotify,
        Self::Process,
        Self::IoUring,
        Self::Bpf,
        Self::Perf,
        Self::Namespace,
        Self::Other,
    ];

    /// The word for several of them.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Socket => "sockets",
            Self::Pipe => "pipes",
            Self::File => "files",
            Self::DeletedFile => "deleted files",
            Self::Device => "devices",
            Self::Memory => "memory files",
            Self::Epoll => "epoll",
            Self::Event => "eventfd",
            Self::Timer => "timerfd",
            Self::Signal => "signalfd",
            Self::Inotify => "inotify",
            Self::Fanotify => "fanotify",
            Self::Process => "pidfd",
            Self::IoUring => "io_uring",
            Self::Bpf => "bpf",
            Self::Perf => "perf",
            Self::Namespace => "namespaces",
            Self::Other => "others",
        }
    }

    /// The kind of what a link says.
    #[must_use]
    pub fn of(link: &[u8]) -> Self {
        match link {
            [b'/', ..] => Self::of_path(link),
            _ if link.starts_with(b"socket:[") => Self::Socket,
            _ if link.starts_with(b"pipe:[") => Self::Pipe,
            _ if link.starts_with(b"pidfd:[") => Self::Process,
            _ => link.strip_prefix(b"anon_inode:").map_or_else(
                || if is_namespace(link) { Self::Namespace } else { Self::Other },
                Self::of_anonymous,
            ),
        }
    }

    fn of_path(path: &[u8]) -> Self {
        if path.starts_with(b"/memfd:") || path.starts_with(b"/dmabuf:") {
            return Self::Memory;
        }
        if path.ends_with(DELETED) {
            return Self::DeletedFile;
        }
        // What lies there is no device, but memory.
        if path.starts_with(b"/dev/") && !path.starts_with(b"/dev/shm/") {
            return Self::Device;
        }
        Self::File
    }

    /// Some of the kernel's names stand in brackets, some do not.
    fn of_anonymous(name: &[u8]) -> Self {
        let name = name.strip_prefix(b"[").unwrap_or(name);
        match name.strip_suffix(b"]").unwrap_or(name) {
            b"eventpoll" => Self::Epoll,
            b"eventfd" => Self::Event,
            b"timerfd" => Self::Timer,
            b"signalfd" => Self::Signal,
            b"inotify" => Self::Inotify,
            b"fanotify" => Self::Fanotify,
            b"pidfd" => Self::Process,
            b"io_uring" => Self::IoUring,
            b"perf_event" => Self::Perf,
            name if name.starts_with(b"bpf") => Self::Bpf,
            _ => Self::Other,
        }
    }
}

/// What the kernel appends to the name of a file that has none any more.
pub(super) const DELETED: &[u8] = b" (deleted)";

/// `net:[4026531840]`, `mnt:[…]`, `pid_for_children:[…]`.
fn is_namespace(link: &[u8]) -> bool {
    let Some(colon) = link.iter().position(|byte| *byte == b':') else { return false };
    let (name, number) = link.split_at(colon);
    number.starts_with(b":[")
        && !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_')
}

/// The inode in `socket:[123]`. The kernel numbers sockets with 32 bits, and wraps around.
#[must_use]
pub fn socket_inode(link: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u32::from(*byte - b'0'));
    let append = |number: u32, byte| number.checked_mul(10)?.checked_add(digit(byte)?);
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, append))?
}

/// How many descriptors there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds([u32; Kind::ALL.len()]);

impl Kinds {
    /// Counts one.
    pub fn add(&mut self, kind: Kind) {
        let count = &mut self.0[kind as usize];
        *count = count.saturating_add(1);
    }

    /// Counts many of a kind.
    pub fn add_many(&mut self, kind: Kind, many: usize) {
        let count = &mut self.0[kind as usize];
        *count = count.saturating_add(u32::try_from(many).unwrap_or(u32::MAX));
    }

    /// How many there are of a kind.
    #[must_use]
    pub fn get(&self, kind: Kind) -> u32 {
        self.0[kind as usize]
    }

    /// How many there are of all kinds together.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The kinds that occur, the commonest first.
    #[must_use]
    pub fn ranked(&self) -> Vec<(Kind, u32)> {
        let mut ranked: Vec<_> = Kind::ALL.map(|kind| (kind, self.get(kind))).to_vec();
        ranked.retain(|(_, count)| *count > 0);
        // Stable: of equal ones the order above.
        ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        ranked
    }
}

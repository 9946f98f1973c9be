//! The ladder of ceilings: every resource a connection costs, and how many connections it allows.

use super::finding::Evidence;

/// What a ceiling is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    Descriptors,
    NrOpen,
    FileMax,
    AcceptQueue,
    SynQueue,
    Ports,
    Conntrack,
    TcpMemory,
    CgroupMemory,
    Threads,
    Epoll,
    Inotify,
    Application,
    Select,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Bytes,
}

/// Whether a ceiling bounds the crowd or its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    /// How many connections there are at once.
    Crowd,
    /// How many may arrive before one of them is taken.
    Rush,
    /// Nothing that a connection costs; shown because running out looks alike.
    Beside,
}

/// One ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    pub resource: Resource,
    /// Which one of its kind, such as the address of a listener; empty where there is only one.
    pub of: String,
    pub limit: u64,
    pub used: u64,
    pub unit: Unit,
    /// What one connection costs, in thousandths of the unit: a connection behind a proxy costs
    /// two descriptors, and a thread may serve hundreds.
    pub cost_milli: u64,
    /// Connections that fit, with those there are; for a rush, how many may wait.
    pub allows: u64,
    /// Connections that fit besides those there are.
    pub more: u64,
    pub bounds: Bounds,
    /// Where limit and use were read.
    pub at: Vec<Evidence>,
}

/// All ceilings, the first to bind first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ladder {
    pub rungs: Vec<Rung>,
}

impl Resource {
    /// Its name for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::NrOpen => "fs.nr_open",
            Self::FileMax => "fs.file-max",
            Self::AcceptQueue => "accept queue",
            Self::SynQueue => "SYN queue",
            Self::Ports => "ephemeral ports",
            Self::Conntrack => "conntrack",
            Self::TcpMemory => "TCP memory",
            Self::CgroupMemory => "cgroup memory",
            Self::Threads => "threads",
            Self::Epoll => "epoll watches",
            Self::Inotify => "inotify",
            Self::Application => "its own cap",
            Self::Select => "select()",
        }
    }

    /// Its name where programs read it; it does not change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::NrOpen => "nr_open",
            Self::FileMax => "file_max",
            Self::AcceptQueue => "accept_queue",
            Self::SynQueue => "syn_queue",
            Self::Ports => "ports",
            Self::Conntrack => "conntrack",
            Self::TcpMemory => "tcp_memory",
            Self::CgroupMemory => "cgroup_memory",
            Self::Threads => "threads",
            Self::Epoll => "epoll",
            Self::Inotify => "inotify",
            Self::Application => "application",
            Self::Select => "select",
        }
    }
}

impl Rung {
    /// A ceiling of which one connection takes `cost_milli` thousandths of a unit, on top of the
    /// connections there are.
    #[must_use]
    pub fn crowd(
        resource: Resource,
        limit: u64,
        used: u64,
        cost_milli: u64,
        there_are: u64,
    ) -> Self {
        let left = u128::from(limit.saturating_sub(used)) * 1000;
        let more = left / u128::from(cost_milli.max(1));
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        Self {
            resource,
            of: String::new(),
            limit,
            used,
            unit: Unit::Count,
            cost_milli,
            allows: there_are.saturating_add(more),
            more,
            bounds: Bounds::Crowd,
            at: Vec::new(),
        }
    }

    /// A queue in which those wait who have not been taken yet.
    #[must_use]
    pub fn rush(resource: Resource, limit: u64, used: u64) -> Self {
        let rung = Self::crowd(resource, limit, used, 1000, 0);
        Self { bounds: Bounds::Rush, allows: limit, ..rung }
    }

    /// Something that no connection costs.
    #[must_use]
    pub fn beside(resource: Resource, limit: u64, used: u64) -> Self {
        Self { bounds: Bounds::Beside, ..Self::crowd(resource, limit, used, 1000, 0) }
    }

    #[must_use]
    pub fn of(mut self, of: impl Into<String>) -> Self {
        self.of = of.into();
        self
    }

    #[must_use]
    pub fn in_bytes(mut self) -> Self {
        self.unit = Unit::Bytes;
        self
    }

    #[must_use]
    pub fn read(mut self, what: impl Into<String>, at: impl Into<String>) -> Self {
        self.at.push(Evidence::new(what, at));
        self
    }

    /// Whether at most so many percent of it are left.
    #[must_use]
    pub fn is_left(&self, percent: u64) -> bool {
        let left = u128::from(self.limit.saturating_sub(self.used));
        left * 100 <= u128::from(self.limit) * u128::from(percent)
    }
}

impl Ladder {
    /// Puts ceilings in their order: the one that leaves room for the fewest more connections
    /// first, of equal ones in the order of [`Resource`]; those that bound no crowd come last.
    #[must_use]
    pub fn of(mut rungs: Vec<Rung>) -> Self {
        rungs.sort_by_key(|rung| {
            (rung.bounds != Bounds::Crowd, rung.bounds == Bounds::Beside, rung.more, rung.resource)
        });
        Self { rungs }
    }

    /// The ceiling that stops the crowd first.
    #[must_use]
    pub fn first(&self) -> Option<&Rung> {
        self.crowd().next()
    }

    /// The ceilings that bound the crowd, the first to bind first.
    pub fn crowd(&self) -> impl Iterator<Item = &Rung> {
        self.rungs.iter().filter(|rung| rung.bounds == Bounds::Crowd)
    }
}

//! What the doctor found: how bad, what, why, and what to do.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing to do.
    Fine,
    /// Worth knowing; nobody is turned away by it.
    Note,
    /// It will turn clients away before long.
    Tight,
    /// It turns clients away now.
    Full,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check that found it: a name that does not change.
    pub check: &'static str,
    pub severity: Severity,
    /// One sentence, without its full stop.
    pub what: String,
    pub why: Option<String>,
    /// What helps at once.
    pub now: Option<String>,
    /// What helps for good, line by line.
    pub for_good: Vec<String>,
    /// A command that shows whether it helped.
    pub verify: Option<String>,
    pub evidence: Vec<Evidence>,
}

/// A fact that a finding rests on, and where anybody can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub what: String,
    /// A file, or a command.
    pub at: String,
}

/// Something that could not be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// What was looked for, such as `what its descriptors are`.
    pub what: String,
    pub why: String,
    /// Whether root would see it.
    pub root_sees: bool,
}

/// Who gave a process its limit on open files, and how that is changed for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginReport {
    /// Who, such as `supervisord (812, since 3 Nov) gave it 1024, minfds unset`.
    pub why: String,
    /// The one fix for this launcher, line by line, exactly as it is typed.
    pub permanent: Vec<String>,
    /// The command that shows that the fix for good holds.
    pub verify: Option<String>,
    /// What would take a live fix back, such as `a restart by supervisord`.
    pub undone_by: Vec<String>,
    /// What must not be done now, such as logging out while no login works.
    pub warnings: Vec<String>,
    /// What is good to know besides, such as what the fix costs.
    pub notes: Vec<String>,
    /// The process that starts this one again, which a live fix should reach too.
    pub supervisor: Option<Supervisor>,
    pub evidence: Vec<Evidence>,
}

/// A process that starts others again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervisor {
    pub pid: u32,
    pub name: String,
}

impl Severity {
    /// The word that a verdict begins with.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Tight => "TIGHT",
            Self::Note | Self::Fine => "OK",
        }
    }

    /// Its name where programs read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Tight => "tight",
            Self::Note => "note",
            Self::Fine => "fine",
        }
    }
}

impl Finding {
    /// A finding without advice.
    #[must_use]
    pub fn new(check: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        Self {
            check,
            severity,
            what: what.into(),
            why: None,
            now: None,
            for_good: Vec::new(),
            verify: None,
            evidence: Vec::new(),
        }
    }

    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    #[must_use]
    pub fn now(mut self, what: impl Into<String>) -> Self {
        self.now = Some(what.into());
        self
    }

    #[must_use]
    pub fn for_good(mut self, what: impl Into<String>) -> Self {
        self.for_good.push(what.into());
        self
    }

    #[must_use]
    pub fn verify(mut self, command: impl Into<String>) -> Self {
        self.verify = Some(command.into());
        self
    }

    #[must_use]
    pub fn seen(mut self, what: impl Into<String>, at: impl Into<String>) -> Self {
        self.evidence.push(Evidence::new(what, at));
        self
    }
}

impl Evidence {
    #[must_use]
    pub fn new(what: impl Into<String>, at: impl Into<String>) -> Self {
        Self { what: what.into(), at: at.into() }
    }
}

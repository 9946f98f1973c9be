//! `limits.conf` and `limits.d`, read exactly as `pam_limits` reads them, with its traps.

use super::account::Account;
use super::source::{Disk, Evidence, Source};
use crate::facts::OpenFiles;
use crate::facts::limits::UNLIMITED;

/// Where the module looks first.
const MAIN: &str = "/etc/security/limits.conf";
/// What distributions without files of their own in /etc ship.
const VENDOR: [&str; 2] = ["/usr/lib/security/limits.conf", "/usr/share/security/limits.conf"];
/// The files beside it, which are read after it.
const BESIDE: &str = "/etc/security/limits.d";
/// Files of `limits.d` that are read: nobody has so many.
const FILES_MAX: usize = 256;
/// `FD_SETSIZE`: what Debian's module caps the soft limit of the first process at.
pub(crate) const FD_SETSIZE: u64 = 1024;

/// Whose `pam_limits` it is; Debian's and Ubuntu's differs in what it does to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// Resets everybody to the limits of process 1; `*` and groups do not cover root; a limit that
    /// cannot be set is no reason to refuse the session.
    Debian,
    Upstream,
}

/// All files that the module would read, in its order, and those that only look as if.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LimitsConf {
    pub files: Vec<Source>,
    /// Files in `limits.d` whose names do not end in `.conf`.
    pub passed_over: Vec<Source>,
}

/// A session that is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening<'a> {
    pub account: &'a Account,
    pub variant: Variant,
    /// What the program has that opens it.
    pub inherited: OpenFiles,
    pub first_process: Option<OpenFiles>,
    pub nr_open: u64,
    pub power: Power,
}

/// Whether the program that opens a session may raise a hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    Raises,
    OnlyLowers,
}

/// What `pam_limits` does to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    pub limit: OpenFiles,
    pub soft: By,
    pub hard: By,
    pub outcome: Outcome,
    pub traps: Vec<Trap>,
}

/// What a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    Line(Evidence),
    /// Reset to what process 1 has.
    FirstProcess,
    /// Left as it was.
    Inherited,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Set,
    /// A line `user -` ends the module's work before it has begun.
    Exempt(Evidence),
    /// The kernel refused; what was inherited holds.
    Refused(OpenFiles),
    /// The kernel refused, and with it the module the session: nobody gets in.
    LockedOut(OpenFiles),
}

/// A line that does not do what it looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trap {
    pub kind: TrapKind,
    pub evidence: Evidence,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TrapKind {
    /// The number ends at the first character that is no digit.
    NumberCut(u64),
    NoNumber,
    /// Not four fields.
    Fields,
    /// `=` takes the place of the value.
    EqualsSign,
    /// `%` is for maxlogins only.
    PercentGroup,
    /// A byte order mark belongs to the first name.
    ByteOrderMark,
    /// Users' names are compared to the letter.
    OtherCase,
    /// Debian: neither `*` nor a group covers root.
    NotForRoot,
    NotConf,
    BadType,
    /// No limit may be above `fs.nr_open`.
    AboveNrOpen,
}

impl LimitsConf {
    /// Reads what the module would read; `conf` is its argument `conf=`, after which it does not
    /// look into `limits.d`.
    pub(crate) fn read(disk: Disk<'_>, conf: Option<&str>) -> Self {
        if let Some(conf) = conf {
            return Self { files: disk.read(conf).into_iter().collect(), passed_over: Vec::new() };
        }
        let main = disk.read(MAIN).or_else(|| VENDOR.iter().find_map(|path| disk.read(path)));
        let mut files: Vec<_> = main.into_iter().collect();
        let mut passed_over = Vec::new();
        // The names come sorted by their bytes, which is the order of the C locale.
        for name in disk.list(BESIDE).into_iter().take(FILES_MAX) {
            let Some(source) = disk.read(&format!("{BESIDE}/{name}")) else { continue };
            // glob(3) lets `*` match no leading dot.
            let counts = name.ends_with(".conf") && !name.starts_with('.');
            if counts { files.push(source) } else { passed_over.push(source) }
        }
        Self { files, passed_over }
    }

    /// What the module does to a session, with all lines about the number of files that do not do
    /// what they look like for this user.
    #[must_use]
    pub(super) fn apply(&self, opening: Opening<'_>) -> Applied {
        let mut table = Table::new(opening);
        for source in &self.files {
            for (number, line) in source.text.lines().enumerate() {
                if let Some(exempt) = table.take(source, number + 1, line) {
                    return table.exempt(exempt);
                }
            }
        }
        for source in &self.passed_over {
            let mentions = |line: &&str| uncommented(line).contains("nofile");
            if let Some(number) = source.text.lines().position(|line| mentions(&line)) {
                table.trap(TrapKind::NotConf, source.evidence(number + 1));
            }
        }
        table.settle()
    }
}

/// How specific a line is: the most specific wins, whatever the order of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    User,
    Group,
    Everybody,
    /// From process 1, or as inherited.
    Nobody,
}

/// What counts so far.
struct Table<'a> {
    opening: Opening<'a>,
    limit: OpenFiles,
    soft: (Rank, By),
    hard: (Rank, By),
    traps: Vec<Trap>,
}

impl<'a> Table<'a> {
    fn new(opening: Opening<'a>) -> Self {
        // Debian resets every session to what process 1 has, its soft limit capped at FD_SETSIZE.
        let reset = opening.first_process.filter(|_| opening.variant == Variant::Debian);
        let (limit, by) = match reset {
            Some(first) => {
                let soft = first.soft.min(FD_SETSIZE);
                (OpenFiles { soft, hard: first.hard }, By::FirstProcess)
            }
            None => (opening.inherited, By::Inherited),
        };
        let nobody = (Rank::Nobody, by);
        Self { opening, limit, soft: nobody.clone(), hard: nobody, traps: Vec::new() }
    }

    /// Reads a line. Gives it back when it exempts the user from everything.
    fn take(&mut self, source: &Source, number: usize, raw: &str) -> Option<Evidence> {
        let line = uncommented(raw);
        let mut fields = line.split_ascii_whitespace();
        let (Some(domain), Some(kind)) = (fields.next(), fields.next()) else { return None };
        let (item, value) = (fields.next(), fields.next());
        match (item, value) {
            (None, _) if kind.starts_with('-') => {
                let covers = domain != "*" && self.rank(domain).is_some();
                return covers.then(|| source.evidence(number));
            }
            (Some(item), Some(value)) if item.eq_ignore_ascii_case("nofile") => {
                self.nofile((domain, kind, value), || source.evidence(number));
            }
            (_, None) if line.to_ascii_lowercase().contains("nofile") => {
                self.trap(TrapKind::Fields, source.evidence(number));
            }
            _ => {}
        }
        None
    }

    fn nofile(&mut self, line: (&str, &str, &str), evidence: impl Fn() -> Evidence) {
        let (domain, kind, value) = line;
        let Some(rank) = self.covers(domain, &evidence) else { return };
        let kind = kind.to_ascii_lowercase();
        let (soft, hard) = match kind.as_str() {
            "soft" => (true, false),
            "hard" => (false, true),
            "-" => (true, true),
            _ => return self.trap(TrapKind::BadType, evidence()),
        };
        let Some(value) = self.value(value, &evidence) else { return };
        // A line of `-` whose soft half is outranked is dropped before its hard half is looked at.
        if soft {
            if self.soft.0 < rank {
                return;
            }
            self.limit.soft = value;
            self.soft = (rank, By::Line(evidence()));
        }
        if hard && self.hard.0 >= rank {
            self.limit.hard = value;
            self.hard = (rank, By::Line(evidence()));
        }
    }

    /// The value as the module reads it.
    fn value(&mut self, written: &str, evidence: &impl Fn() -> Evidence) -> Option<u64> {
        let lower = written.to_ascii_lowercase();
        if matches!(lower.as_str(), "-1" | "-" | "unlimited" | "infinity") {
            return Some(self.opening.nr_open);
        }
        let Some((value, rest)) = strtoull(&lower) else {
            let kind =
                if written.starts_with('=') { TrapKind::EqualsSign } else { TrapKind::NoNumber };
            self.trap(kind, evidence());
            return None;
        };
        if !rest.is_empty() {
            self.trap(TrapKind::NumberCut(value), evidence());
        }
        if value == UNLIMITED {
            return Some(self.opening.nr_open);
        }
        if value > self.opening.nr_open {
            self.trap(TrapKind::AboveNrOpen, evidence());
        }
        Some(value)
    }

    /// Whether a line is for this user; what only looks like it is noted.
    fn covers(&mut self, domain: &str, evidence: &impl Fn() -> Evidence) -> Option<Rank> {
        let rank = self.rank(domain);
        let root_is_spared =
            self.opening.variant == Variant::Debian && self.opening.account.uid == 0;
        match rank {
            Some(Rank::Group | Rank::Everybody) if root_is_spared => {
                self.trap(TrapKind::NotForRoot, evidence());
                None
            }
            Some(_) => rank,
            None => {
                if let Some(kind) = self.missed(domain) {
                    self.trap(kind, evidence());
                }
                None
            }
        }
    }

    /// Why a line that seems to be for this user is not.
    fn missed(&self, domain: &str) -> Option<TrapKind> {
        let account = self.opening.account;
        if let Some(marked) = domain.strip_prefix('\u{feff}') {
            return self.rank(marked).map(|_| TrapKind::ByteOrderMark);
        }
        if let Some(group) = domain.strip_prefix('%') {
            return (group.is_empty() || account.is_in(group)).then_some(TrapKind::PercentGroup);
        }
        domain.eq_ignore_ascii_case(&account.name).then_some(TrapKind::OtherCase)
    }

    fn rank(&self, domain: &str) -> Option<Rank> {
        let account = self.opening.account;
        if domain == account.name {
            return Some(Rank::User);
        }
        if domain == "*" {
            return Some(Rank::Everybody);
        }
        if domain.starts_with('%') {
            return None;
        }
        if let Some(group) = domain.strip_prefix('@') {
            let is_in = match range(group) {
                None => account.is_in(group),
                // An exact number is looked up among all groups, a range is the first group's.
                Some((low, high)) if low == high => account.is_in_number(low),
                Some((low, high)) => (low..=high).contains(&account.gid),
            };
            return is_in.then_some(Rank::Group);
        }
        let (low, high) = range(domain)?;
        (low..=high).contains(&account.uid).then_some(Rank::User)
    }

    fn trap(&mut self, kind: TrapKind, evidence: Evidence) {
        self.traps.push(Trap { kind, evidence });
    }

    fn exempt(self, by: Evidence) -> Applied {
        Applied {
            limit: self.opening.inherited,
            soft: By::Inherited,
            hard: By::Inherited,
            outcome: Outcome::Exempt(by),
            traps: self.traps,
        }
    }

    fn settle(self) -> Applied {
        let Self { opening, mut limit, soft, hard, traps } = self;
        let (mut soft, hard) = (soft.1, hard.1);
        if limit.soft > limit.hard {
            limit.soft = limit.hard;
            soft = hard.clone();
        }
        let untouched = (&soft, &hard) == (&By::Inherited, &By::Inherited);
        // The kernel refuses any hard limit above fs.nr_open, and a higher one without the power.
        let raises = limit.hard > opening.inherited.hard;
        let refused = !untouched
            && (limit.hard > opening.nr_open || (raises && opening.power == Power::OnlyLowers));
        if !refused {
            return Applied { limit, soft, hard, outcome: Outcome::Set, traps };
        }
        let outcome = match opening.variant {
            Variant::Debian => Outcome::Refused(limit),
            Variant::Upstream => Outcome::LockedOut(limit),
        };
        let kept = By::Inherited;
        Applied { limit: opening.inherited, soft: kept.clone(), hard: kept, outcome, traps }
    }
}

/// The line without what follows a `#`, wherever that stands.
fn uncommented(line: &str) -> &str {
    line.split('#').next().unwrap_or_default()
}

/// A range of numbers: `10:20`, `10:`, `:10` (only 10).
fn range(domain: &str) -> Option<(u32, u32)> {
    let (low, high) = domain.split_once(':')?;
    match (low, high) {
        ("", "") => None,
        ("", high) => high.parse().ok().map(|exact| (exact, exact)),
        (low, "") => low.parse().ok().map(|low| (low, u32::MAX)),
        (low, high) => Some((low.parse().ok()?, high.parse().ok()?)),
    }
}

/// What strtoull(3) makes of a word, and where it stopped; nothing where there is no digit.
fn strtoull(word: &str) -> Option<(u64, &str)> {
    let (negative, digits) = match word.as_bytes().first() {
        Some(b'-') => (true, &word[1..]),
        Some(b'+') => (false, &word[1..]),
        _ => (false, word),
    };
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    // Beyond what fits, strtoull gives the highest number; a minus wraps around.
    let number = digits[..end].parse::<u64>();
    let value = match number {
        Ok(number) if negative => number.wrapping_neg(),
        Ok(number) => number,
        Err(_) => u64::MAX,
    };
    Some((value, &digits[end..]))
}

#[cfg(test)]
mod tests;

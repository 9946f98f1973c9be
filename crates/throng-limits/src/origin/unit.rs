//! A unit of systemd as it is meant: its file with all drop-ins merged, and the manager's defaults.

use super::source::{Disk, Evidence, Source};
use crate::facts::OpenFiles;

/// Where units of the machine are, the first wins.
const SYSTEM: [&str; 10] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Where units of users are, without those in their homes.
const USER: [&str; 5] = [
    "/etc/systemd/user",
    "/run/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
    "/lib/systemd/user",
];
/// Where the manager's own settings are, the first wins.
const MANAGER: [&str; 5] =
    ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"];
/// Drop-ins of one unit that are read: nobody has so many.
const DROP_INS_MAX: usize = 200;
/// What systemd gives a service since version 240, when nothing says otherwise.
pub(crate) const BUILT_IN: OpenFiles = OpenFiles { soft: 1024, hard: 524_288 };

/// Whose unit it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    System,
    /// Of the manager `user@UID.service`.
    User,
}

/// A merged unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub name: String,
    pub scope: Scope,
    /// Its own file, and its drop-ins in the order in which they are applied.
    pub sources: Vec<Source>,
    /// The last `LimitNOFILE=` that counts.
    pub limit: Option<(Limit, Evidence)>,
    /// `PAMName=`: a session is opened, whose limits win.
    pub pam_name: Option<(String, Evidence)>,
    pub exec: Vec<Evidence>,
    /// Lines that systemd does not take.
    pub ignored: Vec<Evidence>,
}

/// A limit as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub soft: u64,
    pub hard: u64,
}

impl Limit {
    /// What systemd makes of it: nothing goes above `fs.nr_open`.
    #[must_use]
    pub(super) fn clamped(self, nr_open: u64) -> OpenFiles {
        OpenFiles { soft: self.soft.min(nr_open), hard: self.hard.min(nr_open) }
    }
}

impl Unit {
    pub(crate) fn read(disk: Disk<'_>, name: &str, scope: Scope) -> Self {
        let directories: &[&str] = if scope == Scope::System { &SYSTEM } else { &USER };
        let mut sources = Vec::new();
        if let Some(own) = fragment(disk, name, directories) {
            sources.push(own);
        }
        let parts: Vec<_> = drop_in_names(name)
            .into_iter()
            .flat_map(|part| {
                directories.iter().map(move |directory| format!("{directory}/{part}.d"))
            })
            .collect();
        sources.extend(drop_ins(disk, &parts));
        Self::merge(name, scope, sources)
    }

    /// Applies the settings of all sources in their order.
    #[must_use]
    pub(super) fn merge(name: &str, scope: Scope, sources: Vec<Source>) -> Self {
        let mut unit = Self {
            name: name.to_owned(),
            scope,
            sources: Vec::new(),
            limit: None,
            pam_name: None,
            exec: Vec::new(),
            ignored: Vec::new(),
        };
        for source in &sources {
            for setting in settings(&source.text) {
                unit.set(&setting, source);
            }
        }
        unit.sources = sources;
        unit
    }

    fn set(&mut self, setting: &Setting<'_>, source: &Source) {
        let evidence = || source.evidence(setting.line);
        match (setting.section, setting.key) {
            ("Service", "LimitNOFILE") if setting.value.is_empty() => self.limit = None,
            ("Service", "LimitNOFILE") => match parse_limit(setting.value) {
                Some(limit) => self.limit = Some((limit, evidence())),
                None => self.ignored.push(evidence()),
            },
            (_, "LimitNOFILE") => self.ignored.push(evidence()),
            ("Service", "PAMName") => {
                let named = !setting.value.is_empty();
                self.pam_name = named.then(|| (setting.value.to_owned(), evidence()));
            }
            ("Service", "ExecStart") if setting.value.is_empty() => self.exec.clear(),
            ("Service", "ExecStart" | "ExecStartPre") => self.exec.push(evidence()),
            (_, key) if key.eq_ignore_ascii_case("LimitNOFILE") => self.ignored.push(evidence()),
            _ => {}
        }
    }
}

/// `DefaultLimitNOFILE=` of a manager, with the line that says it.
pub(crate) fn default_limit(disk: Disk<'_>, scope: &Scope) -> Option<(Limit, Evidence)> {
    let name = if *scope == Scope::System { "system.conf" } else { "user.conf" };
    let main = MANAGER.iter().find_map(|directory| disk.read(&format!("{directory}/{name}")));
    let parts: Vec<_> = MANAGER.iter().map(|directory| format!("{directory}/{name}.d")).collect();
    let sources = main.into_iter().chain(drop_ins(disk, &parts));
    sources.fold(None, |before, source| default_in(&source).unwrap_or(before))
}

/// The last setting in one source: some limit, or that it is unset again.
fn default_in(source: &Source) -> Option<Option<(Limit, Evidence)>> {
    settings(&source.text)
        .filter(|setting| (setting.section, setting.key) == ("Manager", "DefaultLimitNOFILE"))
        .filter_map(|setting| {
            if setting.value.is_empty() {
                return Some(None);
            }
            Some(Some((parse_limit(setting.value)?, source.evidence(setting.line))))
        })
        .last()
}

/// `N`, `SOFT:HARD`, each may be `infinity`.
#[must_use]
pub(super) fn parse_limit(value: &str) -> Option<Limit> {
    let one = |word: &str| match word {
        "infinity" => Some(u64::MAX),
        word => word.parse().ok(),
    };
    let limit = match value.split_once(':') {
        None => one(value).map(|both| Limit { soft: both, hard: both })?,
        Some((soft, hard)) => Limit { soft: one(soft)?, hard: one(hard)? },
    };
    // A soft limit above the hard one is refused.
    (limit.soft <= limit.hard).then_some(limit)
}

/// The unit whose cgroup this is; a login session is none.
#[must_use]
pub(super) fn unit_of(cgroup: &str) -> Option<(String, Scope)> {
    let path = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let last = parts.iter().rposition(|part| part.ends_with(".service"))?;
        Some((parts[last].to_owned(), parts))
    });
    let (name, parts) = path?;
    let is_manager = |part: &&&str| part.starts_with("user@") && part.ends_with(".service");
    if parts.iter().any(|part| part.ends_with(".scope"))
        && !parts.iter().any(|part| is_manager(&part))
    {
        return None;
    }
    let scope = match parts.iter().find(is_manager) {
        Some(above) if **above != name => Scope::User,
        _ => Scope::System,
    };
    Some((name, scope))
}

/// A line `Key=Value`.
struct Setting<'a> {
    section: &'a str,
    key: &'a str,
    value: &'a str,
    line: usize,
}

fn settings(text: &str) -> impl Iterator<Item = Setting<'_>> {
    let mut section = "";
    text.lines().enumerate().filter_map(move |(number, line)| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            return None;
        }
        if line.starts_with(['#', ';']) {
            return None;
        }
        let (key, value) = line.split_once('=')?;
        Some(Setting { section, key: key.trim(), value: value.trim(), line: number + 1 })
    })
}

fn fragment(disk: Disk<'_>, name: &str, directories: &[&str]) -> Option<Source> {
    let template = name.split_once('@').map(|(before, _)| format!("{before}@.service"));
    let names = [Some(name.to_owned()), template];
    names.iter().flatten().find_map(|name| {
        directories.iter().find_map(|directory| disk.read(&format!("{directory}/{name}")))
    })
}

/// The names whose drop-ins a unit gets, the least specific first: `service`, `push-`, `push@`, itself.
fn drop_in_names(name: &str) -> Vec<String> {
    let mut names = vec!["service".to_owned()];
    let stem = name.strip_suffix(".service").unwrap_or(name);
    let prefix = stem.split('@').next().unwrap_or(stem);
    for (at, _) in prefix.match_indices('-').filter(|(at, _)| *at > 0) {
        names.push(format!("{}-.service", &prefix[..at]));
    }
    if stem.contains('@') {
        names.push(format!("{prefix}@.service"));
    }
    names.push(name.to_owned());
    names
}

/// All drop-ins of some directories, in the order of their names; of equal names in one directory
/// tree the first directory's counts.
fn drop_ins(disk: Disk<'_>, directories: &[String]) -> Vec<Source> {
    let mut found: Vec<(String, Source)> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    // The most specific name's directories come last in the list, and win.
    for directory in ordered(directories) {
        for name in disk.list(directory) {
            let path = format!("{directory}/{name}");
            if !name.ends_with(".conf") || seen.contains(&name) || seen.len() == DROP_INS_MAX {
                continue;
            }
            seen.push(name.clone());
            if disk.is_masked(&path) {
                continue;
            }
            if let Some(source) = disk.read(&path) {
                found.push((name, source));
            }
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found.into_iter().map(|(_, source)| source).collect()
}

/// The more specific names first, and of one name's directories the stronger first.
fn ordered(directories: &[String]) -> impl Iterator<Item = &String> {
    let rank = |directory: &String| {
        let name = directory.rsplit('/').next().unwrap_or_default();
        usize::MAX - name.len()
    };
    let mut sorted: Vec<_> = directories.iter().collect();
    sorted.sort_by_key(|directory| rank(directory));
    sorted.into_iter()
}

#[cfg(test)]
mod tests;

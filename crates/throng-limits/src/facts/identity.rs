//! Who a process is: its name as a person knows it, its owner, its rights, since when it runs.

use super::FactError;
use crate::tree::{Tree, printable};

/// `USER_HZ`: 100 on every architecture that throng is built for.
const TICKS_PER_SECOND: i64 = 100;
/// `CAP_SYS_RESOURCE`: who has it may raise hard limits.
const CAP_SYS_RESOURCE: u32 = 24;
/// `CAP_SYS_ADMIN`: who has it is not held up by fs.file-max.
const CAP_SYS_ADMIN: u32 = 21;
/// Programs whose first argument is what a person calls the process.
const INTERPRETERS: [&str; 13] = [
    "python", "node", "nodejs", "ruby", "perl", "php", "java", "bash", "sh", "dash", "bun", "deno",
    "pypy",
];
/// Characters of a name on the screen.
const NAME_CHARS_MAX: usize = 40;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    pub parent: u32,
    /// As the kernel has it: at most 15 bytes.
    pub comm: String,
    pub arguments: Vec<String>,
    /// In seconds since 1970.
    pub started_s: Option<i64>,
    pub user: Ids,
    pub group: Ids,
    pub threads: u64,
    pub effective: Rights,
    /// Whether it is dead and waits for its parent.
    pub is_zombie: bool,
}

/// Real, effective and saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ids {
    pub real: u32,
    pub effective: u32,
    pub saved: u32,
}

/// A set of capabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(pub u64);

impl Rights {
    /// Whether hard limits may be raised.
    #[must_use]
    pub fn raises_limits(self) -> bool {
        self.0 >> CAP_SYS_RESOURCE & 1 == 1
    }

    /// Whether fs.file-max does not count.
    #[must_use]
    pub fn ignores_file_max(self) -> bool {
        self.0 >> CAP_SYS_ADMIN & 1 == 1
    }
}

impl Ids {
    /// Whether all three are this one.
    #[must_use]
    pub fn are_all(self, id: u32) -> bool {
        self.real == id && self.effective == id && self.saved == id
    }
}

impl Identity {
    /// Reads who a process is.
    ///
    /// # Errors
    /// When the process is gone, or never was.
    pub fn read(tree: &Tree, pid: u32) -> Result<Self, FactError> {
        let at = |file: &str| format!("{pid}/{file}");
        let path = at("status");
        let status = tree.read_proc(&path)?;
        let mut identity = Self::parse(pid, &status).ok_or_else(|| {
            let path = format!("/proc/{path}");
            FactError::unexpected(std::path::Path::new(&path), "rows Name and Uid")
        })?;
        // Of a zombie only this much is left.
        identity.arguments = split_arguments(&tree.read_proc(&at("cmdline")).unwrap_or_default());
        let ticks = tree.read_proc(&at("stat")).ok().and_then(|stat| parse_start(&stat));
        let boot = tree.read_proc("stat").ok().and_then(|stat| parse_boot(&stat));
        identity.started_s = ticks.zip(boot).map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND);
        Ok(identity)
    }

    /// Finds who a process is in the text of its `status`.
    #[must_use]
    pub fn parse(pid: u32, status: &str) -> Option<Self> {
        let row = |name: &str| {
            let mut rows = status.lines().filter_map(|line| line.strip_prefix(name));
            rows.next().and_then(|row| row.strip_prefix(':')).map(str::trim)
        };
        let hex = |name| row(name).and_then(|set| u64::from_str_radix(set, 16).ok());
        Some(Self {
            pid,
            parent: row("PPid").and_then(|id| id.parse().ok()).unwrap_or(0),
            comm: row("Name")?.to_owned(),
            arguments: Vec::new(),
            started_s: None,
            user: parse_ids(row("Uid")?)?,
            group: row("Gid").and_then(parse_ids).unwrap_or_default(),
            threads: row("Threads").and_then(|count| count.parse().ok()).unwrap_or(1),
            effective: Rights(hex("CapEff").unwrap_or(0)),
            is_zombie: row("State").is_some_and(|state| state.starts_with(['Z', 'X'])),
        })
    }

    /// What a person calls it, such as `python3 push.py`; safe to print.
    #[must_use]
    pub fn name(&self) -> String {
        let Some(program) = self.arguments.first() else { return short(&self.comm) };
        // A server that says what it does has no path there: `nginx: worker process`.
        if program.contains(": ") {
            return short(program);
        }
        let program = base(program.trim_start_matches('-'));
        let script = self.is_interpreted().then(|| self.script()).flatten();
        match script {
            Some(script) => short(&format!("{program} {script}")),
            None if program.is_empty() => short(&self.comm),
            None => short(program),
        }
    }

    /// The name of the program alone: `python3`, `nginx`.
    #[must_use]
    pub fn program(&self) -> &str {
        self.comm.split(':').next().unwrap_or_default()
    }

    /// Whether a program is run by this one, so that what this one can do says little.
    #[must_use]
    pub fn is_interpreted(&self) -> bool {
        let program = self.arguments.first().map_or(self.comm.as_str(), |first| base(first));
        let stem = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        INTERPRETERS.contains(&stem)
    }

    /// What an interpreter runs: the module of `-m`, the jar of `-jar`, or the first plain word.
    fn script(&self) -> Option<&str> {
        let mut rest = self.arguments.iter().skip(1);
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "-m" | "-jar" => return rest.next().map(|name| base(name)),
                "-c" | "-e" => return None,
                "-W" | "-X" | "-cp" | "-classpath" | "-r" | "--require" => {
                    rest.next();
                }
                flag if flag.starts_with('-') || flag.is_empty() => {}
                script => return Some(base(script)),
            }
        }
        None
    }
}

/// Finds the start in the text of `/proc/PID/stat`, in ticks since the machine started.
#[must_use]
pub fn parse_start(stat: &str) -> Option<i64> {
    // The name stands in parentheses and may hold anything. proc(5): starttime is field 22.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// Finds when the machine started in the text of `/proc/stat`, in seconds since 1970.
#[must_use]
pub fn parse_boot(stat: &str) -> Option<i64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn parse_ids(row: &str) -> Option<Ids> {
    let mut ids = row.split_whitespace().map(str::parse);
    let real = ids.next()?.ok()?;
    Some(Ids { real, effective: ids.next()?.ok()?, saved: ids.next()?.ok()? })
}

fn split_arguments(cmdline: &str) -> Vec<String> {
    let text = cmdline.trim_end_matches('\0');
    // BOUNDED: nobody reads more of a name.
    let arguments = text.split('\0').take(32).map(|argument| argument.trim().to_owned());
    if text.is_empty() { Vec::new() } else { arguments.collect() }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn short(name: &str) -> String {
    let name = printable(name.trim());
    if name.chars().count() <= NAME_CHARS_MAX {
        return name;
    }
    let mut cut: String = name.chars().take(NAME_CHARS_MAX - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests;

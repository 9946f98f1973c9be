//! supervisord: which file it was started with, and what `minfds` that says.

use super::source::{Disk, Evidence, Seen, Source, shown};

/// What it asks for where nothing is written.
pub(crate) const MINFDS: u64 = 1024;
/// Where it looks without `-c`, after its own directory.
const ELSEWHERE: [&str; 2] = ["/etc/supervisord.conf", "/etc/supervisor/supervisord.conf"];

/// What is known of a supervisord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Supervisord {
    pub config: Config,
    pub minfds: Minfds,
    /// A line `pidfile=` or the like is of no concern; the section that a new line goes into is.
    pub section: Option<Evidence>,
}

/// The file that it was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Config {
    /// Named on its command line, or the first that is found where it looks.
    File(Source),
    /// There, and not for us.
    Hidden(String),
    Unknown,
}

/// What it wants at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Minfds {
    Written {
        value: u64,
        by: Evidence,
    },
    /// Given on its command line, which wins over the file.
    Argument(u64),
    /// Not written: 1024.
    Unset,
    /// Written, and no number.
    Malformed(Evidence),
    /// The file could not be read.
    Unseen,
}

impl Supervisord {
    /// Reads what a supervisord with this command line and working directory was started with.
    pub(crate) fn read(disk: Disk<'_>, cmdline: &[String], cwd: Option<&str>) -> Self {
        let config = match option(cmdline, "-c", "--configuration") {
            Some(path) => match (path.starts_with('/'), cwd) {
                (true, _) => open(disk, &path).unwrap_or(Config::Unknown),
                (false, Some(cwd)) => {
                    open(disk, &format!("{cwd}/{path}")).unwrap_or(Config::Unknown)
                }
                (false, None) => Config::Unknown,
            },
            None => searched(disk, cmdline, cwd),
        };
        let (mut minfds, section) = match &config {
            Config::File(source) => (parse_minfds(source), parse_section(source)),
            Config::Hidden(_) | Config::Unknown => (Minfds::Unseen, None),
        };
        if let Some(value) = option(cmdline, "-a", "--minfds").and_then(|it| it.parse().ok()) {
            minfds = Minfds::Argument(value);
        }
        Self { config, minfds, section }
    }

    /// The path of its file.
    #[must_use]
    pub(super) fn path(&self) -> Option<&str> {
        match &self.config {
            Config::File(source) => Some(&source.path),
            Config::Hidden(path) => Some(path),
            Config::Unknown => None,
        }
    }
}

/// Finds `minfds` in the section `[supervisord]`.
#[must_use]
pub(super) fn parse_minfds(source: &Source) -> Minfds {
    let mut minfds = Minfds::Unset;
    let mut section = String::new();
    for (number, line) in source.text.lines().enumerate() {
        // A line that starts with white space goes on with the value before it.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            name.split(']').next().unwrap_or_default().clone_into(&mut section);
            continue;
        }
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        if section != "supervisord" || !key.trim().eq_ignore_ascii_case("minfds") {
            continue;
        }
        let by = source.evidence(number + 1);
        // A comment begins at a semicolon after white space.
        let value = value.split(" ;").next().unwrap_or_default().trim();
        minfds = match value.parse() {
            Ok(value) => Minfds::Written { value, by },
            Err(_) => Minfds::Malformed(by),
        };
    }
    minfds
}

fn parse_section(source: &Source) -> Option<Evidence> {
    let line = source.text.lines().position(|line| line.starts_with("[supervisord]"))?;
    Some(source.evidence(line + 1))
}

/// The value of an option, in each of the forms that getopt takes.
fn option(cmdline: &[String], short: &str, long: &str) -> Option<String> {
    let mut words = cmdline.iter();
    while let Some(word) = words.next() {
        if word == short || word == long {
            return words.next().cloned();
        }
        if let Some(value) = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value.to_owned());
        }
        let glued = word.strip_prefix(short).filter(|_| !word.starts_with("--"));
        if let Some(value) = glued {
            return Some(value.to_owned());
        }
    }
    None
}

fn open(disk: Disk<'_>, path: &str) -> Option<Config> {
    match disk.look(path) {
        Seen::There(source) => Some(Config::File(source)),
        Seen::Hidden(path) => Some(Config::Hidden(shown(&path))),
        Seen::Absent => None,
    }
}

/// The first file where it looks: beside its program, in its working directory, in /etc.
fn searched(disk: Disk<'_>, cmdline: &[String], cwd: Option<&str>) -> Config {
    let program = cmdline.iter().find(|word| word.ends_with("/supervisord"));
    let prefix = program.and_then(|path| {
        path.rsplit('/').nth(1).and_then(|bin| path.strip_suffix(&format!("/{bin}/supervisord")))
    });
    let beside = prefix.into_iter().flat_map(|prefix| {
        [format!("{prefix}/etc/supervisord.conf"), format!("{prefix}/supervisord.conf")]
    });
    let here = cwd.into_iter().flat_map(|cwd| {
        let cwd = cwd.trim_end_matches('/');
        [format!("{cwd}/supervisord.conf"), format!("{cwd}/etc/supervisord.conf")]
    });
    let elsewhere = ELSEWHERE.iter().map(|path| (*path).to_owned());
    let mut paths = beside.chain(here).chain(elsewhere);
    paths.find_map(|path| open(disk, &path)).unwrap_or(Config::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minfds(text: &str) -> Minfds {
        parse_minfds(&Source { path: "s".to_owned(), text: text.to_owned(), changed_s: None })
    }

    #[test]
    fn minfds_counts_in_its_section_only() {
        assert!(matches!(
            minfds("[supervisord]\nminfds=8192 ; more\n"),
            Minfds::Written { value: 8192, .. }
        ));
        assert!(matches!(
            minfds("[supervisord]\nMinFds : 8192\n"),
            Minfds::Written { value: 8192, .. }
        ));
        assert_eq!(minfds("[program:x]\nminfds=8192\n"), Minfds::Unset);
        assert_eq!(minfds("[supervisord]\n;minfds=8192\n#minfds=1\n"), Minfds::Unset);
        assert_eq!(minfds("[supervisord]\nenvironment=A=1,\n minfds=3\n"), Minfds::Unset);
        assert!(matches!(minfds("[supervisord]\nminfds=8,192\n"), Minfds::Malformed(_)));
    }

    #[test]
    fn options_are_read_in_every_form() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let file = |line| option(&words(line), "-c", "--configuration");
        assert_eq!(file("supervisord -n -c /a").as_deref(), Some("/a"));
        assert_eq!(file("supervisord -c/a").as_deref(), Some("/a"));
        assert_eq!(file("supervisord --configuration=/a").as_deref(), Some("/a"));
        assert_eq!(file("supervisord -n"), None);
    }
}

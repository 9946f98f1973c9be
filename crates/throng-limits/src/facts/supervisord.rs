//! What supervisord was told about open files: its `minfds`, and the file that says so.

use std::path::{Path, PathBuf};

use super::read_at_most;

/// What supervisord makes of a lower soft limit when nobody sets `minfds`.
pub const MINFDS_DEFAULT: u64 = 1024;
/// Where supervisord looks when it is not told; the first two are relative to where it started.
const PLACES: [&str; 4] = [
    "supervisord.conf",
    "etc/supervisord.conf",
    "/etc/supervisord.conf",
    "/etc/supervisor/supervisord.conf",
];
/// capabilities(7): `CAP_SYS_RESOURCE` raises hard limits.
const CAP_SYS_RESOURCE: u32 = 24;

/// A running supervisord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervisord {
    pub pid: u32,
    /// It raises its soft limit to this, once, when it starts; it never lowers one.
    pub minfds: u64,
    /// The file that sets it, or could.
    pub config: Option<PathBuf>,
    /// Whether it could raise a hard limit, too. If not, it does not start with a higher `minfds`.
    pub may_raise: bool,
}

impl Supervisord {
    /// Reads what can be read of it; what cannot is supervisord's default.
    #[must_use]
    pub fn read(proc: &Path, pid: u32) -> Self {
        let at = proc.join(pid.to_string());
        let told = told(&read_at_most(&at.join("cmdline")).unwrap_or_default());
        let started_in = std::fs::read_link(at.join("cwd")).unwrap_or_else(|_| "/".into());
        let config = match &told.config {
            Some(config) => Some(started_in.join(config)),
            None => PLACES.iter().map(|place| started_in.join(place)).find(|each| each.is_file()),
        };
        let text = config.as_deref().and_then(|config| read_at_most(config).ok());
        let minfds = told.minfds.or_else(|| parse_minfds(&text?)).unwrap_or(MINFDS_DEFAULT);
        Self { pid, minfds, config, may_raise: may_raise(proc, pid) }
    }
}

/// What a command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    config: Option<String>,
    minfds: Option<u64>,
}

/// Finds `-c FILE` and `-a MINFDS` in a `cmdline`, in every way in which they may be written.
fn told(cmdline: &str) -> Told {
    let mut told = Told::default();
    let mut arguments = cmdline.split('\0');
    let value = |argument: &str, next: &mut dyn Iterator<Item = &str>, short, long: &str| {
        if argument == short || argument == long {
            return next.next().map(str::to_owned);
        }
        let joined = argument.strip_prefix(long).and_then(|rest| rest.strip_prefix('='));
        let glued = argument.strip_prefix(short).filter(|_| !argument.starts_with("--"));
        joined.or(glued).map(str::to_owned)
    };
    while let Some(argument) = arguments.next() {
        if let Some(config) = value(argument, &mut arguments, "-c", "--configuration") {
            told.config = Some(config);
        } else if let Some(minfds) = value(argument, &mut arguments, "-a", "--minfds") {
            told.minfds = minfds.parse().ok();
        }
    }
    told
}

/// Finds `minfds` under `[supervisord]`, where a `;` begins a comment.
#[must_use]
pub fn parse_minfds(config: &str) -> Option<u64> {
    let lines = config.lines().map(|line| line.split([';', '#']).next().unwrap_or_default().trim());
    let section = lines.skip_while(|line| *line != "[supervisord]").skip(1);
    section.take_while(|line| !line.starts_with('[')).find_map(|line| {
        let (name, value) = line.split_once(['=', ':'])?;
        (name.trim() == "minfds").then(|| value.trim().parse().ok())?
    })
}

/// Whether a process may raise hard limits: it has the capability, and has it from the machine and
/// not only from a container's own user namespace.
pub(crate) fn may_raise(proc: &Path, pid: u32) -> bool {
    let at = proc.join(pid.to_string());
    let status = read_at_most(&at.join("status")).unwrap_or_default();
    let users = read_at_most(&at.join("uid_map")).unwrap_or_default();
    // user_namespaces(7): the machine's own maps everybody to themselves.
    parse_capable(&status) && users.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Finds the capability among the effective ones in the text of `/proc/PID/status`.
fn parse_capable(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> CAP_SYS_RESOURCE & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minfds_is_read_in_its_section_and_without_its_comment() {
        let text = "[unix_http_server]\nminfds=1\n[supervisord]\nlogfile=/x\n\
                    minfds = 4096 ; (min. avail startup file descriptors)\n[program:a]\nminfds=2\n";
        assert_eq!(parse_minfds(text), Some(4096));
        assert_eq!(parse_minfds("[supervisord]\n;minfds=4096\n[x]\nminfds=2\n"), None);
        assert_eq!(parse_minfds("minfds=4096"), None);
        assert_eq!(parse_minfds("[supervisord]\nminfds=many"), None);
    }

    #[test]
    fn the_command_line_says_it_in_many_ways() {
        let check = |cmdline: &str, config: Option<&str>, minfds| {
            let wanted = Told { config: config.map(str::to_owned), minfds };
            assert_eq!(told(&cmdline.replace(' ', "\0")), wanted, "{cmdline}");
        };
        check("/usr/bin/python3 /usr/bin/supervisord -n -c /etc/s.conf", Some("/etc/s.conf"), None);
        check("supervisord -cs.conf --minfds=99 ", Some("s.conf"), Some(99));
        check("supervisord --configuration=/s -a 7", Some("/s"), Some(7));
        check("supervisord --configuration /s --nodaemon", Some("/s"), None);
        check("supervisord", None, None);
        check("supervisord -a", None, None);
    }

    #[test]
    fn the_capability_is_one_bit() {
        assert!(parse_capable("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(!parse_capable("CapEff:\t000001fffeffffff\n"));
        assert!(!parse_capable("CapEff:\tmany\n") && !parse_capable(""));
    }

    #[test]
    fn one_that_is_gone_is_taken_for_the_usual_one() {
        let seen = Supervisord::read(Path::new("/nowhere"), 7);
        assert_eq!((seen.minfds, seen.may_raise), (MINFDS_DEFAULT, false));
    }
}

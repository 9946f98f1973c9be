//! Everything that a diagnosis of a limit's origin looks at, read from a tree.

use super::account::Account;
use super::container::Container;
use super::distro;
use super::keeper::{Service, sets_limit};
use super::launcher::{self, Inside, Launcher, Marks, Signs, is_supervisord, pam_service};
use super::limits_conf::{Applied, FD_SETSIZE, LimitsConf, Opening, Power, Variant};
use super::lineage::{Relative, lineage};
use super::pam_stack::{self, Limits, Stack};
use super::source::{Disk, Evidence, Source};
use super::supervisord::{MINFDS, Minfds, Supervisord};
use super::unit::{self, Scope, Unit};
use crate::Tree;
use crate::facts::OpenFiles;
use crate::facts::limits::UNLIMITED;

/// Programs by which people get in: what locks these locks everybody out.
const DOORS: [&str; 4] = ["sshd", "login", "su", "sudo"];
/// Files that shells read when they start.
const STARTUP: [&str; 3] = ["/etc/profile", "/etc/bash.bashrc", "/etc/zsh/zprofile"];
const STARTUP_DIRECTORY: &str = "/etc/profile.d";
/// Files of one user, in his home.
const STARTUP_HOME: [&str; 4] = [".profile", ".bash_profile", ".bashrc", ".zshrc"];
/// Files of profile.d that are read: nobody has so many.
const STARTUP_MAX: usize = 100;

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The process, its parent, and so on.
    pub(crate) line: Vec<Relative>,
    pub(crate) now_s: i64,
    pub(crate) nr_open: u64,
    pub(crate) first_process: Option<OpenFiles>,
    pub(crate) has_systemd: bool,
    pub(crate) variant: Variant,
    pub(crate) account: Account,
    pub(crate) launcher: Launcher,
    pub(crate) container: Option<Container>,
    pub(crate) unit: Option<Meant>,
    pub(crate) supervisord: Option<(usize, Supervisord)>,
    pub(crate) keeper: Option<Service>,
    pub(crate) sessions: Vec<Session>,
    /// What a login of its user would get, for where no session is to be seen.
    pub(crate) login: Session,
    pub(crate) doors: Vec<Session>,
    pub(crate) startup: Vec<Evidence>,
    pub(crate) unseen: Vec<String>,
}

/// A unit, and what it means to give.
#[derive(Debug, Clone)]
pub(crate) struct Meant {
    pub(crate) unit: Unit,
    pub(crate) limit: OpenFiles,
    pub(crate) by: MeantBy,
    /// With `PAMName=`.
    pub(crate) session: Option<Session>,
    /// A program in its commands that opens a session: `su`.
    pub(crate) opens: Option<(Session, Evidence)>,
    /// A line of its script that sets the limit.
    pub(crate) script: Option<Evidence>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MeantBy {
    Line(unit::Limit, Evidence),
    Default(unit::Limit, Evidence),
    BuiltIn,
    /// No systemd, or one before 240: what process 1 has.
    FirstProcess,
}

/// A session that a program opened, or would.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Where in the line the program is.
    pub(crate) at: Option<usize>,
    pub(crate) service: String,
    pub(crate) account: Account,
    pub(crate) stack: Option<Stack>,
    pub(crate) limits: Limits,
    /// sshd is told not to ask PAM.
    pub(crate) without_pam: Option<Evidence>,
    /// What `pam_limits` does, where it is run.
    pub(crate) applied: Option<Applied>,
    /// What it did, if files that were changed since had no such lines then.
    pub(crate) before: Option<Applied>,
    pub(crate) conf: LimitsConf,
}

impl Session {
    /// Whether `pam_limits` is run.
    pub(crate) fn is_limited(&self) -> bool {
        self.applied.is_some()
    }
}

/// Looks at everything. Nothing when the process is gone, or its limits have no row of open files.
pub(crate) fn gather(tree: &Tree, pid: u32) -> Option<Facts> {
    let line = lineage(tree, pid);
    let own = line.first()?.clone();
    let read = |name: &str| tree.read_proc(&format!("{pid}/{name}"));
    let cgroup = read("cgroup").unwrap_or_default();
    let environ = read("environ");
    let marks = Marks::parse(environ.as_deref().unwrap_or_default());
    let machine = Disk::machine(tree);
    let signs = Signs { line: &line, cgroup: &cgroup, marks: &marks, inside: inside(machine) };
    let launcher = launcher::launcher(signs);
    let container = launcher::container(signs);
    // From the machine, a container's files are seen through its process.
    let disk = match &container {
        Some(_) if signs.inside == Inside::Machine => Disk::of(tree, pid),
        _ => machine,
    };
    let first = lineage(tree, 1).into_iter().next();
    let scene = Scene {
        disk,
        variant: distro::variant(disk),
        first_process: first.as_ref().map(|first| first.limit),
        nr_open: nr_open(tree),
        line: &line,
    };
    let account = Account::read(disk, own.uid);
    let has_systemd = first.is_some_and(|first| first.name == "systemd");
    let unit = unit::unit_of(&cgroup).filter(|_| container.is_none());
    let mut unseen = Vec::new();
    if environ.is_err_and(|error| error.is_denied()) {
        unseen.push("its environment, which remembers how it was started".to_owned());
    }
    Some(Facts {
        now_s: tree.now_s(),
        nr_open: scene.nr_open,
        first_process: scene.first_process,
        has_systemd,
        variant: scene.variant,
        unit: unit.map(|(name, scope)| scene.meant(&name, scope, has_systemd, &account)),
        supervisord: running_supervisord(tree, disk, &line),
        keeper: scene.keeper(tree, &launcher),
        sessions: scene.sessions(&launcher, &account, session_user(&cgroup)),
        login: scene.session("sshd", account.clone(), None, own.limit),
        doors: scene.doors(&account),
        startup: scene.startup(&account),
        container: container.map(|(runtime, id)| Container::read(machine, runtime, id)),
        launcher,
        account,
        unseen,
        line,
    })
}

/// What keeps a process running, without a word about how: all that a start line needs.
#[derive(Debug, Clone)]
pub(crate) struct Keeping {
    /// Where in the line, what it wants at least, and the file that says so or could.
    pub(crate) supervisord: Option<(usize, u64, Option<String>)>,
    pub(crate) container: bool,
    pub(crate) unit: Option<(String, Scope)>,
}

/// Reads what keeps the first process of a line running.
pub(crate) fn keeping(tree: &Tree, line: &[Relative]) -> Keeping {
    let cgroup = line.first().and_then(|own| tree.read_proc(&format!("{}/cgroup", own.pid)).ok());
    let cgroup = cgroup.unwrap_or_default();
    let disk = Disk::machine(tree);
    let marks = Marks::default();
    let signs = Signs { line, cgroup: &cgroup, marks: &marks, inside: inside(disk) };
    let supervisord = running_supervisord(tree, disk, line).map(|(at, it)| {
        let minfds = match it.minfds {
            Minfds::Written { value, .. } | Minfds::Argument(value) => value,
            Minfds::Unset | Minfds::Malformed(_) | Minfds::Unseen => MINFDS,
        };
        (at, minfds, it.path().map(str::to_owned))
    });
    let container = launcher::container(signs).is_some();
    Keeping { supervisord, container, unit: unit::unit_of(&cgroup) }
}

fn running_supervisord(
    tree: &Tree,
    disk: Disk<'_>,
    line: &[Relative],
) -> Option<(usize, Supervisord)> {
    let (at, process) = line.iter().enumerate().skip(1).find(|(_, each)| is_supervisord(each))?;
    let cwd = tree.link_proc(&format!("{}/cwd", process.pid)).ok();
    Some((at, Supervisord::read(disk, &process.cmdline, cwd.as_deref())))
}

/// What all readings of one diagnosis share.
struct Scene<'a> {
    disk: Disk<'a>,
    variant: Variant,
    first_process: Option<OpenFiles>,
    nr_open: u64,
    line: &'a [Relative],
}

impl Scene<'_> {
    fn session(
        &self,
        service: &str,
        account: Account,
        at: Option<usize>,
        inherited: OpenFiles,
    ) -> Session {
        let stack = pam_stack::read(self.disk, service);
        let mut limits = stack.as_ref().map_or(Limits::NotRun, |stack| stack.limits(self.disk));
        let without_pam = pam_stack::sshd_without_pam(self.disk).filter(|_| service == "sshd");
        if without_pam.is_some() {
            limits = Limits::NotRun;
        }
        let named = match &limits {
            Limits::Run { conf, .. } => conf.as_deref(),
            _ => None,
        };
        let conf = LimitsConf::read(self.disk, named);
        let may_raise = at.and_then(|at| self.line.get(at)).is_none_or(|program| program.may_raise);
        let opening = Opening {
            account: &account,
            variant: self.variant,
            inherited,
            first_process: self.first_process,
            nr_open: self.nr_open,
            power: if may_raise { Power::Raises } else { Power::OnlyLowers },
        };
        let run = matches!(limits, Limits::Run { .. });
        let applied = run.then(|| conf.apply(opening));
        let opened_s =
            at.map_or(self.line.first(), |at| self.line.get(at - 1)).and_then(|it| it.started_s);
        let since = |source: &Source| {
            source.changed_s.zip(opened_s).is_some_and(|(changed, opened)| changed > opened)
        };
        let before = (run && conf.files.iter().any(since)).then(|| {
            let mut before = conf.clone();
            before.files.retain(|source| !since(source));
            before.apply(opening)
        });
        let service = service.to_owned();
        Session { at, service, account, stack, limits, without_pam, applied, before, conf }
    }

    /// The sessions that were opened on the way to the process, the closest first; where they are
    /// gone, the one that is remembered.
    fn sessions(&self, launcher: &Launcher, account: &Account, user: Option<u32>) -> Vec<Session> {
        let mut sessions = Vec::new();
        for (at, program) in self.line.iter().enumerate().skip(1) {
            let Some(service) = pam_service(program) else { continue };
            // sshd and cron: the listening process is the parent of the one with the session.
            let opened = self.line.get(at - 1).is_some_and(|child| child.name != program.name);
            if !opened {
                continue;
            }
            let uid = self.line[at - 1].uid;
            let user =
                if uid == account.uid { account.clone() } else { Account::read(self.disk, uid) };
            let inherited = self.line.get(at + 1).map_or(program.limit, |above| above.limit);
            let inherited =
                if resets_soft(&program.name) { su_reset(inherited) } else { inherited };
            sessions.push(self.session(service, user, Some(at), inherited));
        }
        if let Launcher::Session { service, pid: None } = launcher {
            let inherited = unit::BUILT_IN.clamped_to(self.nr_open);
            let inherited = if resets_soft(service) { su_reset(inherited) } else { inherited };
            let session = |account| self.session(service, account, None, inherited);
            let explains = |session: &Session| {
                session.applied.as_ref().is_some_and(|it| it.limit == self.line[0].limit)
            };
            let own = session(account.clone());
            // What asks no PAM, such as start-stop-daemon, keeps what the session's user has.
            let other = user.filter(|user| *user != account.uid && !explains(&own));
            let other = other.map(|user| session(Account::read(self.disk, user)));
            sessions.push(other.filter(explains).unwrap_or(own));
        }
        sessions
    }

    fn doors(&self, account: &Account) -> Vec<Session> {
        let root = Account::read(self.disk, 0);
        let mut users = vec![account];
        if account.uid != 0 {
            users.push(&root);
        }
        let inherited = unit::BUILT_IN.clamped_to(self.nr_open);
        let mut doors = Vec::new();
        for service in DOORS {
            if self.disk.has(&format!("/etc/pam.d/{service}")) != Some(true) {
                continue;
            }
            doors.extend(
                users.iter().map(|user| self.session(service, (*user).clone(), None, inherited)),
            );
        }
        doors
    }

    fn meant(&self, name: &str, scope: Scope, has_systemd: bool, account: &Account) -> Meant {
        let unit = Unit::read(self.disk, name, scope.clone());
        let default = unit::default_limit(self.disk, &scope);
        let first = self.first_process.unwrap_or(unit::BUILT_IN);
        let modern = has_systemd && first.hard >= unit::BUILT_IN.hard;
        let (limit, by) = match (&unit.limit, default) {
            (Some((limit, line)), _) => {
                (limit.clamped(self.nr_open), MeantBy::Line(*limit, line.clone()))
            }
            (None, Some((limit, line))) => {
                (limit.clamped(self.nr_open), MeantBy::Default(limit, line))
            }
            (None, None) if modern => (unit::BUILT_IN.clamped_to(self.nr_open), MeantBy::BuiltIn),
            (None, None) => (first, MeantBy::FirstProcess),
        };
        let session = unit
            .pam_name
            .as_ref()
            .map(|(service, _)| self.session(service, account.clone(), None, limit));
        let (opens, script) = self.commands(&unit, limit, account);
        Meant { unit, limit, by, session, opens, script }
    }

    /// What the commands of a unit, or the script that they run, do to the limit.
    fn commands(
        &self,
        unit: &Unit,
        limit: OpenFiles,
        account: &Account,
    ) -> (Option<(Session, Evidence)>, Option<Evidence>) {
        let mut lines: Vec<Evidence> = unit.exec.clone();
        for line in &unit.exec {
            let command = line.text.split_once('=').map_or("", |(_, command)| command);
            let words = command
                .split_whitespace()
                .map(|word| word.trim_start_matches(['-', '+', '!', '@', ':']));
            for word in words.take(8).filter(|word| is_script(word)) {
                let Some(script) = self.disk.read(word) else { continue };
                lines.extend((1..=script.text.lines().count()).map(|line| script.evidence(line)));
            }
        }
        let lines = lines.iter().filter(|line| !line.text.starts_with('#'));
        let opens = lines.clone().find_map(|line| Some((opener(&line.text)?, line)));
        let opens = opens.map(|(service, line)| {
            let inherited = if resets_soft(service) { su_reset(limit) } else { limit };
            (self.session(service, account.clone(), None, inherited), line.clone())
        });
        let script = lines.clone().find(|line| sets_limit(&line.text)).cloned();
        (opens, script)
    }

    fn keeper(&self, tree: &Tree, launcher: &Launcher) -> Option<Service> {
        let Launcher::Keeper { kind, service, pid } = launcher else { return None };
        let cwd = pid.and_then(|pid| tree.link_proc(&format!("{pid}/cwd")).ok());
        Some(Service::read(self.disk, *kind, service, cwd.as_deref()))
    }

    /// Lines of shells' own files that set the limit.
    fn startup(&self, account: &Account) -> Vec<Evidence> {
        let home =
            if account.uid == 0 { "/root".to_owned() } else { format!("/home/{}", account.name) };
        let directory = self.disk.list(STARTUP_DIRECTORY).into_iter().take(STARTUP_MAX);
        let paths = STARTUP
            .iter()
            .map(|path| (*path).to_owned())
            .chain(directory.map(|name| format!("{STARTUP_DIRECTORY}/{name}")))
            .chain(STARTUP_HOME.iter().map(|name| format!("{home}/{name}")));
        let mut found = Vec::new();
        for source in paths.filter_map(|path| self.disk.read(&path)) {
            let lines = source.text.lines().enumerate().filter(|(_, line)| sets_limit(line));
            found.extend(lines.map(|(number, _)| source.evidence(number + 1)));
        }
        found
    }
}

impl OpenFiles {
    fn clamped_to(self, most: u64) -> Self {
        Self { soft: self.soft.min(most), hard: self.hard.min(most) }
    }
}

/// Whose session a process is in: `/user.slice/user-1000.slice/session-1.scope`.
fn session_user(cgroup: &str) -> Option<u32> {
    cgroup
        .split('/')
        .find_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok())
}

/// util-linux: su and runuser give every session a soft limit of 1024 before PAM is asked.
pub(crate) fn resets_soft(program: &str) -> bool {
    matches!(program, "su" | "su-l" | "runuser" | "runuser-l")
}

fn su_reset(limit: OpenFiles) -> OpenFiles {
    OpenFiles { soft: FD_SETSIZE.min(limit.hard), hard: limit.hard }
}

/// The service of a program in a command that opens a session.
fn opener(command: &str) -> Option<&'static str> {
    let separators = |c: char| c.is_whitespace() || matches!(c, '=' | ';' | '"' | '\'' | '(');
    command.split(separators).find_map(|word| match word.rsplit('/').next()? {
        "su" => Some("su"),
        "sudo" => Some("sudo"),
        "runuser" => Some("runuser"),
        _ => None,
    })
}

fn is_script(word: &str) -> bool {
    word.starts_with("/etc/init.d/") || word.rsplit('.').next().is_some_and(|end| end == "sh")
}

fn nr_open(tree: &Tree) -> u64 {
    let text = tree.read_proc("sys/fs/nr_open").ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(UNLIMITED)
}

fn inside(machine: Disk<'_>) -> Inside {
    let marked =
        ["/.dockerenv", "/run/.containerenv"].iter().any(|path| machine.has(path) == Some(true));
    if marked { Inside::Container } else { Inside::Machine }
}

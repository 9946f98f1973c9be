//! Who set a limit: a pure diagnosis of what was gathered, for the soft and the hard half each.

use super::container::Container;
use super::gather::{Facts, Meant, MeantBy, Session, resets_soft};
use super::launcher::{Launcher, is_shell, is_shim, is_supervisord, is_user_manager};
use super::limits_conf::{Applied, By, FD_SETSIZE, Outcome, TrapKind};
use super::lineage::Relative;
use super::pam_stack::Limits;
use super::source::Evidence;
use super::supervisord::Minfds;
use super::unit::{self, Scope};
use super::when::when;
use crate::facts::OpenFiles;

/// What Docker's and containerd's units gave in the years when they said `infinity`, where systemd
/// raises `fs.nr_open` as far as it goes: 2^30 - 8.
const INFINITE: u64 = 1_073_741_816;
/// What the kernel starts process 1 with.
const KERNEL: OpenFiles = OpenFiles { soft: 1024, hard: 4096 };

/// Who set one half of the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    pub setter: Setter,
    /// A clause without a full stop.
    pub words: String,
    pub evidence: Vec<Evidence>,
}

/// Who it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setter {
    Supervisord(u32),
    Unit(String),
    /// The manager's default for units that say nothing.
    UnitDefault,
    PamLimits(String),
    /// `su` or `runuser` itself.
    Su,
    Container,
    Keeper,
    Shell(u32),
    /// The process raised its soft limit to the hard one.
    Itself,
    /// Something between the parent and the process, or since.
    Between,
    FirstProcess,
    Kernel,
    Unknown,
}

/// Which half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Soft,
    Hard,
}

impl Half {
    pub(crate) fn of(self, limit: OpenFiles) -> u64 {
        match self {
            Self::Soft => limit.soft,
            Self::Hard => limit.hard,
        }
    }

    fn by(self, applied: &Applied) -> &By {
        match self {
            Self::Soft => &applied.soft,
            Self::Hard => &applied.hard,
        }
    }
}

/// Walks up from the process to the first that decided.
pub(crate) fn blame(facts: &Facts, half: Half) -> Blame {
    let value = half.of(facts.line[0].limit);
    for at in 1..facts.line.len() {
        let (program, child) = (&facts.line[at], &facts.line[at - 1]);
        if let Some(blame) = facts.decided_by(at, half, value) {
            return blame;
        }
        // What process 1 adopted was started by something else, which is gone. A shell is process 1
        // only in a container, whose own limit it shows.
        let adopted = program.pid == 1 && facts.is_remembered() && !is_shell(&program.name);
        if half.of(program.limit) != value && !adopted {
            return facts.between(child, program, half);
        }
    }
    facts.remembered(half, value)
}

impl Facts {
    /// Whether the program at that place of the line gave the value to what is below.
    fn decided_by(&self, at: usize, half: Half, value: u64) -> Option<Blame> {
        let program = &self.line[at];
        if let Some((place, _)) = self.supervisord.as_ref().filter(|(place, _)| *place == at) {
            return self.by_supervisord(*place, half, value);
        }
        if let Some(session) = self.sessions.iter().find(|session| session.at == Some(at)) {
            if let Some(blame) = self.by_session(session, half, value) {
                return Some(blame);
            }
            if half == Half::Soft && resets_soft(&program.name) && value == FD_SETSIZE {
                return Some(by_su(&program.name, Some(program.pid)));
            }
        }
        if is_shim(&program.name) {
            return self.container.as_ref().map(|container| by_container(container, value));
        }
        if program.pid == 1 && self.has_systemd {
            let child = &self.line[at - 1];
            return self.unit.as_ref().map(|meant| self.by_unit(meant, half, value, child));
        }
        if is_user_manager(program) {
            let child = &self.line[at - 1];
            let meant = self.unit.as_ref().filter(|meant| meant.unit.scope == Scope::User)?;
            if matches!(meant.by, MeantBy::BuiltIn) && half.of(program.limit) == value {
                return Some(self.by_user_manager(at, &meant.unit.name, value));
            }
            return (half.of(meant.limit) == value && !matches!(meant.by, MeantBy::BuiltIn))
                .then(|| self.by_unit(meant, half, value, child));
        }
        None
    }

    /// A service that says nothing has what its user's manager has; and that has what its session
    /// gave it when it began, whatever the files say now.
    fn by_user_manager(&self, at: usize, unit: &str, value: u64) -> Blame {
        let above = &self.line[at];
        let session = self.sessions.iter().find(|session| session.at == Some(at));
        let files = session.into_iter().flat_map(|session| &session.conf.files);
        let is_newer = |changed: i64| above.started_s.is_some_and(|started| changed > started);
        let newer = files.filter(|file| file.changed_s.is_some_and(is_newer));
        let newer = newer.max_by_key(|file| file.changed_s);
        let since = newer.map_or_else(String::new, |file| {
            let written = self.said(file.changed_s);
            format!("; it began before {} was written {written}, and has not read it", file.path)
        });
        Blame {
            setter: Setter::PamLimits("systemd-user".to_owned()),
            words: format!(
                "{} has {value} from its session, and {unit} has no LimitNOFILE{since}",
                self.who(above)
            ),
            evidence: session.map(step_of).unwrap_or_default(),
        }
    }

    fn by_supervisord(&self, at: usize, half: Half, value: u64) -> Option<Blame> {
        let (_, supervisord) = self.supervisord.as_ref()?;
        let process = &self.line[at];
        let blame = |words: &str, evidence: Vec<Evidence>| Blame {
            setter: Setter::Supervisord(process.pid),
            words: format!("{} gave it {value}, {words}", self.who(process)),
            evidence,
        };
        if half.of(process.limit) != value {
            // It was changed in the running supervisord, or a command of its own changed it.
            return None;
        }
        let above = self.given_to(at);
        let raised = above.is_none_or(|above| half.of(above) < value);
        // It never lowers anything: a hard limit below its parent's, and all of it used, is another's.
        let OpenFiles { soft, hard } = process.limit;
        if soft == hard && above.is_some_and(|above| above.hard > hard) {
            return None;
        }
        // A hard limit is only ever raised, and only together with the soft one.
        if half == Half::Hard && !(raised && process.limit.soft == value) {
            return None;
        }
        match &supervisord.minfds {
            Minfds::Written { value: wanted, by }
                if *wanted == value && (raised || half == Half::Soft) =>
            {
                Some(blame(&format!("minfds={wanted} in {}", by.place()), vec![by.clone()]))
            }
            Minfds::Argument(wanted) if *wanted == value => {
                Some(blame("the number on its command line", Vec::new()))
            }
            Minfds::Written { by, .. } if half == Half::Soft && self.is_newer(by, process) => {
                let since = self.said(by.changed_s);
                Some(blame(
                    &format!("and {} was written {since}, after its start", by.place()),
                    vec![by.clone()],
                ))
            }
            Minfds::Unset if half == Half::Soft && value == super::supervisord::MINFDS => {
                let evidence = supervisord.section.iter().cloned().collect();
                Some(blame("minfds unset", evidence))
            }
            Minfds::Unseen if half == Half::Soft && raised => {
                Some(blame("by minfds in a file that cannot be seen", Vec::new()))
            }
            _ => None,
        }
    }

    /// What a program of the line was started with: its parent's limit, or its unit's.
    fn given_to(&self, at: usize) -> Option<OpenFiles> {
        let above = self.line.get(at + 1)?;
        let meant = self.unit.as_ref().filter(|_| above.pid == 1 && self.has_systemd);
        Some(meant.map_or(above.limit, |meant| meant.limit))
    }

    fn by_session(&self, session: &Session, half: Half, value: u64) -> Option<Blame> {
        let applied = session.applied.as_ref()?;
        if let Some(before) = &session.before
            && half.of(before.limit) == value
            && before.limit != applied.limit
        {
            let then = Session { applied: Some(before.clone()), before: None, ..session.clone() };
            let blame = self.by_session(&then, half, value)?;
            let words = format!("{}, as its files were when the session was opened", blame.words);
            return Some(Blame { words, ..blame });
        }
        if let Some(blame) = self.by_refusal(session, applied, half, value) {
            return Some(blame);
        }
        let (user, service) = (&session.account.name, &session.service);
        let raises_itself = session.service == "systemd-user";
        // A manager raises its own soft limit to the hard one.
        let given = if raises_itself { applied.limit.hard } else { half.of(applied.limit) };
        if given != value {
            return None;
        }
        let setter = Setter::PamLimits(service.clone());
        let blame = match half.by(applied) {
            By::Line(line) => Blame {
                setter,
                words: format!("pam_limits gave {user} {value} at {service}: {}", line.cite()),
                evidence: vec![line.clone()],
            },
            By::FirstProcess => Blame {
                setter,
                words: format!(
                    "pam_limits, run by {service}, reset it to what process 1 has{}: no line is for \
                     {user}",
                    if half == Half::Soft { ", at most 1024" } else { "" }
                ),
                evidence: step_of(session),
            },
            By::Inherited => return None,
        };
        matches!(applied.outcome, Outcome::Set).then_some(blame)
    }

    /// A session in which the module had its reasons to leave everything as it was.
    fn by_refusal(
        &self,
        session: &Session,
        applied: &Applied,
        half: Half,
        value: u64,
    ) -> Option<Blame> {
        if half.of(applied.limit) != value {
            return None;
        }
        let (user, service) = (&session.account.name, &session.service);
        let (why, evidence) = match &applied.outcome {
            Outcome::Exempt(line) => {
                (format!("leaves {user} alone ({})", line.cite()), vec![line.clone()])
            }
            Outcome::Refused(wanted) if wanted.hard > self.nr_open => (
                format!(
                    "asked for {}, above fs.nr_open ({}), and was refused",
                    wanted.hard, self.nr_open
                ),
                self.lines_above(applied),
            ),
            Outcome::Refused(wanted) => {
                (format!("may not raise the hard limit to {}", wanted.hard), step_of(session))
            }
            Outcome::Set | Outcome::LockedOut(_) => return None,
        };
        Some(Blame {
            setter: Setter::PamLimits(service.clone()),
            words: format!("pam_limits, run by {service}, {why}: the session kept {value}"),
            evidence,
        })
    }

    fn lines_above(&self, applied: &Applied) -> Vec<Evidence> {
        let above = applied.traps.iter().filter(|trap| trap.kind == TrapKind::AboveNrOpen);
        above.map(|trap| trap.evidence.clone()).collect()
    }

    /// What the unit says, or that it says something else.
    fn by_unit(&self, meant: &Meant, half: Half, value: u64, child: &Relative) -> Blame {
        let name = &meant.unit.name;
        if let Some(blame) = meant.session.as_ref().and_then(|it| self.by_session(it, half, value))
        {
            let evidence = meant.unit.pam_name.iter().map(|(_, line)| line.clone());
            return Blame {
                evidence: blame.evidence.into_iter().chain(evidence).collect(),
                ..blame
            };
        }
        if half.of(meant.limit) == value && meant.session.as_ref().is_none_or(|it| !it.is_limited())
        {
            return self.as_meant(meant, half, value);
        }
        if half == Half::Soft && value == child.limit.hard && meant.limit.hard == value {
            return itself(value);
        }
        if let Some(line) = self.newer(meant, child) {
            return Blame {
                setter: Setter::Unit(name.clone()),
                words: format!(
                    "{name} was started {} with {value}, before {} was written {}: it is not applied \
                     until a restart",
                    self.said(child.started_s),
                    line.cite(),
                    self.said(line.changed_s)
                ),
                evidence: vec![line],
            };
        }
        if let Some((session, line)) = &meant.opens {
            if let Some(blame) = self.by_session(session, half, value) {
                let evidence = blame.evidence.into_iter().chain([line.clone()]).collect();
                let words = format!("{} (as {} runs it)", blame.words, line.place());
                return Blame { words, evidence, ..blame };
            }
            if half == Half::Soft && resets_soft(&session.service) && value == FD_SETSIZE {
                let blame = by_su(&session.service, None);
                return Blame { evidence: vec![line.clone()], ..blame };
            }
        }
        if let Some(line) = &meant.script {
            return Blame {
                setter: Setter::Shell(0),
                words: format!("its start script gave it {value}: {}", line.cite()),
                evidence: vec![line.clone()],
            };
        }
        let means = half.of(meant.limit);
        Blame {
            setter: Setter::Between,
            words: format!(
                "{name} means {means} and the process has {value}: ulimit in its command, prlimit \
                 since, or daemon-reload forgotten before its start"
            ),
            evidence: meant_evidence(meant),
        }
    }

    fn as_meant(&self, meant: &Meant, half: Half, value: u64) -> Blame {
        let name = &meant.unit.name;
        let clamp = |limit: unit::Limit| {
            let written = half.of(OpenFiles { soft: limit.soft, hard: limit.hard });
            let word =
                if written == u64::MAX { "infinity".to_owned() } else { written.to_string() };
            if written > self.nr_open {
                format!(" ({word} is clamped to fs.nr_open, {})", self.nr_open)
            } else {
                String::new()
            }
        };
        let (setter, words) = match &meant.by {
            MeantBy::Line(limit, line) => (
                Setter::Unit(name.clone()),
                format!("{name} gave it {value}: {}{}", line.cite(), clamp(*limit)),
            ),
            MeantBy::Default(limit, line) => (
                Setter::UnitDefault,
                format!(
                    "{name} has no LimitNOFILE, so {value} comes from {}{}",
                    line.cite(),
                    clamp(*limit)
                ),
            ),
            MeantBy::BuiltIn => (
                Setter::UnitDefault,
                format!(
                    "{name} has no LimitNOFILE, so systemd gave it {value} of its default 1024:524288"
                ),
            ),
            MeantBy::FirstProcess => (
                Setter::FirstProcess,
                format!("{name} has no LimitNOFILE, so it has {value} as process 1 has"),
            ),
        };
        Blame { setter, words, evidence: meant_evidence(meant) }
    }

    /// A value that a process has and its parent has not.
    fn between(&self, child: &Relative, parent: &Relative, half: Half) -> Blame {
        let value = half.of(child.limit);
        let (has, blame) =
            (half.of(parent.limit), |setter, words| Blame { setter, words, evidence: Vec::new() });
        if let Some(service) = self.keeper.as_ref().filter(|it| it.sets.is_some()) {
            let line = service.sets.clone();
            let cite = line.as_ref().map(Evidence::cite).unwrap_or_default();
            return Blame {
                setter: Setter::Keeper,
                words: format!("{} gave it {value}: {cite}", service.kind.name()),
                evidence: line.into_iter().collect(),
            };
        }
        let raised = value == child.limit.hard && has < value && parent.limit.hard == value;
        if half == Half::Soft && raised {
            return itself(value);
        }
        if is_supervisord(child) && value < has {
            let words = format!(
                "{} has {has} and {} has {value}: set before supervisord began, which passes it on and never \
                 lowers one",
                self.who(parent),
                self.who(child)
            );
            return blame(Setter::Between, words);
        }
        if is_shell(&child.name) {
            let words =
                format!("{} set {value} with ulimit; its parent has {has}", self.who(child));
            return blame(Setter::Shell(child.pid), words);
        }
        if is_supervisord(parent) {
            let words = format!(
                "{} has {has} now and started it with {value}: a restart of the program gives it {has}",
                self.who(parent)
            );
            return blame(Setter::Supervisord(parent.pid), words);
        }
        let shell = if is_shell(&parent.name) {
            "the shell before it"
        } else {
            "the script that became it"
        };
        let words = format!(
            "{} has {has} and {} has {value}: a ulimit in {shell}, prlimit since, or the program \
             itself",
            self.who(parent),
            self.who(child)
        );
        let setter =
            if is_shell(&parent.name) { Setter::Shell(parent.pid) } else { Setter::Between };
        blame(setter, words)
    }

    /// Where the ancestors that decided are gone, or gave what they had: cgroup and environment.
    fn remembered(&self, half: Half, value: u64) -> Blame {
        let own = &self.line[0];
        if let Some(container) = &self.container {
            return by_container(container, value);
        }
        for session in &self.sessions {
            if let Some(blame) = self.by_session(session, half, value) {
                return blame;
            }
            if half == Half::Soft && resets_soft(&session.service) && value == FD_SETSIZE {
                return by_su(&session.service, None);
            }
            if !session.is_limited() {
                return self.unlimited(session, half, value);
            }
        }
        if let Some(meant) = &self.unit {
            return self.by_unit(meant, half, value, own);
        }
        if let Some(session) = self.sessions.first() {
            return self.changed_in(session, half, value);
        }
        let top = self.line.last().filter(|top| self.line.len() > 1 && half.of(top.limit) == value);
        let kernel =
            value == half.of(KERNEL) && top.is_some_and(|top| top.limit == KERNEL && top.pid == 1);
        if kernel {
            return Blame {
                setter: Setter::Kernel,
                words: format!("nobody set it: {value} is what the kernel starts process 1 with"),
                evidence: Vec::new(),
            };
        }
        match (top, &self.launcher) {
            (Some(top), _) => Blame {
                setter: Setter::FirstProcess,
                words: format!("{} has {value}, and all below it inherit it", self.who(top)),
                evidence: Vec::new(),
            },
            (None, Launcher::Session { service, .. }) => Blame {
                setter: Setter::Unknown,
                words: format!(
                    "the session that {service} opened gave it {value}, or a ulimit in it"
                ),
                evidence: Vec::new(),
            },
            (None, _) => Blame {
                setter: Setter::Unknown,
                words: format!("nothing that can be seen says who gave it {value}"),
                evidence: Vec::new(),
            },
        }
    }

    /// A session in which something else than PAM has decided: what its program was given, or a
    /// command in it.
    fn changed_in(&self, session: &Session, half: Half, value: u64) -> Blame {
        let service = &session.service;
        let given = half.of(unit::BUILT_IN) == value;
        let (setter, words) = if given {
            (
                Setter::UnitDefault,
                format!(
                    "{service} was given {value} by systemd's default 1024:524288, and kept it"
                ),
            )
        } else {
            let words = format!(
                "the session that {service} opened has {value} by a ulimit in it, or by files of PAM that \
                 were changed since"
            );
            (Setter::Unknown, words)
        };
        Blame { setter, words, evidence: step_of(session) }
    }

    /// Whether what started the process can be told without its ancestors.
    fn is_remembered(&self) -> bool {
        let outside = self.container.as_ref().is_some_and(|container| !container.id.is_empty());
        outside || self.unit.is_some() || !self.sessions.is_empty()
    }

    /// A session in which `pam_limits` is not run.
    fn unlimited(&self, session: &Session, half: Half, value: u64) -> Blame {
        let service = &session.service;
        let (why, evidence) = match (&session.without_pam, &session.limits) {
            (Some(line), _) => (format!("does not ask PAM ({})", line.cite()), vec![line.clone()]),
            (None, Limits::Missing { step }) => (
                format!("cannot load the module ({})", step.evidence.cite()),
                vec![step.evidence.clone()],
            ),
            _ => ("runs no pam_limits".to_owned(), step_of(session)),
        };
        let whose = if half.of(unit::BUILT_IN) == value {
            "its own, from systemd's default 1024:524288"
        } else {
            "its own, or a ulimit's since"
        };
        Blame {
            setter: Setter::UnitDefault,
            words: format!("{service} {why}, so {value} is {whose}"),
            evidence,
        }
    }

    /// `supervisord (812, since 3 Nov)`.
    pub(crate) fn who(&self, process: &Relative) -> String {
        match process.started_s {
            Some(started) => {
                format!("{} ({}, since {})", process.name, process.pid, when(started, self.now_s))
            }
            None => format!("{} ({})", process.name, process.pid),
        }
    }

    pub(crate) fn said(&self, time_s: Option<i64>) -> String {
        match time_s {
            Some(time) => {
                let said = when(time, self.now_s);
                if said.contains("UTC") { format!("at {said}") } else { format!("on {said}") }
            }
            None => "at an unknown time".to_owned(),
        }
    }

    pub(crate) fn is_newer(&self, line: &Evidence, process: &Relative) -> bool {
        line.changed_s.zip(process.started_s).is_some_and(|(changed, started)| changed > started)
    }

    /// The line of a unit that was written after the process was started.
    pub(crate) fn newer(&self, meant: &Meant, child: &Relative) -> Option<Evidence> {
        let line = match &meant.by {
            MeantBy::Line(_, line) | MeantBy::Default(_, line) => line,
            MeantBy::BuiltIn | MeantBy::FirstProcess => return None,
        };
        self.is_newer(line, child).then(|| line.clone())
    }
}

fn itself(value: u64) -> Blame {
    Blame {
        setter: Setter::Itself,
        words: format!(
            "it raised its soft limit to the hard one, {value}, by itself: the hard limit counts"
        ),
        evidence: Vec::new(),
    }
}

fn by_su(program: &str, pid: Option<u32>) -> Blame {
    let program = program.trim_end_matches("-l");
    let named = pid.map_or_else(|| program.to_owned(), |pid| format!("{program} ({pid})"));
    Blame {
        setter: Setter::Su,
        words: format!("{named} sets the soft limit to 1024 whatever it was before"),
        evidence: Vec::new(),
    }
}

fn by_container(container: &Container, value: u64) -> Blame {
    let name = container.runtime.name();
    let (words, evidence) = match (&container.told, &container.defaults) {
        (Some((_, _, line)), _) => (
            format!("{name} was told to start the container with it: {}", line.cite()),
            vec![line.clone()],
        ),
        (None, Some(line)) => {
            (format!("{name}'s defaults gave it {value}: {}", line.cite()), vec![line.clone()])
        }
        (None, None) => (
            format!(
                "{name} gave the container {value}, which it has from {}",
                container.runtime.unit()
            ),
            Vec::new(),
        ),
    };
    let words = if value == INFINITE {
        format!(
            "{words}; 2^30-8 is what LimitNOFILE=infinity comes to where systemd raises fs.nr_open"
        )
    } else {
        words
    };
    Blame { setter: Setter::Container, words, evidence }
}

fn step_of(session: &Session) -> Vec<Evidence> {
    match (&session.limits, &session.stack) {
        (Limits::Run { step, .. } | Limits::Missing { step }, _) => vec![step.evidence.clone()],
        (Limits::NotRun, Some(stack)) => vec![stack.file.clone()],
        (Limits::NotRun, None) => Vec::new(),
    }
}

fn meant_evidence(meant: &Meant) -> Vec<Evidence> {
    match &meant.by {
        MeantBy::Line(_, line) | MeantBy::Default(_, line) => vec![line.clone()],
        MeantBy::BuiltIn | MeantBy::FirstProcess => {
            meant.unit.sources.iter().map(|source| source.whole("no LimitNOFILE")).collect()
        }
    }
}

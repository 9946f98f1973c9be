//! What else is to be said about a limit: dangers, edits that are not applied, lines that do not do
//! what they look like.

use super::blame::Setter;
use super::gather::{Facts, MeantBy, Session};
use super::launcher::Launcher;
use super::limits_conf::{Applied, By, Outcome, Trap, TrapKind};
use super::pam_stack::{Control, Limits};
use super::source::Evidence;
use super::supervisord::Minfds;
use super::unit::Scope;

/// Above this, closing descriptors one by one before each start takes seconds.
const MINFDS_SLOW: u64 = 1_048_576;

/// One thing to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    pub kind: Kind,
    /// A sentence without its full stop.
    pub words: String,
    pub evidence: Vec<Evidence>,
}

/// How it is meant; the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Whoever logs out does not get in again, or a service will not start again.
    Danger,
    /// Written, and not applied yet.
    Pending,
    /// Looks as if it counted, and does not.
    Trap,
    Note,
    /// Not for us to see.
    Unseen,
}

/// Everything that is to be said, the most urgent first; nothing twice.
pub(crate) fn remarks(facts: &Facts, setters: &[&Setter]) -> Vec<Remark> {
    let mut all = Vec::new();
    facts.dangers(&mut all);
    facts.pending(&mut all);
    facts.of_supervisord(setters, &mut all);
    facts.of_the_unit(&mut all);
    facts.traps(&mut all);
    facts.beside_the_way(&mut all);
    facts.headroom(&mut all);
    facts.unseen(&mut all);
    all.sort_by_key(|remark| remark.kind);
    let mut once: Vec<Remark> = Vec::new();
    for remark in all {
        if !once.iter().any(|said| said.words == remark.words) {
            once.push(remark);
        }
    }
    once
}

fn say(all: &mut Vec<Remark>, kind: Kind, words: String, evidence: Vec<Evidence>) {
    all.push(Remark { kind, words, evidence });
}

impl Facts {
    fn dangers(&self, all: &mut Vec<Remark>) {
        for door in self.doors.iter().chain(&self.sessions) {
            if let Limits::Missing { step } = &door.limits {
                let (kind, words) = if step.control == Control::Needed {
                    let words = format!(
                        "DO NOT LOG OUT: {} needs {} and nothing is there, so it opens no session and \
                         nobody gets in; keep a root shell open and write pam_limits.so without a path \
                         in {}",
                        door.service,
                        step.module,
                        step.evidence.place()
                    );
                    (Kind::Danger, words)
                } else {
                    let words = format!(
                        "{} names {} where nothing is; as it is optional, {} silently sets no limits",
                        step.evidence.place(),
                        step.module,
                        door.service
                    );
                    (Kind::Trap, words)
                };
                say(all, kind, words, vec![step.evidence.clone()]);
            }
        }
        self.refused_sessions(all);
    }

    /// Where a limit that the kernel refuses ends the session, one sentence for each user.
    fn refused_sessions(&self, all: &mut Vec<Remark>) {
        let mut refused: Vec<(&str, Vec<&str>, u64, Vec<Evidence>)> = Vec::new();
        for door in self.doors.iter().chain(&self.sessions) {
            let (Some(applied), Limits::Run { step, .. }) = (&door.applied, &door.limits) else {
                continue;
            };
            let Outcome::LockedOut(wanted) = applied.outcome else { continue };
            if step.control != Control::Needed {
                continue;
            }
            let user = door.account.name.as_str();
            match refused.iter_mut().find(|(name, ..)| *name == user) {
                Some((_, services, ..)) if services.contains(&door.service.as_str()) => {}
                Some((_, services, ..)) => services.push(&door.service),
                None => {
                    let lines =
                        applied.traps.iter().filter(|trap| trap.kind == TrapKind::AboveNrOpen);
                    let lines = lines.map(|trap| trap.evidence.clone()).collect();
                    refused.push((user, vec![&door.service], wanted.hard, lines));
                }
            }
        }
        for (user, services, wanted, lines) in refused {
            let words = format!(
                "DO NOT LOG OUT: {} asks for {wanted}, above fs.nr_open ({}), and this pam_limits then refuses \
                 the session: {user} does not get in by {}; keep a root shell open and lower the number",
                lines.first().map_or_else(|| "limits.conf".to_owned(), Evidence::place),
                self.nr_open,
                services.join(", ")
            );
            say(all, Kind::Danger, words, lines);
        }
    }

    fn pending(&self, all: &mut Vec<Remark>) {
        let own = &self.line[0];
        if let Some(meant) = &self.unit
            && meant.limit != own.limit
            && let Some(line) = self.newer(meant, own)
        {
            let words = format!(
                "{} was written {} and {} runs since before: systemctl show says what is meant, \
                 /proc/{}/limits what holds; it counts from the next restart",
                line.cite(),
                self.said(line.changed_s),
                meant.unit.name,
                own.pid
            );
            say(all, Kind::Pending, words, vec![line]);
        }
        for session in &self.sessions {
            let program = session.at.map_or(own, |at| &self.line[at - 1]);
            let Some(applied) = session.applied.as_ref() else { continue };
            let lines = [&applied.soft, &applied.hard].into_iter().filter_map(|by| match by {
                By::Line(line) if self.is_newer(line, program) => Some(line.clone()),
                _ => None,
            });
            for line in lines.filter(|_| applied.limit != own.limit) {
                let words = format!(
                    "{} was written {}, after this session was opened: it counts from the next one",
                    line.cite(),
                    self.said(line.changed_s)
                );
                say(all, Kind::Pending, words, vec![line]);
            }
        }
    }

    fn of_supervisord(&self, setters: &[&Setter], all: &mut Vec<Remark>) {
        let Some((at, supervisord)) = &self.supervisord else { return };
        let process = &self.line[*at];
        if let Minfds::Malformed(by) = &supervisord.minfds {
            let words = format!("{} is no number: supervisord will not start again", by.cite());
            say(all, Kind::Danger, words, vec![by.clone()]);
        }
        let Minfds::Written { value, by } = &supervisord.minfds else { return };
        let newer = self.is_newer(by, process);
        if newer && process.limit.soft != *value {
            let words = format!(
                "{} was written {}, after supervisord's start, and is not applied: reread, update, \
                 restart and reload leave it, only a full stop and start of supervisord counts",
                by.cite(),
                self.said(by.changed_s)
            );
            say(all, Kind::Pending, words, vec![by.clone()]);
        }
        let above = self.line.get(at + 1).map(|above| above.limit);
        if *value > self.nr_open {
            let words = format!(
                "{} is above fs.nr_open ({}): supervisord will not start again, and its message will \
                 name {value} as the hard limit, which it is not",
                by.cite(),
                self.nr_open
            );
            say(all, Kind::Danger, words, vec![by.clone()]);
        } else if *value > process.limit.hard && !process.raises {
            let words = format!(
                "{} is above the hard limit {} that supervisord inherits and may not raise: it will not \
                 start again, and its message will name {value} as the hard limit, which it is not",
                by.cite(),
                process.limit.hard
            );
            say(all, Kind::Danger, words, vec![by.clone()]);
        } else if !newer
            && *value < process.limit.soft
            && above.is_some_and(|above| above.soft > *value)
        {
            let words = format!(
                "{} changes nothing: minfds only raises, and supervisord started with {}",
                by.cite(),
                process.limit.soft
            );
            say(all, Kind::Note, words, vec![by.clone()]);
        }
        if *value > MINFDS_SLOW {
            let words = format!(
                "{} makes each start slow: supervisord closes that many descriptors one by one",
                by.cite()
            );
            say(all, Kind::Note, words, vec![by.clone()]);
        }
        let passed_on = setters.get(1).is_some_and(|hard| !matches!(hard, Setter::Supervisord(_)));
        if passed_on && process.limit.hard == self.line[0].limit.hard && *value > process.limit.hard
        {
            let words = format!(
                "the hard limit {} is not supervisord's: it only passes it on",
                process.limit.hard
            );
            say(all, Kind::Note, words, Vec::new());
        }
    }

    fn of_the_unit(&self, all: &mut Vec<Remark>) {
        let Some(meant) = &self.unit else { return };
        for line in &meant.unit.ignored {
            let words = format!(
                "systemd ignores {}: it wants LimitNOFILE=N, N:M or infinity in [Service]",
                line.cite()
            );
            say(all, Kind::Trap, words, vec![line.clone()]);
        }
        if let (Some((service, line)), Some(session)) = (&meant.unit.pam_name, &meant.session)
            && session.is_limited()
            && matches!(meant.by, MeantBy::Line(..))
        {
            let words = format!(
                "{} opens a session, and pam_limits ({service}) then wins over LimitNOFILE",
                line.cite()
            );
            say(all, Kind::Trap, words, vec![line.clone()]);
        }
    }

    fn traps(&self, all: &mut Vec<Remark>) {
        let opened = self.unit.iter().flat_map(|meant| {
            meant.session.iter().chain(meant.opens.iter().map(|(session, _)| session))
        });
        let sessions: Vec<&Session> = self.sessions.iter().chain(opened).collect();
        for session in &sessions {
            for trap in session.applied.iter().flat_map(|applied| &applied.traps) {
                let words = self.trap_words(trap, session);
                say(all, Kind::Trap, words, vec![trap.evidence.clone()]);
            }
        }
        for session in sessions.iter().filter(|session| !session.is_limited()) {
            self.only_elsewhere(session, all);
        }
    }

    /// A session without the module, where others have it: the edit went into the wrong file.
    fn only_elsewhere(&self, session: &Session, all: &mut Vec<Remark>) {
        if let Some(line) = &session.without_pam {
            let words = format!(
                "{}: sshd asks no PAM, so no line of limits.conf counts by ssh",
                line.cite()
            );
            say(all, Kind::Trap, words, vec![line.clone()]);
            return;
        }
        let Some(login) = self.doors.iter().find(|door| door.service == "login") else { return };
        let Limits::Run { step, .. } = &login.limits else { return };
        if session.service == "login" || matches!(session.limits, Limits::Missing { .. }) {
            return;
        }
        let words = format!(
            "{} counts for logins at the console only; {} has its own file, which does not run pam_limits",
            step.evidence.cite(),
            session.service
        );
        say(all, Kind::Trap, words, vec![step.evidence.clone()]);
    }

    /// What is written for logins and shells does not reach a process that came another way.
    fn beside_the_way(&self, all: &mut Vec<Remark>) {
        let starter = match &self.launcher {
            Launcher::Supervisord { .. } => "supervisord",
            Launcher::Unit { scope: Scope::System, .. } => "systemd",
            Launcher::Container(_) => "a container's runtime",
            Launcher::Keeper { kind, .. } => kind.name(),
            Launcher::Unit { scope: Scope::User, .. }
            | Launcher::Session { .. }
            | Launcher::Shell { .. }
            | Launcher::Unknown => return,
        };
        let opened = self
            .unit
            .as_ref()
            .is_some_and(|meant| meant.session.is_some() || meant.opens.is_some());
        if opened {
            return;
        }
        let applied = self.login.applied.clone().unwrap_or_else(|| self.as_if_run());
        for by in [&applied.soft, &applied.hard] {
            if let By::Line(line) = by {
                let words = format!(
                    "{} counts when {} logs in; what {starter} starts comes through no PAM",
                    line.cite(),
                    self.account.name
                );
                say(all, Kind::Note, words, vec![line.clone()]);
            }
        }
        for trap in applied.traps.iter().filter(|trap| trap.kind == TrapKind::NotForRoot) {
            say(all, Kind::Trap, self.trap_words(trap, &self.login), vec![trap.evidence.clone()]);
        }
        for line in &self.startup {
            let words = format!(
                "{} counts for shells and what they start, not for what {starter} starts",
                line.cite()
            );
            say(all, Kind::Note, words, vec![line.clone()]);
        }
    }

    fn headroom(&self, all: &mut Vec<Remark>) {
        let limit = self.line[0].limit;
        if limit.soft == limit.hard {
            let words = "soft and hard are equal: raising them in the running process takes \
                         CAP_SYS_RESOURCE";
            say(all, Kind::Note, words.to_owned(), Vec::new());
        }
    }

    fn as_if_run(&self) -> Applied {
        self.login.conf.apply(super::limits_conf::Opening {
            account: &self.account,
            variant: self.variant,
            inherited: self.line[0].limit,
            first_process: self.first_process,
            nr_open: self.nr_open,
            power: super::limits_conf::Power::Raises,
        })
    }

    fn trap_words(&self, trap: &Trap, session: &Session) -> String {
        let (line, user) = (trap.evidence.cite(), &session.account.name);
        match &trap.kind {
            TrapKind::NumberCut(value) => {
                format!(
                    "{line} means {value}: a number ends at the first character that is no digit"
                )
            }
            TrapKind::NoNumber => format!("{line} is ignored: the value is no number"),
            TrapKind::Fields => {
                format!("{line} is ignored: it wants four fields, who soft|hard|- nofile N")
            }
            TrapKind::EqualsSign => {
                format!("{line} is ignored: the value is '=', there must be none")
            }
            TrapKind::PercentGroup => {
                format!("{line} is ignored: % is for maxlogins only, a group is written @group")
            }
            TrapKind::ByteOrderMark => {
                format!(
                    "{line} is ignored: the file begins with a byte order mark, which belongs to the name"
                )
            }
            TrapKind::OtherCase => {
                format!("{line} is not for {user}: names are compared to the letter")
            }
            TrapKind::NotForRoot => {
                format!(
                    "{line} does not cover root: on Debian and Ubuntu root wants a line of its own, root - nofile N"
                )
            }
            TrapKind::NotConf => {
                format!("{line} is not read: the file's name does not end in .conf")
            }
            TrapKind::BadType => format!("{line} is ignored: the second field is soft, hard or -"),
            TrapKind::AboveNrOpen => match session.applied.as_ref().map(|it| &it.outcome) {
                Some(Outcome::LockedOut(_)) => {
                    format!("{line} is above fs.nr_open ({}): the session is refused", self.nr_open)
                }
                _ => format!(
                    "{line} is above fs.nr_open ({}): the kernel refuses, the old limit stays",
                    self.nr_open
                ),
            },
        }
    }

    fn unseen(&self, all: &mut Vec<Remark>) {
        for what in &self.unseen {
            say(all, Kind::Unseen, format!("root would also see {what}"), Vec::new());
        }
        if let Some((_, supervisord)) = &self.supervisord
            && supervisord.minfds == Minfds::Unseen
        {
            let path = supervisord.path().unwrap_or("its configuration, which was not found");
            say(all, Kind::Unseen, format!("minfds could not be read: {path}"), Vec::new());
        }
    }
}

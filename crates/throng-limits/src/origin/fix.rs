//! The one permanent fix for what started a process: as a line, as commands, and how to see that it holds.

use super::container::{Container, Runtime};
use super::gather::{Facts, Meant, MeantBy, Session};
use super::keeper::Service;
use super::launcher::Launcher;
use super::limits_conf::{By, LimitsConf, Opening, Outcome, Power};
use super::lineage::Relative;
use super::pam_stack::Limits;
use super::source::{Evidence, Source};
use super::supervisord::Minfds;
use super::unit::Scope;

/// The file of ours in `limits.d`, and the one for where something later would win.
const LIMITS_D: [&str; 2] =
    ["/etc/security/limits.d/90-nofile.conf", "/etc/security/limits.d/zz-nofile.conf"];
const SYSCTL: &str = "/etc/sysctl.d/90-nr-open.conf";

/// What to do, once and for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// What it comes to, in a line.
    pub summary: String,
    /// Commands for root's shell, in their order. Empty where there is none to be typed as it is.
    pub steps: Vec<String>,
    /// Shows that it holds.
    pub verify: String,
    /// What it costs, and what does not do instead.
    pub mind: Vec<String>,
}

/// The fix that lets the process have so many descriptors.
pub(crate) fn fix(facts: &Facts, wanted: u64) -> Fix {
    let mut fix = match &facts.launcher {
        Launcher::Supervisord { unit: Some(unit), .. } => facts.supervised_unit(unit, wanted),
        Launcher::Supervisord { .. } => facts.supervised(wanted),
        Launcher::Unit { .. } => match &facts.unit {
            Some(meant) => facts.unit_fix(meant, wanted),
            None => facts.by_hand(wanted),
        },
        Launcher::Container(runtime) => contained(*runtime, facts.container.as_ref(), wanted),
        Launcher::Keeper { .. } => match &facts.keeper {
            Some(service) => facts.kept(service, wanted),
            None => facts.by_hand(wanted),
        },
        Launcher::Session { .. } => match facts.sessions.first() {
            Some(session) => facts.session_fix(session, wanted),
            None => facts.by_hand(wanted),
        },
        Launcher::Shell { .. } | Launcher::Unknown => facts.by_hand(wanted),
    };
    // No limit can be above fs.nr_open, and one that is may keep everybody out.
    if wanted > facts.nr_open {
        let first = format!("printf 'fs.nr_open = {wanted}\\n' > {SYSCTL} && sysctl -p {SYSCTL}");
        fix.steps.insert(0, first);
        fix.summary = format!("fs.nr_open={wanted} first; then {}", fix.summary);
    }
    fix
}

/// What would take a live fix back.
pub(crate) fn undone_by(facts: &Facts) -> Vec<String> {
    let own = &facts.line[0].name;
    let words = match &facts.launcher {
        Launcher::Supervisord { pid, .. } => format!(
            "the next restart of {own} by supervisord, unless supervisord ({pid}) is raised too"
        ),
        Launcher::Unit { name, .. } => format!("every restart of {name}, by Restart= too"),
        Launcher::Container(_) => "the next start of the container".to_owned(),
        Launcher::Keeper { kind, .. } => {
            format!("the next restart of {own} by {}, unless that is raised too", kind.name())
        }
        Launcher::Session { service, .. } => {
            format!("the next start of {own}, from a session that {service} opens")
        }
        Launcher::Shell { .. } | Launcher::Unknown => format!("the next start of {own}"),
    };
    vec![words]
}

impl Facts {
    fn supervised_unit(&self, unit: &str, wanted: u64) -> Fix {
        let mut fix = match self.unit.as_ref().filter(|meant| meant.unit.name == unit) {
            Some(meant) => self.unit_fix(meant, wanted),
            None => drop_in(unit, &Scope::System, wanted, "90-nofile.conf"),
        };
        fix.verify = of_supervisord();
        if fix.steps.is_empty() {
            return fix;
        }
        fix.mind = vec![
            "restarts everything under supervisord; reread, update and reload do not apply it"
                .to_owned(),
            "minfds only raises, so it stays as it is".to_owned(),
        ];
        fix
    }

    fn supervised(&self, wanted: u64) -> Fix {
        let Some((at, supervisord)) = &self.supervisord else { return self.by_hand(wanted) };
        let process = &self.line[*at];
        if let Some(container) = self.container.as_ref().filter(|_| wanted > process.limit.hard) {
            let mut fix = contained(container.runtime, Some(container), wanted);
            fix.mind
                .push(format!("and minfds={wanted} in [supervisord], since supervisord starts it"));
            return fix;
        }
        let Some(file) = supervisord.path() else {
            return self.supervised_somehow(process, wanted);
        };
        let quoted = quote(file);
        let mut steps = Vec::new();
        match &supervisord.minfds {
            Minfds::Argument(_) => steps.push(format!("# start supervisord with -a {wanted}")),
            Minfds::Written { by, .. } | Minfds::Malformed(by) => {
                steps.push(replace_line(by, &format!("minfds={wanted}")));
            }
            Minfds::Unset | Minfds::Unseen => {
                steps.push(format!("sed -i '/^\\[supervisord\\]/a minfds={wanted}' {quoted}"));
            }
        }
        // Where supervisord is all that the container runs, the container ends with it.
        let whole = |container: &&Container| process.pid == 1 || !container.id.is_empty();
        match self.container.as_ref().filter(whole) {
            Some(container) => steps.push(format!(
                "{} restart {}",
                tool(container.runtime),
                short(Some(container))
            )),
            None => steps.extend(full_start(process, &quoted)),
        }
        let mut mind = vec![
            "a full stop and start of supervisord restarts everything under it; reread, update and \
             reload do not apply it"
                .to_owned(),
        ];
        let mut summary =
            format!("minfds={wanted} in [supervisord] of {file}; counts from its next full start");
        if wanted > process.limit.hard && !process.raises {
            summary = format!("a hard limit of {wanted} for what starts supervisord; {summary}");
            // Where this is refused nothing has been stopped yet.
            steps.insert(0, format!("ulimit -n {wanted}"));
            mind.push(format!(
                "supervisord inherits a hard limit of {} and may not raise it: raise that first, or it \
                 does not start",
                process.limit.hard
            ));
        }
        Fix { summary, steps, verify: of_supervisord(), mind }
    }

    /// supervisord with a file that could not be found.
    fn supervised_somehow(&self, process: &Relative, wanted: u64) -> Fix {
        Fix {
            summary: format!(
                "minfds={wanted} in [supervisord] of the file that supervisord ({}) was started with; counts \
                 from its next full start",
                process.pid
            ),
            steps: Vec::new(),
            verify: of_supervisord(),
            mind: vec![format!("its command line: {}", process.cmdline.join(" "))],
        }
    }

    /// What is said where the number is allowed already, and will be at the next start.
    fn nothing(&self, verify: String) -> Fix {
        Fix {
            summary: format!(
                "nothing: {} descriptors are allowed, and will be",
                self.line[0].limit.soft
            ),
            steps: Vec::new(),
            verify,
            mind: Vec::new(),
        }
    }

    /// A service of a user whose manager has less than is wanted.
    fn manager_fix(&self, wanted: u64) -> Option<Fix> {
        let session =
            self.sessions.iter().find(|it| it.service == "systemd-user" && it.is_limited())?;
        let above = self.line.get(session.at?)?;
        let unit = format!("user@{}.service", session.account.uid);
        (above.limit.hard < wanted).then(|| {
            let verify = of_unit(&unit, &Scope::System);
            self.session_then(session, wanted, &format!("systemctl restart {unit}"), &verify)
        })
    }

    fn unit_fix(&self, meant: &Meant, wanted: u64) -> Fix {
        let (name, scope) = (&meant.unit.name, &meant.unit.scope);
        let (own, means) = (self.line[0].limit, meant.limit);
        let raises = own.soft == own.hard && means.hard == own.hard;
        if own.soft >= wanted && (means.soft >= wanted || raises) {
            return self.nothing(of_unit(name, scope));
        }
        if let Some(fix) = self.manager_fix(wanted).filter(|_| *scope == Scope::User) {
            return fix;
        }
        if let Some(session) = meant.session.as_ref().filter(|session| session.is_limited()) {
            return self.session_then(
                session,
                wanted,
                &restart(name, scope),
                &of_unit(name, scope),
            );
        }
        if let Some((session, line)) = &meant.opens {
            let mut fix =
                self.session_then(session, wanted, &restart(name, scope), &of_unit(name, scope));
            fix.mind.push(format!(
                "{} could be User={} and a plain ExecStart= instead, with LimitNOFILE={wanted}",
                line.place(),
                session.account.name
            ));
            return fix;
        }
        if let Some(line) = &meant.script {
            return Fix {
                summary: format!("{wanted} instead of the number in {}", line.place()),
                steps: vec![replace_number(line, wanted), restart(name, scope)],
                verify: of_unit(name, scope),
                mind: Vec::new(),
            };
        }
        match &meant.by {
            // What the operator wrote is edited; what a package brought is overridden.
            MeantBy::Line(_, line) if line.file.starts_with("/etc/") => {
                let mut steps = vec![replace_line(line, &format!("LimitNOFILE={wanted}"))];
                if meant.limit.soft >= wanted && meant.limit.hard >= wanted {
                    steps.clear();
                }
                let summary = if steps.is_empty() {
                    format!("a restart of {name}: {} is enough and is not applied yet", line.cite())
                } else {
                    format!(
                        "LimitNOFILE={wanted} in {}; counts from the next restart",
                        line.place()
                    )
                };
                steps.push(restart(name, scope));
                Fix { summary, steps, verify: of_unit(name, scope), mind: Vec::new() }
            }
            MeantBy::Line(_, line)
                if base(&line.file) > "90-nofile.conf" && line.file.contains(".d/") =>
            {
                drop_in(name, scope, wanted, "zz-nofile.conf")
            }
            _ => drop_in(name, scope, wanted, "90-nofile.conf"),
        }
    }

    fn kept(&self, service: &Service, wanted: u64) -> Fix {
        let (prefix, again) = service.kind.words(wanted, &quote(service.handle()));
        let file = quote(&service.file);
        let hard = self.line.get(1).map_or(self.line[0].limit.hard, |keeper| keeper.limit.hard);
        let (edit, summary) = match (&service.sets, service.kind) {
            (Some(line), _) => (
                replace_number(line, wanted),
                format!("{wanted} instead of the number in {}", line.place()),
            ),
            (None, super::keeper::Kind::OpenRc) => {
                (format!("echo '{prefix}' >> {file}"), format!("{prefix} in {}", service.file))
            }
            // These commands set the soft limit, which goes up to the hard one.
            (None, _) if wanted <= hard => (
                format!("sed -i 's/^exec /exec {prefix} /' {file}"),
                format!("exec {prefix} … in {}", service.file),
            ),
            (None, _) => (
                format!("sed -i '1a ulimit -n {wanted}' {file}"),
                format!("ulimit -n {wanted} at the top of {}", service.file),
            ),
        };
        let own = &self.line[0];
        Fix {
            summary: format!("{summary}; counts from the next restart of {}", service.name),
            steps: vec![edit, again],
            verify: of_command(own),
            mind: Vec::new(),
        }
    }

    fn session_fix(&self, session: &Session, wanted: u64) -> Fix {
        let user = &session.account.name;
        let (verify, then) = match session.service.as_str() {
            "sshd" => (format!("ssh {user}@localhost 'ulimit -Sn; ulimit -Hn'"), "log in again"),
            "cron" | "crond" => (
                format!("grep 'open files' /proc/$(pgrep -n -u {user})/limits"),
                "wait for its next run",
            ),
            "sudo" | "sudo-i" => {
                (format!("sudo -u {user} sh -c 'ulimit -Sn; ulimit -Hn'"), "start it again")
            }
            "systemd-user" => (
                format!("grep 'open files' /proc/$(pgrep -u {user} -x systemd)/limits"),
                "log out of every session and in again",
            ),
            "runuser" | "runuser-l" => {
                (format!("runuser {user} -c 'ulimit -Sn; ulimit -Hn'"), "start it again")
            }
            _ => (format!("su - {user} -c 'ulimit -Sn; ulimit -Hn'"), "log in again"),
        };
        let again = format!("# {then} and start {} from there", self.line[0].name);
        self.session_then(session, wanted, &again, &verify)
    }

    /// The line for a user, in a file where it wins; then what makes it count.
    fn session_then(&self, session: &Session, wanted: u64, then: &str, verify: &str) -> Fix {
        let user = &session.account.name;
        let line = format!("{user} - nofile {wanted}");
        let mut steps = Vec::new();
        let mut mind = vec!["keep a root shell open until a second login has worked".to_owned()];
        let mut summary = match self.place(session, &line, wanted) {
            Place::New(file) => {
                steps.push(format!("echo '{line}' > {}", quote(&file)));
                format!("{line} in {file}")
            }
            Place::Append(file) => {
                steps.push(format!("echo '{line}' >> {}", quote(&file)));
                format!("{line} in {file}")
            }
            Place::Instead(found) => {
                steps.push(replace_line(&found, &line));
                format!("{line} instead of {}", found.place())
            }
        };
        if let Some(uses) = &session.without_pam {
            steps.push(replace_line(uses, "UsePAM yes"));
            steps.push("systemctl reload ssh || systemctl reload sshd".to_owned());
            summary = format!("UsePAM yes at {}; {summary}", uses.place());
        }
        match &session.limits {
            Limits::Missing { step } => {
                let line = step.evidence.text.replace(&step.module, "pam_limits.so");
                steps.push(replace_line(&step.evidence, &line));
                summary =
                    format!("pam_limits.so without a path at {}; {summary}", step.evidence.place());
            }
            Limits::NotRun if session.without_pam.is_none() => {
                let file = format!("/etc/pam.d/{}", session.service);
                steps.push(format!("echo 'session required pam_limits.so' >> {file}"));
                summary = format!("session required pam_limits.so in {file}; {summary}");
            }
            Limits::NotRun | Limits::Run { .. } => {}
        }
        if let Some(applied) = &session.applied
            && let Outcome::Exempt(line) = &applied.outcome
        {
            steps.insert(0, format!("sed -i '{}d' {}", line.line.unwrap_or(1), quote(&line.file)));
            summary = format!("{} removed; {summary}", line.place());
        }
        let may_raise = session.at.and_then(|at| self.line.get(at)).is_none_or(|it| it.may_raise);
        if !may_raise {
            mind.push(
                "nothing here may raise a hard limit: CAP_SYS_RESOURCE is missing from the start"
                    .to_owned(),
            );
        }
        steps.push(then.to_owned());
        summary.push_str("; counts from the next session");
        Fix { summary, steps, verify: verify.to_owned(), mind }
    }

    /// Where the line would win, tried with the parser that PAM is.
    fn place(&self, session: &Session, line: &str, wanted: u64) -> Place {
        if let Limits::Run { conf: Some(conf), .. } = &session.limits {
            return Place::Append(conf.clone());
        }
        let exempt = session.applied.as_ref().and_then(|applied| match &applied.outcome {
            Outcome::Exempt(line) => Some(line.clone()),
            _ => None,
        });
        for path in LIMITS_D {
            let mut conf = session.conf.clone();
            if let Some(exempt) = &exempt {
                forget(&mut conf, exempt);
            }
            conf.files.retain(|source| source.path != path);
            let new = Source { path: path.to_owned(), text: line.to_owned(), changed_s: None };
            let after = conf
                .files
                .iter()
                .position(|source| source.path.as_str() > path && source.path.contains(".d/"));
            conf.files.insert(after.unwrap_or(conf.files.len()), new);
            let applied = conf.apply(Opening {
                account: &session.account,
                variant: self.variant,
                inherited: self.line[0].limit,
                first_process: self.first_process,
                nr_open: self.nr_open.max(wanted),
                power: Power::Raises,
            });
            if applied.limit.soft == wanted && applied.limit.hard == wanted {
                return Place::New(path.to_owned());
            }
        }
        let winner =
            session.applied.as_ref().and_then(|applied| match (&applied.soft, &applied.hard) {
                (By::Line(line), _) | (_, By::Line(line)) => Some(line.clone()),
                _ => None,
            });
        winner.map_or_else(|| Place::New(LIMITS_D[0].to_owned()), Place::Instead)
    }

    fn by_hand(&self, wanted: u64) -> Fix {
        let own = &self.line[0];
        if let Some(container) = self.container.as_ref().filter(|_| wanted > own.limit.hard) {
            return contained(container.runtime, Some(container), wanted);
        }
        let command: Vec<_> = own.cmdline.iter().map(|word| quote(word)).collect();
        let lifts = wanted > own.limit.hard;
        let mind = if lifts {
            vec![format!(
                "above the hard limit {} only as root, who has CAP_SYS_RESOURCE",
                own.limit.hard
            )]
        } else {
            Vec::new()
        };
        Fix {
            summary: format!("ulimit -n {wanted} in the script that starts it, before its line"),
            steps: vec![format!("ulimit -n {wanted} && exec {}", command.join(" "))],
            verify: of_command(own),
            mind,
        }
    }
}

/// Where a line for limits.conf goes.
enum Place {
    New(String),
    Append(String),
    /// Nothing that is added would win over this line.
    Instead(Evidence),
}

/// Takes a line out, as it will be when the fix is applied.
fn forget(conf: &mut LimitsConf, line: &Evidence) {
    for source in conf.files.iter_mut().filter(|source| source.path == line.file) {
        let kept = source
            .text
            .lines()
            .enumerate()
            .map(|(number, text)| if Some(number + 1) == line.line { "" } else { text });
        source.text = kept.collect::<Vec<_>>().join("\n");
    }
}

fn drop_in(name: &str, scope: &Scope, wanted: u64, file: &str) -> Fix {
    let directory = match scope {
        Scope::System => format!("/etc/systemd/system/{name}.d"),
        Scope::User => format!("/etc/systemd/user/{name}.d"),
    };
    let quoted = quote(&directory);
    Fix {
        summary: format!(
            "LimitNOFILE={wanted} in [Service] of {directory}/{file}; counts from the next restart"
        ),
        steps: vec![
            format!("mkdir -p {quoted}"),
            format!("printf '[Service]\\nLimitNOFILE={wanted}\\n' > {quoted}/{file}"),
            restart(name, scope),
        ],
        verify: of_unit(name, scope),
        mind: Vec::new(),
    }
}

fn contained(runtime: Runtime, container: Option<&Container>, wanted: u64) -> Fix {
    let id = short(container);
    let limit = format!("{wanted}:{wanted}");
    if runtime == Runtime::Kubernetes {
        return Fix {
            summary: format!(
                "Kubernetes has no field for it: LimitNOFILE={limit} of the node's containerd.service, or \
                 ulimit -n {wanted} first in the container's command, up to its hard limit"
            ),
            steps: vec![
                "mkdir -p /etc/systemd/system/containerd.service.d".to_owned(),
                format!(
                    "printf '[Service]\\nLimitNOFILE={wanted}\\n' > \
                     /etc/systemd/system/containerd.service.d/90-nofile.conf"
                ),
                "systemctl daemon-reload && systemctl restart containerd".to_owned(),
                "# delete the pod, so that its controller starts another".to_owned(),
            ],
            verify: "kubectl exec POD -- sh -c 'ulimit -Sn; ulimit -Hn'".to_owned(),
            mind: vec![
                "on the node, not in the pod; a runtime's base spec may set it too".to_owned(),
            ],
        };
    }
    let tool = tool(runtime);
    let mut mind = vec![
        format!("compose: ulimits: {{ nofile: {{ soft: {wanted}, hard: {wanted} }} }}"),
        format!(
            "for every container: \"default-ulimits\": {{\"nofile\": {{\"Name\": \"nofile\", \"Soft\": {wanted}, \
             \"Hard\": {wanted}}}}} in /etc/docker/daemon.json, and restart docker"
        ),
    ];
    if runtime == Runtime::Podman {
        mind[1] = format!(
            "for every container: default_ulimits = [\"nofile={limit}\"] in containers.conf"
        );
    }
    Fix {
        summary: format!(
            "--ulimit nofile={limit} when the container is started; counts from its next start"
        ),
        steps: vec![format!("{tool} run --ulimit nofile={limit} …")],
        verify: format!("{tool} exec {id} sh -c 'ulimit -Sn; ulimit -Hn'"),
        mind,
    }
}

fn tool(runtime: Runtime) -> &'static str {
    if runtime == Runtime::Podman { "podman" } else { "docker" }
}

/// The number of a container as people type it.
fn short(container: Option<&Container>) -> &str {
    let id = container.map_or("", |container| container.id.get(..12).unwrap_or(&container.id));
    if id.is_empty() { "CONTAINER" } else { id }
}

/// Ends a supervisord and starts it as it was, as a daemon.
fn full_start(process: &Relative, file: &str) -> [String; 2] {
    let stays = |word: &&String| !matches!(word.as_str(), "-n" | "--nodaemon");
    let command: Vec<_> = process.cmdline.iter().filter(stays).map(|word| quote(word)).collect();
    let pid = process.pid;
    [
        format!("supervisorctl -c {file} shutdown"),
        format!("while [ -e /proc/{pid}/exe ]; do sleep 1; done; {}", command.join(" ")),
    ]
}

/// The limits of a process that is found by its command line.
fn of_command(process: &Relative) -> String {
    let mut pattern = String::new();
    for c in process.cmdline.join(" ").chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    let find = if pattern.is_empty() { "-x".to_owned() } else { "-f".to_owned() };
    let what = if pattern.is_empty() { &process.name } else { &pattern };
    format!("grep 'open files' /proc/$(pgrep -o {find} {})/limits", quote(what))
}

fn restart(name: &str, scope: &Scope) -> String {
    let user = if *scope == Scope::User { " --user" } else { "" };
    let name = quote(name);
    format!("systemctl{user} daemon-reload && systemctl{user} restart {name}")
}

fn of_unit(name: &str, scope: &Scope) -> String {
    let user = if *scope == Scope::User { " --user" } else { "" };
    format!(
        "grep 'open files' /proc/$(systemctl{user} show --value -p MainPID {})/limits",
        quote(name)
    )
}

fn of_supervisord() -> String {
    "grep 'open files' /proc/$(pgrep -o -x supervisord)/limits".to_owned()
}

/// Writes another line in the place of one.
fn replace_line(line: &Evidence, text: &str) -> String {
    let number = line.line.unwrap_or(1);
    let text = text.replace('\\', "\\\\").replace('\'', "'\\''");
    format!("sed -i '{number}c {text}' {}", quote(&line.file))
}

/// Writes another number in the place of the one that a command in a line has.
fn replace_number(line: &Evidence, wanted: u64) -> String {
    let number = line.line.unwrap_or(1);
    let file = quote(&line.file);
    format!("sed -i -E '{number}s/(-[SH]*[no] *)[0-9]+/\\1{wanted}/' {file}")
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A word as a shell takes it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@:=+,%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(quote("/etc/a.conf"), "/etc/a.conf");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}

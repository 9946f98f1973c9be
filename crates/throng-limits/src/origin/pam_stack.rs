//! A stack of PAM: what is run when a program opens a session, and whether `pam_limits` is.

use super::source::{Disk, Evidence, Seen, shown};

/// Files that include each other: more is a circle.
const DEPTH_MAX: usize = 16;
/// Lines of one stack, includes counted in: none is nearly as long.
const LINES_MAX: usize = 2000;
/// Where the configuration is, first to last.
const DIRECTORIES: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d"];
/// Where modules without a path are, by distribution and machine.
const MODULES: [&str; 8] = [
    "/lib/x86_64-linux-gnu/security",
    "/usr/lib/x86_64-linux-gnu/security",
    "/lib/aarch64-linux-gnu/security",
    "/usr/lib/aarch64-linux-gnu/security",
    "/usr/lib64/security",
    "/lib64/security",
    "/usr/lib/security",
    "/lib/security",
];
const MODULE: &str = "pam_limits.so";

/// The stack of sessions of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stack {
    /// The name under which the program asks, such as `sshd`.
    pub service: String,
    /// Its file; `/etc/pam.d/other` where it has none.
    pub file: Evidence,
    pub steps: Vec<Step>,
}

/// A module that is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub control: Control,
    pub module: String,
    pub arguments: Vec<String>,
    pub evidence: Evidence,
}

/// What its failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// No session.
    Needed,
    /// Nothing.
    Optional,
}

/// What a stack does about limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Limits {
    /// The module is run; with the file named by its argument `conf=`.
    Run { step: Step, conf: Option<String> },
    /// The module is named by a path where nothing is: limits are not set, and where it is needed
    /// no session is opened.
    Missing { step: Step },
    /// No line has it.
    NotRun,
}

/// Reads the stack of a program; nothing where there is no file to read.
pub(crate) fn read(disk: Disk<'_>, service: &str) -> Option<Stack> {
    let source = file(disk, service).or_else(|| file(disk, "other"))?;
    let mut stack =
        Stack { service: service.to_owned(), file: source.whole("session"), steps: Vec::new() };
    let mut left = LINES_MAX;
    gather(disk, &source, &mut stack.steps, (0, &mut left));
    Some(stack)
}

impl Stack {
    /// What it does about limits.
    pub(crate) fn limits(&self, disk: Disk<'_>) -> Limits {
        let is_limits =
            |step: &&Step| step.module.rsplit('/').next().is_some_and(|name| name == MODULE);
        let Some(step) = self.steps.iter().find(is_limits) else { return Limits::NotRun };
        if is_missing(disk, &step.module) {
            // Another line may have it right.
            let found =
                self.steps.iter().filter(is_limits).find(|step| {
                    step.control == Control::Optional && !is_missing(disk, &step.module)
                });
            if found.is_none() || step.control == Control::Needed {
                return Limits::Missing { step: step.clone() };
            }
        }
        let conf = step.arguments.iter().find_map(|argument| argument.strip_prefix("conf="));
        Limits::Run { step: step.clone(), conf: conf.map(str::to_owned) }
    }
}

/// A line of a stack's file.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// Debian's `@include FILE`, or the controls `include` and `substack`.
    Include(&'a str),
    Step {
        control: Control,
        module: &'a str,
        arguments: Vec<&'a str>,
    },
}

fn file(disk: Disk<'_>, service: &str) -> Option<super::source::Source> {
    DIRECTORIES.iter().find_map(|directory| disk.read(&format!("{directory}/{service}")))
}

fn gather(
    disk: Disk<'_>,
    source: &super::source::Source,
    steps: &mut Vec<Step>,
    (depth, left): (usize, &mut usize),
) {
    for (number, line) in source.text.lines().enumerate() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        match parse(line) {
            Some(Line::Include(name)) if depth < DEPTH_MAX => {
                let included =
                    if name.starts_with('/') { disk.read(name) } else { file(disk, name) };
                if let Some(included) = included {
                    gather(disk, &included, steps, (depth + 1, left));
                }
            }
            Some(Line::Step { control, module, arguments }) => steps.push(Step {
                control,
                module: shown(module),
                arguments: arguments.into_iter().map(shown).collect(),
                evidence: source.evidence(number + 1),
            }),
            _ => {}
        }
    }
}

/// Reads a line, if it is about sessions. pam.conf(5): type control module arguments.
fn parse(line: &str) -> Option<Line<'_>> {
    let line = line.split('#').next().unwrap_or_default().trim();
    if let Some(name) = line.strip_prefix("@include") {
        return Some(Line::Include(name.trim()));
    }
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    // A dash before the type: the module may be missing.
    let may_be_missing = kind.starts_with('-');
    if !kind.trim_start_matches('-').eq_ignore_ascii_case("session") {
        return None;
    }
    let rest = rest.trim_start();
    let (control, rest) = if let Some(bracket) = rest.strip_prefix('[') {
        let (control, rest) = bracket.split_once(']')?;
        (control, rest.trim_start())
    } else {
        let (control, rest) = rest.split_once(char::is_whitespace)?;
        (control, rest.trim_start())
    };
    let mut words = rest.split_whitespace();
    let module = words.next()?;
    if matches!(control.to_ascii_lowercase().as_str(), "include" | "substack") {
        return Some(Line::Include(module));
    }
    let control = if may_be_missing { Control::Optional } else { weight(control) };
    Some(Line::Step { control, module, arguments: words.collect() })
}

fn weight(control: &str) -> Control {
    let control = control.to_ascii_lowercase();
    match control.as_str() {
        "required" | "requisite" => return Control::Needed,
        "optional" | "sufficient" => return Control::Optional,
        _ => {}
    }
    // [value=action …]: what a module that cannot be loaded comes to.
    let action = |key: &str| {
        let find = |pair: &str| {
            pair.split_once('=').filter(|(value, _)| *value == key).map(|it| it.1.to_owned())
        };
        control.split_whitespace().find_map(find)
    };
    let unknown = action("module_unknown").or_else(|| action("default"));
    match unknown.as_deref() {
        Some("bad" | "die") => Control::Needed,
        _ => Control::Optional,
    }
}

/// Whether nothing is where the module would be loaded from. Where that cannot be told, it is not.
fn is_missing(disk: Disk<'_>, module: &str) -> bool {
    if module.starts_with('/') {
        return disk.has(module) == Some(false);
    }
    let mut there = MODULES.iter().filter(|directory| disk.has(directory) == Some(true)).peekable();
    there.peek().is_some()
        && there.all(|directory| disk.has(&format!("{directory}/{module}")) == Some(false))
}

/// Whether sshd asks PAM at all, with the line that says no.
pub(crate) fn sshd_without_pam(disk: Disk<'_>) -> Option<Evidence> {
    let mut files = Vec::new();
    // Debian includes sshd_config.d at the top; of several lines the first counts.
    for name in disk.list("/etc/ssh/sshd_config.d") {
        if name.ends_with(".conf") {
            files.extend(disk.read(&format!("/etc/ssh/sshd_config.d/{name}")));
        }
    }
    if let Seen::There(main) = disk.look("/etc/ssh/sshd_config") {
        files.push(main);
    }
    for source in &files {
        for (number, line) in source.text.lines().enumerate() {
            let mut words =
                line.split(|character: char| character.is_whitespace() || character == '=');
            let key = words.find(|word| !word.is_empty());
            if key.is_some_and(|key| key.eq_ignore_ascii_case("UsePAM")) {
                let value = words.find(|word| !word.is_empty()).unwrap_or_default();
                return value.eq_ignore_ascii_case("no").then(|| source.evidence(number + 1));
            }
        }
    }
    // OpenSSH's own default is no; every distribution's file says yes.
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(control: Control, module: &'static str) -> Line<'static> {
        Line::Step { control, module, arguments: Vec::new() }
    }

    #[test]
    fn lines_about_sessions_are_read_and_no_others() {
        assert_eq!(
            parse("session required pam_limits.so"),
            Some(step(Control::Needed, "pam_limits.so"))
        );
        assert_eq!(
            parse("Session\toptional   pam_limits.so # x"),
            Some(step(Control::Optional, "pam_limits.so"))
        );
        assert_eq!(
            parse("-session required pam_limits.so"),
            Some(step(Control::Optional, "pam_limits.so"))
        );
        assert_eq!(parse("auth required pam_limits.so"), None);
        assert_eq!(parse("# session required pam_limits.so"), None);
        assert_eq!(parse("@include common-session"), Some(Line::Include("common-session")));
        assert_eq!(parse("session include system-auth"), Some(Line::Include("system-auth")));
        assert_eq!(parse("session substack password-auth"), Some(Line::Include("password-auth")));
        assert_eq!(parse("session required"), None);
    }

    #[test]
    fn brackets_are_weighed_by_what_becomes_of_a_module_that_is_missing() {
        assert_eq!(weight("success=ok default=bad"), Control::Needed);
        assert_eq!(weight("success=ok module_unknown=ignore default=bad"), Control::Optional);
        assert_eq!(weight("default=1"), Control::Optional);
        assert_eq!(weight("requisite"), Control::Needed);
        let Some(Line::Step { arguments, .. }) =
            parse("session [success=ok] pam_limits.so conf=/x")
        else {
            panic!("a step");
        };
        assert_eq!(arguments, ["conf=/x"]);
    }
}

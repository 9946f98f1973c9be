use super::*;

const HARD: u64 = 1024;

fn ancestor(pid: u32, name: &str, soft: u64, hard: u64) -> Ancestor {
    Ancestor { pid, name: name.to_owned(), limit: OpenFiles { soft, hard } }
}

fn supervisord(minfds: u64, may_raise: bool, within: Launcher) -> Launcher {
    let config = Some("/etc/supervisor/supervisord.conf".into());
    let it = Supervisord { pid: 71, minfds, config, may_raise };
    Launcher::Supervisord { it, within: Box::new(within) }
}

fn origin(hard: u64, launcher: Launcher, line: Vec<Ancestor>) -> Origin {
    Origin::of(OpenFiles { soft: hard, hard }, Bound::OpenFiles, launcher, line)
}

/// `ulimit -n 1024` in a shell, and supervisord started by it.
fn behind_a_shell() -> Vec<Ancestor> {
    vec![
        ancestor(71, "supervisord", HARD, HARD),
        ancestor(70, "bash", HARD, HARD),
        ancestor(9, "sshd", 1024, 20_000),
        ancestor(1, "systemd", 1 << 20, 1 << 20),
    ]
}

#[test]
fn minfds_made_the_soft_limit_and_the_hard_one_was_there_before() {
    let line = vec![
        ancestor(71, "supervisord", 1024, 20_000),
        ancestor(70, "bash", 512, 20_000),
        ancestor(9, "sshd", 1024, 20_000),
        ancestor(1, "init", 32_768, 32_768),
    ];
    let origin = origin(20_000, supervisord(1024, false, Launcher::Shell), line);
    assert_eq!(
        origin.story(OpenFiles { soft: 1024, hard: 20_000 }),
        "soft was 1,024, which supervisord's minfds had made of 512; raised to the hard limit; sshd, \
         pid 9, had it first; supervisord, pid 71, passed it on and did not set it"
    );
    assert_eq!(origin.more(), None);
}

#[test]
fn what_cannot_be_seen_of_minfds_is_not_claimed() {
    let said = |minfds, soft, before| {
        let line =
            vec![ancestor(71, "supervisord", soft, 20_000), ancestor(1, "init", before, 20_000)];
        let origin = origin(20_000, supervisord(minfds, false, Launcher::Shell), line);
        origin.story(OpenFiles { soft, hard: 20_000 })
    };
    // The shell that lowered it became supervisord.
    let least = said(1024, 1024, 20_000);
    assert!(least.contains("1,024, the least that supervisord's minfds leaves; "), "{least}");
    let passed = said(1024, 4096, 20_000);
    assert!(passed.contains("soft was 4,096, as supervisord passes it on; "), "{passed}");
    assert!(passed.contains("; init, pid 1, gives it to all; supervisord"), "{passed}");
}

#[test]
fn a_hard_limit_of_a_shell_above_supervisord_is_the_shells() {
    let origin = origin(HARD, supervisord(1024, false, Launcher::Shell), behind_a_shell());
    let limit = OpenFiles { soft: HARD, hard: HARD };
    assert_eq!(
        origin.story(limit),
        "bash, pid 70, had it first; supervisord, pid 71, passed it on and did not set it"
    );
    let more = origin.more().unwrap();
    let fix = "for more, start bash, pid 70, again with: ulimit -n 20000, then stop supervisord";
    assert!(more.starts_with(fix), "{more}");
    assert!(more.contains("minfds cannot do it"), "{more}");
    // More than the one above has takes root.
    let fix = origin.fix(50_000);
    assert!(fix.contains("(as root: sshd, pid 9, above it, has 20,000)"), "{fix}");
}

#[test]
fn a_supervisord_that_may_raise_is_told_to() {
    let origin = origin(HARD, supervisord(1024, true, Launcher::Shell), behind_a_shell());
    let fix = origin.fix(4096);
    assert!(
        fix.starts_with("set minfds=4096 under [supervisord] in /etc/supervisor/supervisord.conf"),
        "{fix}"
    );
    let line = vec![ancestor(71, "supervisord", 600, 600), ancestor(1, "init", 512, 512)];
    let origin = self::origin(600, supervisord(600, true, Launcher::Shell), line);
    assert_eq!(origin.to_string(), "set by supervisord, pid 71: its minfds");
}

#[test]
fn a_shell_that_became_supervisord_set_it_before() {
    let mut line = behind_a_shell();
    line.remove(1);
    let origin = origin(HARD, supervisord(1024, false, Launcher::Shell), line);
    assert_eq!(
        origin.to_string(),
        "set before supervisord, pid 71, began, which passed it on and did not set it"
    );
    let fix = origin.fix(4096);
    assert!(fix.starts_with("run: ulimit -n 4096 before supervisord starts"), "{fix}");
}

#[test]
fn a_unit_of_supervisord_has_the_limit_in_its_unit() {
    let line =
        vec![ancestor(71, "supervisord", 1024, 524_288), ancestor(1, "systemd", 1 << 20, 1 << 20)];
    let unit = Launcher::Systemd("supervisor.service".to_owned());
    let fix = origin(524_288, supervisord(1024, false, unit), line).fix(600_000);
    assert!(fix.starts_with("run: systemctl edit supervisor.service, add [Service]"), "{fix}");
}

#[test]
fn a_program_whose_command_lowers_it_is_fixed_in_its_command() {
    let origin = origin(256, supervisord(1024, true, Launcher::Shell), behind_a_shell());
    assert_eq!(origin.to_string(), "set where this process was started");
    assert!(origin.fix(4096).contains("[program:...]"), "{}", origin.fix(4096));
}

#[test]
fn the_fix_is_the_one_for_how_it_was_started() {
    let init = || vec![ancestor(1, "init", HARD, HARD)];
    let fix = |launcher, line| origin(HARD, launcher, line).fix(4096);
    assert!(fix(Launcher::Container, init()).contains("--ulimit nofile=4096:4096"));
    // The first process of a container has no ancestors.
    assert!(fix(Launcher::Container, Vec::new()).contains("--ulimit nofile=4096:4096"));
    // Within a container, somebody else lowered it.
    let line = vec![ancestor(8, "sh", HARD, HARD), ancestor(1, "init", 20_000, 20_000)];
    let within = fix(Launcher::Container, line);
    assert_eq!(within, "start sh, pid 8, again with: ulimit -n 4096");
    let line = vec![ancestor(1, "systemd", 1 << 20, 1 << 20)];
    let push = Launcher::Systemd("push.service".to_owned());
    let unit = fix(push.clone(), line.clone());
    assert_eq!(origin(HARD, push, line).to_string(), "set by systemd for push.service");
    let container = origin(HARD, Launcher::Container, Vec::new()).to_string();
    assert_eq!(container, "set where its container was started");
    assert!(unit.contains("push.service") && unit.contains("LimitNOFILE=4096"), "{unit}");
    assert!(fix(Launcher::Shell, init()).contains("run: ulimit -n 4096 before it starts"));
    // No launcher can lift what the kernel forbids.
    let limit = OpenFiles { soft: HARD, hard: HARD };
    let origin = Origin::of(limit, Bound::NrOpen, Launcher::Container, Vec::new());
    assert!(origin.fix(4096).contains("sysctl -w fs.nr_open=4096"));
}

#[test]
fn a_limit_that_somebody_chose_is_not_talked_about() {
    let more = |hard| origin(hard, Launcher::Shell, Vec::new()).more();
    assert!(more(4096).unwrap().contains("ulimit -n 65536"));
    assert_eq!(more(4097), None);
}

#[test]
fn the_highest_with_the_same_limit_is_named() {
    let line = [
        ancestor(90, "sh", 1, 1024),
        ancestor(71, "supervisord", 1, 1024),
        ancestor(1, "init", 1, 524_288),
    ];
    assert_eq!(first_with(1024, &line).map(|each| each.pid), Some(71));
    assert_eq!(first_with(4096, &line), None);
    // Equal by chance, above one that differs: not inherited.
    let line =
        [ancestor(90, "sh", 1, 1024), ancestor(71, "x", 1, 512), ancestor(1, "init", 1, 1024)];
    assert_eq!(first_with(1024, &line).map(|each| each.pid), Some(90));
}

use super::*;

#[test]
fn the_lowest_bound_is_the_ceiling() {
    let ceiling = |descriptors, bound| Ceiling { descriptors, bound };
    assert_eq!(Ceiling::lowest(1024, 1 << 20, u64::MAX), ceiling(1024, Bound::OpenFiles));
    assert_eq!(Ceiling::lowest(200_000, 65_536, u64::MAX), ceiling(65_536, Bound::NrOpen));
    assert_eq!(Ceiling::lowest(1024, 1 << 20, 300), ceiling(300, Bound::FileMax));
    assert_eq!(Ceiling::lowest(1024, 1024, 1024), ceiling(1024, Bound::OpenFiles));
}

#[test]
fn the_fix_is_the_one_for_how_it_was_started() {
    let fix = |launcher| Origin { setter: Setter::AtStart, launcher }.fix(4096);
    assert!(fix(Launcher::Supervisord).contains("minfds=4096"));
    assert!(fix(Launcher::Container).contains("--ulimit nofile=4096:4096"));
    let unit = fix(Launcher::Systemd("push.service".to_owned()));
    assert!(unit.contains("push.service") && unit.contains("LimitNOFILE=4096"), "{unit}");
    assert!(fix(Launcher::Shell).contains("ulimit -n 4096"));
    // No launcher can lift what the kernel forbids.
    let origin = Origin { setter: Setter::Kernel("fs.nr_open"), launcher: Launcher::Supervisord };
    assert!(origin.fix(4096).contains("sysctl -w fs.nr_open=4096"));
}

#[test]
fn says_who_set_it() {
    let setter = Setter::Ancestor { pid: 71, name: "supervisord".to_owned() };
    assert_eq!(setter.to_string(), "set by supervisord, pid 71");
}

#[test]
fn this_process_has_a_ceiling_and_an_origin() {
    let limit = OpenFiles::own();
    let proc = Path::new("/proc");
    let ceiling = Ceiling::read(proc, limit, 10);
    assert!(ceiling.descriptors > 10 && ceiling.descriptors <= limit.soft);
    let origin = Origin::read(proc, std::process::id(), limit, ceiling.bound);
    assert!(!origin.setter.to_string().is_empty() && !origin.fix(1).is_empty());
}

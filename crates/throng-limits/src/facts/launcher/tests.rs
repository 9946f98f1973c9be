use super::*;

fn ancestor(pid: u32, name: &str, hard: u64) -> Ancestor {
    Ancestor { pid, name: name.to_owned(), limit: OpenFiles { soft: 1024, hard } }
}

#[test]
fn the_highest_with_the_same_limit_is_named() {
    let line =
        [ancestor(90, "sh", 1024), ancestor(71, "supervisord", 1024), ancestor(1, "init", 524_288)];
    assert_eq!(first_with(1024, &line).map(|each| each.pid), Some(71));
    assert_eq!(first_with(4096, &line), None);
    // Equal by chance, above one that differs: not inherited.
    let line = [ancestor(90, "sh", 1024), ancestor(71, "x", 512), ancestor(1, "init", 1024)];
    assert_eq!(first_with(1024, &line).map(|each| each.pid), Some(90));
}

#[test]
fn the_launcher_is_told_by_ancestors_and_cgroups() {
    let check = |cgroup: &str, wanted: Launcher| {
        assert_eq!(launcher_of(cgroup, false), wanted, "{cgroup}");
    };
    check("0::/system.slice/push.service\n", Launcher::Systemd("push.service".to_owned()));
    check("0::/user.slice/user-0.slice/session-3.scope\n", Launcher::Shell);
    check("0::/user.slice/user-1000.slice/user@1000.service\n", Launcher::Shell);
    check("0::/system.slice/docker-4af.scope\n", Launcher::Container);
    check("12:pids:/kubepods/burstable/pod1/4af\n0::/\n", Launcher::Container);
    check("0::/\n", Launcher::Shell);
    check("nonsense", Launcher::Shell);
    assert_eq!(launcher_of("0::/\n", true), Launcher::Container);
    let line = [ancestor(9, "sh", 1024), ancestor(71, "supervisord", 1024)];
    let found = launcher(Path::new("/nowhere"), 5, &line);
    assert!(matches!(found, Launcher::Supervisord { it, .. } if it.pid == 71));
}

#[test]
fn ancestors_are_read_from_any_proc() {
    let proc = std::env::temp_dir().join(format!("throng-proc-{}", std::process::id()));
    let row = |soft, hard| format!("Max open files            {soft}  {hard}  files\n");
    for (pid, parent, name, limits) in
        [(9, 7, "throng", row(1024, 1024)), (7, 1, "sh", row(512, 1024)), (1, 0, "init", row(1, 2))]
    {
        let at = proc.join(pid.to_string());
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join("status"), format!("Name:\t{name}\nPPid:\t{parent}\n")).unwrap();
        std::fs::write(at.join("comm"), format!("{name}\n")).unwrap();
        std::fs::write(at.join("limits"), limits).unwrap();
    }
    let line = ancestors(&proc, 9);
    std::fs::remove_dir_all(&proc).unwrap();
    assert_eq!(line.iter().map(|each| each.pid).collect::<Vec<_>>(), [7, 1]);
    assert_eq!(
        line[0],
        Ancestor { pid: 7, name: "sh".to_owned(), limit: OpenFiles { soft: 512, hard: 1024 } }
    );
}

#[test]
fn a_tree_that_is_a_circle_ends() {
    let proc = std::env::temp_dir().join(format!("throng-circle-{}", std::process::id()));
    let at = proc.join("5");
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("status"), "PPid:\t5\n").unwrap();
    std::fs::write(at.join("limits"), "Max open files  1  2  files\n").unwrap();
    assert_eq!(ancestors(&proc, 5).len(), ANCESTORS_MAX);
    std::fs::remove_dir_all(&proc).unwrap();
}

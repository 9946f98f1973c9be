use super::*;
use crate::facts::OpenFiles;

fn relative(pid: u32, name: &str, cmdline: &str) -> Relative {
    Relative {
        pid,
        name: name.to_owned(),
        uid: 0,
        limit: OpenFiles { soft: 1024, hard: 4096 },
        started_s: None,
        cmdline: cmdline.split(' ').map(str::to_owned).collect(),
        may_raise: true,
        raises: true,
    }
}

fn told(cgroup: &str, line: &[Relative], environ: &str) -> Launcher {
    let marks = Marks::parse(environ);
    launcher(Signs { line, cgroup, marks: &marks, inside: Inside::Machine })
}

#[test]
fn a_cgroup_tells_units_containers_and_sessions_apart() {
    let check =
        |cgroup: &str, wanted: Launcher| assert_eq!(told(cgroup, &[], ""), wanted, "{cgroup}");
    let unit = Launcher::Unit { name: "push.service".to_owned(), scope: Scope::System };
    let session = |service: &str| Launcher::Session { service: service.to_owned(), pid: None };
    check("0::/system.slice/push.service\n", unit);
    check("0::/user.slice/user-0.slice/session-3.scope\n", session("sshd"));
    check("0::/user.slice/user-0.slice/session-c1.scope\n", session("su"));
    check("0::/system.slice/docker-4afc0ffee4af.scope\n", Launcher::Container(Runtime::Docker));
    check("12:pids:/kubepods/burstable/pod1/4af\n0::/\n", Launcher::Container(Runtime::Kubernetes));
    check("0::/\n", Launcher::Unknown);
    check("nonsense", Launcher::Unknown);
}

#[test]
fn the_closest_ancestor_that_starts_things_is_the_launcher() {
    let line = [
        relative(90, "python3", "python3 push.py"),
        relative(80, "sh", "sh -c x"),
        relative(71, "supervisord", "supervisord"),
        relative(60, "su", "su -"),
        relative(1, "systemd", "init"),
    ];
    let cgroup = "0::/system.slice/supervisor.service\n";
    let unit = Some("supervisor.service".to_owned());
    let supervisord = Launcher::Supervisord { pid: 71, name: "supervisord".to_owned(), unit };
    assert_eq!(told(cgroup, &line, ""), supervisord);
    let su = Launcher::Session { service: "su-l".to_owned(), pid: Some(60) };
    assert_eq!(told("0::/\n", &[line[0].clone(), line[1].clone(), line[3].clone()], ""), su);
    let line = [line[0].clone(), relative(70, "runsv", "runsv push")];
    let runit = Launcher::Keeper { kind: Kind::Runit, service: "push".to_owned(), pid: Some(70) };
    assert_eq!(told("0::/\n", &line, ""), runit);
}

#[test]
fn the_environment_remembers_what_is_gone() {
    let scope = "0::/user.slice/user-1000.slice/session-1.scope\n";
    let sudo = Launcher::Session { service: "sudo".to_owned(), pid: None };
    assert_eq!(told(scope, &[], "A=1\0SUDO_USER=bob\0SSH_CONNECTION=x\0"), sudo);
    let kubernetes = Launcher::Container(Runtime::Kubernetes);
    assert_eq!(told("0::/\n", &[], "KUBERNETES_SERVICE_HOST=10.0.0.1\0"), kubernetes);
}

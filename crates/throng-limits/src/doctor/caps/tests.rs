use std::fs;

use super::*;

#[test]
fn ports_are_found_in_what_a_proxy_passes_on_to() {
    assert_eq!(port_of("http://127.0.0.1:8888/ws"), Some(8888));
    assert_eq!(port_of("[::1]:8889"), Some(8889));
    assert_eq!(port_of("unix:/run/a.sock"), None);
    assert_eq!(port_of("http://push"), None);
}

#[test]
fn a_file_that_a_process_names_is_no_command() {
    let said =
        |line, value| Some(crate::facts::nginx::Said { file: "/tmp/a;reboot".into(), line, value });
    let config = Config { connections: said(2, 768), files: said(1, 1024), ..Config::default() };
    let [connections, files] = nginx_steps(&config).try_into().unwrap();
    assert!(connections.command.ends_with(" {N};/' '/tmp/a;reboot'"), "{connections:?}");
    let begins = "sudo sed -i '1s/worker_rlimit_nofile[^;]*;/";
    assert!(files.command.starts_with(begins), "{files:?}");
    assert!(nginx_steps(&Config::default()).is_empty());
}

#[test]
fn an_nginx_in_front_is_found_and_its_users_counted() {
    let at = std::env::temp_dir().join(format!("throng-caps-{}", std::process::id()));
    let write = |path: &str, text: &str| {
        let path = at.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let status = |parent: u32| format!("Name:\tnginx\nPPid:\t{parent}\nUid:\t0\t0\t0\t0\n");
    for (pid, parent, title) in [
        (71, 1, "nginx: master process /usr/sbin/nginx -c /etc/n.conf"),
        (72, 71, "nginx: worker process"),
        (73, 71, "nginx: worker process is shutting down"),
    ] {
        write(&format!("proc/{pid}/comm"), "nginx\n");
        write(&format!("proc/{pid}/status"), &status(parent));
        write(&format!("proc/{pid}/cmdline"), &format!("{title}\0"));
    }
    write(
        "root/etc/n.conf",
        "events {\n  worker_connections 768;\n}\nhttp { server { location / {\n\
         proxy_pass http://127.0.0.1:8888;\n} } }\n",
    );
    let tree = Tree::at(at.join("proc"), at.join("root"));
    let found = proxies(&tree);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].master, found[0].workers.as_slice()), (71, [72].as_slice()));
    assert_eq!((found[0].users(), found[0].at.as_str()), (Some(384), "/etc/n.conf:2"));
    assert_eq!(found[0].apply, "sudo nginx -c /etc/n.conf -s reload");
    assert_eq!(
        found[0].steps.iter().map(|step| step.command.as_str()).collect::<Vec<_>>(),
        [
            "sudo sed -i '2s/worker_connections[^;]*;/worker_connections {N};/' /etc/n.conf",
            "sudo sed -i '1i worker_rlimit_nofile {N};' /etc/n.conf",
        ]
    );

    let mut facts = Facts::example();
    add(&tree, &mut facts);
    assert_eq!(facts.fronts.len(), 1);
    assert_eq!(facts.fronts[0].users, 384);
    facts.who.pid = 72;
    facts.who.comm = "nginx".to_owned();
    add(&tree, &mut facts);
    assert_eq!((facts.caps[0].limit, facts.caps[0].cost_milli), (768, 2000));
}

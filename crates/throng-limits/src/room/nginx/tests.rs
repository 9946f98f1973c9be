use super::*;

const FILE: &str = "/etc/nginx/nginx.conf";

/// Debian's: 768 connections, and the soft limit that systemd gives.
fn debian() -> Nginx {
    let said = |value, line| Some(Said { value, file: FILE.into(), line });
    let events = Some(Said { value: (), file: FILE.into(), line: 7 });
    Nginx {
        pid: 7,
        config: Config {
            file: FILE.into(),
            connections: said(768, 8),
            events,
            ..Config::default()
        },
        workers: 2,
        limit: OpenFiles { soft: 1024, hard: 524_288 },
        fullest: 770,
        reach: 524_288,
        reload: "nginx -s reload".to_owned(),
    }
}

#[test]
fn debians_768_connections_are_384_clients() {
    let nginx = debian();
    assert_eq!(nginx.clients(), 384);
    assert!(nginx.is_full());
    assert_eq!(
        nginx.to_string(),
        "nginx, pid 7, has worker_connections 768 (/etc/nginx/nginx.conf:8), which is 384 clients \
         for each of its 2 workers: a client costs it two"
    );
    assert_eq!(
        nginx.fix(),
        "set worker_connections 32768; (/etc/nginx/nginx.conf:8, in place of the line there) and \
         set worker_rlimit_nofile 65536; (/etc/nginx/nginx.conf, above events), then run: nginx -s \
         reload"
    );
}

#[test]
fn what_is_asked_for_is_what_it_may_have() {
    let nginx = Nginx { reach: 20_000, ..debian() };
    let texts: Vec<_> = nginx.changes().into_iter().map(|change| change.text).collect();
    assert_eq!(texts, ["worker_connections 19744;", "worker_rlimit_nofile 20000;"]);
    // The hard limit is in the way, and no line of nginx's can help.
    let nginx = Nginx { reach: 1024, ..debian() };
    assert!(nginx.changes().is_empty());
    assert!(nginx.fix().contains("LimitNOFILE=65536"), "{}", nginx.fix());
}

#[test]
fn the_descriptors_can_be_what_is_few() {
    let mut nginx = Nginx { fullest: 12, ..debian() };
    nginx.config.connections.as_mut().unwrap().value = 32_768;
    assert_eq!(nginx.clients(), 512);
    assert!(!nginx.is_full());
    assert!(nginx.to_string().starts_with("nginx, pid 7, may have 1,024 descriptors"), "{nginx}");
    let texts: Vec<_> = nginx.changes().into_iter().map(|change| change.text).collect();
    assert_eq!(texts, ["worker_rlimit_nofile 65536;"]);
}

#[test]
fn the_title_tells_the_configuration() {
    let told = |title: &str| {
        let Told { config, reload } = Told::of(title);
        (config.display().to_string(), reload)
    };
    let pair = |config: &str, reload: &str| (config.to_owned(), reload.to_owned());
    assert_eq!(
        told("nginx: master process /usr/sbin/nginx -g daemon on; master_process on;"),
        pair(FILE, "/usr/sbin/nginx -s reload")
    );
    assert_eq!(
        told("nginx: master process nginx -p /srv/ -c a.conf -g daemon off;"),
        pair("/srv/a.conf", "nginx -p /srv/ -c a.conf -s reload")
    );
    assert_eq!(told("nginx: master process"), pair(FILE, "nginx -s reload"));
}

#[test]
fn a_listener_that_is_no_nginx_is_none() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(Nginx::at(listener.local_addr().unwrap()), None);
}

use std::collections::BTreeMap;

use super::*;

struct Few(BTreeMap<&'static str, &'static str>);

impl Files for Few {
    fn read(&self, path: &Path) -> Option<String> {
        self.0.get(path.to_str()?).map(|text| (*text).to_owned())
    }

    fn list(&self, directory: &Path) -> Vec<String> {
        let within = |path: &str| Some(Path::new(path).strip_prefix(directory).ok()?.to_owned());
        let paths = self.0.keys().filter_map(|path| within(path)?.to_str().map(str::to_owned));
        paths.collect()
    }
}

/// As Debian's, with what counts and what could mislead.
const DEBIAN: &str = "user www-data;
worker_processes auto;
include modules-enabled/*.conf;

events {
\tworker_connections 768;
\t# worker_connections 4096;
}

http {
\tlog_format x '{ \"a\": $b; worker_connections 7; }';
\tserver { location /${name}/ { return 200 \"}\"; } }
\tworker_rlimit_nofile 5;
}
";

fn read(files: &[(&'static str, &'static str)]) -> Config {
    Config::read(Path::new("/etc/nginx/nginx.conf"), &Few(files.iter().copied().collect())).unwrap()
}

fn at<T>(value: T, file: &str, line: usize) -> Option<Said<T>> {
    Some(Said { value, file: file.into(), line })
}

#[test]
fn debians_configuration_says_what_it_says() {
    let config = read(&[("/etc/nginx/nginx.conf", DEBIAN)]);
    assert_eq!(config.connections, at(768, "/etc/nginx/nginx.conf", 6));
    assert_eq!(config.workers, at(Workers::Auto, "/etc/nginx/nginx.conf", 2));
    assert_eq!(config.events, at((), "/etc/nginx/nginx.conf", 5));
    assert_eq!(config.files, None);
}

#[test]
fn an_included_file_says_it_too() {
    let config = read(&[
        ("/etc/nginx/nginx.conf", "include modules-enabled/*.conf; events { include /e/ev; }"),
        ("/etc/nginx/modules-enabled/90-a.conf", "worker_rlimit_nofile 9;"),
        ("/etc/nginx/modules-enabled/50-b.conf", "\nworker_rlimit_nofile\n 5;"),
        ("/etc/nginx/modules-enabled/10-not", "worker_rlimit_nofile 1;"),
        ("/e/ev", "worker_connections 99;"),
    ]);
    assert_eq!(config.files, at(5, "/etc/nginx/modules-enabled/50-b.conf", 2));
    assert_eq!(config.connections, at(99, "/e/ev", 1));
}

#[test]
fn sites_tell_to_whom_they_pass_on() {
    let site = "upstream throng { server 127.0.0.1:8000 max_fails=0; server [::1]:8001; }
        server { listen 80; location / { proxy_pass http://throng; } }
        server { location /a { proxy_pass http://127.0.0.1:9000/connection/; } }";
    let config = read(&[
        ("/etc/nginx/nginx.conf", "events { }\nhttp { include /etc/nginx/sites-enabled/*; }"),
        ("/etc/nginx/sites-enabled/push", site),
    ]);
    let ports = [8000, 8001, 9000, 80].map(|port| config.passes_to(port));
    assert_eq!(ports, [true, true, true, false], "{:?}", config.targets);
}

#[test]
fn files_that_include_each_other_end() {
    let config = read(&[("/etc/nginx/nginx.conf", "include nginx.conf; include *;")]);
    assert_eq!(config.connections, None);
}

#[test]
fn a_text_that_is_none_says_nothing() {
    for text in
        ["", "}}}}", "{{{{", "events { worker_connections", "worker_processes many; \"", "'"]
    {
        let config = read(&[("/etc/nginx/nginx.conf", text)]);
        assert_eq!((config.connections, config.workers), (None, None), "{text}");
    }
    let none = Few(BTreeMap::new());
    assert_eq!(Config::read(Path::new("/etc/nginx/nginx.conf"), &none), None);
}

#[test]
fn patterns_mean_what_a_shell_means() {
    let means = |pattern: &str, name: &str| matches(pattern.as_bytes(), name.as_bytes());
    assert!(means("*.conf", "50-mod.conf") && means("*", "a") && means("a?c*", "abc"));
    assert!(means("*a*b*", "xxaxxbxx") && means("**", ""));
    assert!(!means("*.conf", "a.conf~") && !means("a?", "a") && !means("", "a"));
    let (pattern, name) = ("*a".repeat(500), "a".repeat(5000));
    assert!(!matches(format!("{pattern}b").as_bytes(), name.as_bytes()));
}

#[test]
fn debians_own_file_can_be_read_where_it_is() {
    let files = Below("/".into());
    // Where nginx is installed.
    let Some(config) = Config::read(Path::new("/etc/nginx/nginx.conf"), &files) else { return };
    assert!(config.events.is_some(), "{config:?}");
}

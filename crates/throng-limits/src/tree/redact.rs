//! Leaves secrets out of a copy that is meant to be sent to somebody.

use std::borrow::Cow;

/// What stands in the place of a value.
const REMOVED: &str = "[removed]";
/// Variables of an environment whose values tell who started a process, and nothing else.
const TELLING: [&str; 22] = [
    "SUPERVISOR_ENABLED",
    "SUPERVISOR_PROCESS_NAME",
    "SUPERVISOR_GROUP_NAME",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "MANAGERPID",
    "NOTIFY_SOCKET",
    "SSH_CONNECTION",
    "SSH_TTY",
    "SUDO_USER",
    "SUDO_UID",
    "XDG_SESSION_ID",
    "USER",
    "LOGNAME",
    "HOME",
    "SHELL",
    "container",
    "KUBERNETES_SERVICE_HOST",
    "PM2_HOME",
    "pm_id",
    "RC_SVCNAME",
];
/// What the name of a secret has in it.
const SECRET: [&str; 8] =
    ["pass", "secret", "token", "key", "auth", "credential", "cookie", "private"];

/// What has such a name in it and is none: where proxies pass on to is what one looks for.
const HARMLESS: [&str; 7] = [
    "keepalive",
    "keep_alive",
    "proxy_pass",
    "fastcgi_pass",
    "uwsgi_pass",
    "scgi_pass",
    "grpc_pass",
];

/// The text as it may leave the machine.
pub(super) fn redacted<'a>(in_proc: bool, path: &str, text: &'a str) -> Cow<'a, str> {
    match path.rsplit('/').next() {
        Some("environ") if in_proc => Cow::Owned(environ(text)),
        Some("cmdline") if in_proc => Cow::Owned(cmdline(text)),
        _ if in_proc && !path.contains("/root/") => Cow::Borrowed(text),
        _ => config(text),
    }
}

fn environ(text: &str) -> String {
    let kept = text.split('\0').filter(|entry| !entry.is_empty()).map(|entry| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        let value = if TELLING.contains(&name) { value } else { REMOVED };
        format!("{name}={value}\0")
    });
    kept.collect()
}

fn cmdline(text: &str) -> String {
    let mut next_is_secret = false;
    let mut kept = String::new();
    for argument in text.split_terminator('\0') {
        let (name, value) =
            argument.split_once('=').map_or((argument, None), |(name, value)| (name, Some(value)));
        match value {
            _ if next_is_secret => kept.push_str(REMOVED),
            Some(value) if is_secret(name) || has_user(value) => {
                kept.extend([name, "=", REMOVED]);
            }
            None if has_user(name) => kept.push_str(REMOVED),
            _ => kept.push_str(argument),
        }
        next_is_secret = value.is_none() && name.starts_with('-') && is_secret(name);
        kept.push('\0');
    }
    kept
}

/// Of a line that names a secret only the first word is kept.
fn config(text: &str) -> Cow<'_, str> {
    if !text.lines().any(is_secret) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        // PAM: a stack is made of these words, and holds no secret.
        let is_pam = ["auth", "-auth", "password", "-password"]
            .contains(&line.split_whitespace().next().unwrap_or_default());
        if is_pam && line.contains("pam_") || !is_secret(line) {
            kept.push_str(line);
            continue;
        }
        let body = line.trim_end();
        let indent = &body[..body.len() - body.trim_start().len()];
        let first = body.trim_start().split([' ', '\t', '=', ':']).next().unwrap_or_default();
        kept.extend([indent, first, " ", REMOVED, &line[body.len()..]]);
    }
    Cow::Owned(kept)
}

fn is_secret(name: &str) -> bool {
    let mut name = name.to_ascii_lowercase();
    for harmless in HARMLESS {
        name = name.replace(harmless, "");
    }
    if name.trim_start().starts_with("server ") {
        // HAProxy: by which value of a cookie clients stay with this server.
        name = name.replace(" cookie ", " ");
    }
    SECRET.iter().any(|part| name.contains(part)) || has_user(&name)
}

/// Whether it has a URL with a user, and so maybe a password, before the host.
fn has_user(text: &str) -> bool {
    text.split("://").skip(1).any(|behind| {
        let host = behind.split(['/', ' ', '\t', ';', '"', '\'']).next().unwrap_or_default();
        host.contains('@')
    })
}

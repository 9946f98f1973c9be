//! Texts of configuration files: a first one for a new server, and every default.

use std::io::Read;

use super::options::{Kind, Spec, Status, options};

/// A first configuration, with keys of its own.
#[derive(Clone)]
pub struct InitFile {
    /// The file, in TOML. Holds secrets: write it with mode 0600.
    pub text: String,
    pub hmac_secret_key: String,
    pub api_key: String,
}

impl std::fmt::Debug for InitFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InitFile").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}

/// Why no first configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// What was given is not an origin.
    #[error("{0}")]
    Origin(String),
    #[error("no random bytes for the keys: {0}")]
    Random(#[from] std::io::Error),
}

/// A first configuration for pages of this origin.
///
/// # Errors
/// When the origin is none, or the system has no random bytes.
pub fn init(origin: &str) -> Result<InitFile, InitError> {
    check_origin(origin).map_err(InitError::Origin)?;
    let (hmac_secret_key, api_key) = (random_key()?, random_key()?);
    let text = INIT
        .replace("{{origin}}", origin)
        .replace("{{hmac_secret_key}}", &hmac_secret_key)
        .replace("{{api_key}}", &api_key);
    Ok(InitFile { text, hmac_secret_key, api_key })
}

/// An origin as a browser sends it: a scheme, a host, perhaps a port, and nothing more.
fn check_origin(origin: &str) -> Result<(), String> {
    let bad = |what: &str| {
        Err(format!(
            "{origin:?} is not an origin: {what}; write it as the browser's address bar begins, \
             such as https://example.com or http://localhost:3000"
        ))
    };
    let Some((scheme, host)) = origin.split_once("://") else {
        return bad("it has no scheme");
    };
    if !matches!(scheme, "http" | "https") {
        return bad("its scheme is neither http nor https");
    }
    if host.contains('/') {
        return bad("it has a path, or ends with /");
    }
    let of_a_host =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '*');
    if host.is_empty() || !host.chars().all(of_a_host) {
        return bad("it has no host name");
    }
    Ok(())
}

/// 256 random bits as 64 hexadecimal digits.
fn random_key() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

const INIT: &str = r##"# throng: a push server. `throng config check` checks this file, `throng config default` shows
# every option. What is not written here has its default.

[http_server]
# Empty: every address. Behind a proxy on this machine, write "127.0.0.1".
address = ""
port = 8000

[client]
# Pages of these origins may connect; https://*.example.com would be all subdomains.
allowed_origins = ["{{origin}}"]

[client.token]
# Your application signs its users' tokens with this key (JWT, HS256). Keep it secret.
# To try: throng token --user 42
hmac_secret_key = "{{hmac_secret_key}}"

[http_api]
# Your application sends this key with every call of the server API: X-API-Key. Keep it secret.
key = "{{api_key}}"

[health]
# GET /health answers 200 while the server is well.
enabled = true

# GET /metrics tells Prometheus what the server does, and anybody else who can reach it.
# [prometheus]
# enabled = true

# Channels without a namespace, such as "news".
[channel.without_namespace]
# Every user with a token may listen. Without this, a channel needs a subscription token of its own.
allow_subscribe_for_client = true
# The last 100 publications of 5 minutes are kept, so that a client that was away for a moment gets
# what it missed.
history_size = 100
history_ttl = "5m"
force_recovery = true

# Channels of a namespace have its name in front, such as "chat:lobby", and options of their own.
# [[channel.namespaces]]
# name = "chat"
# presence = true
# join_leave = true
# allow_subscribe_for_client = true
# allow_publish_for_subscriber = true
# allow_presence_for_subscriber = true
"##;

/// Every supported option with its default, in TOML; a configuration that changes nothing.
pub fn default_text() -> String {
    let mut text = String::from(
        "# Every option that throng knows what to do with, and its default. 0, \"\" and [] mean: none,\n\
         # or as much as the machine allows. Durations are written \"25s\", \"1h30m\" or \"100ms\".\n\n",
    );
    let mut supported: Vec<_> =
        options().all.iter().filter(|(_, spec)| spec.status == Status::Supported).collect();
    supported.sort_by_key(|(_, spec)| spec.place);
    // TOML: what has no section must stand before the first one.
    let mut sections: Vec<(&str, Vec<String>)> = vec![("", Vec::new())];
    for (path, spec) in supported {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        let value = match spec.kind {
            Kind::Namespaces => continue,
            Kind::Texts | Kind::List => "[]".to_owned(),
            Kind::Bool => if spec.default.is_empty() { "false" } else { spec.default }.to_owned(),
            Kind::Bytes if spec.default.parse::<u64>().is_err() && !spec.default.is_empty() => {
                format!("{:?}", spec.default)
            }
            Kind::Int | Kind::Bytes => {
                if spec.default.is_empty() { "0" } else { spec.default }.to_owned()
            }
            Kind::Duration if spec.default.is_empty() => "\"0s\"".to_owned(),
            _ => format!("{:?}", spec.default),
        };
        let doc = if spec.doc.is_empty() { String::new() } else { format!("# {}\n", spec.doc) };
        let row = format!("{doc}{name} = {value}\n");
        match sections.iter_mut().find(|(known, _)| *known == section) {
            Some((_, rows)) => rows.push(row),
            None => sections.push((section, vec![row])),
        }
    }
    for (section, rows) in sections {
        if !section.is_empty() {
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.extend(rows);
    }
    text.push_str(
        "\n# Any number of namespaces, each with the options of channel.without_namespace:\n\
         # [[channel.namespaces]]\n# name = \"chat\"\n",
    );
    text
}

/// Every supported option with its default, as lines of the variables that set them.
pub fn default_env() -> String {
    let mut supported: Vec<_> =
        options().all.iter().filter(|(_, spec)| spec.status == Status::Supported).collect();
    supported.sort_by_key(|(_, spec)| spec.place);
    let line = |(path, spec): (&String, &Spec)| {
        let default = match (spec.kind, spec.default) {
            (Kind::Bool, "") => "false",
            (Kind::Int | Kind::Bytes, "") => "0",
            (Kind::Duration, "") => "0s",
            (_, default) => default,
        };
        format!("THRONG_{}={default}\n", super::written::env_name(path))
    };
    supported.into_iter().map(line).collect()
}

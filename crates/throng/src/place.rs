//! Which server a command talks to: named, or the one that this machine's configuration describes.

use throng_server::config::{Http, Settings};

use crate::args::PlaceArgs;
use crate::config;
use crate::failure::Failure;

/// A server, and the right to talk to it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// In front of every path; empty, or beginning with `/`.
    pub(crate) prefix: String,
    /// Where the server API is.
    pub(crate) api_path: String,
    /// Empty: none.
    pub(crate) api_key: String,
    /// As this machine has it, where that could be read.
    pub(crate) settings: Option<Settings>,
}

/// Which of a server's ports is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Api,
    Clients,
}

impl Place {
    /// By `--url`, `THRONG_URL`, or the configuration and its environment, on this machine.
    pub(crate) fn find(args: &PlaceArgs, door: Door) -> Result<Self, Failure> {
        let url = args
            .url
            .clone()
            .or_else(|| std::env::var("THRONG_URL").ok())
            .filter(|url| !url.is_empty());
        let loaded = config::load(args.config.as_deref());
        // Who names a server needs no configuration of its own; who names one wants it right.
        if loaded.settings.is_none() && (url.is_none() || args.config.is_some()) {
            return Err(config::unusable(&loaded));
        }
        let mut place = match (&url, &loaded.settings) {
            (Some(url), _) => from_url(url)?,
            (None, Some(settings)) => local(settings, door),
            (None, None) => return Err(config::unusable(&loaded)),
        };
        if let Some(settings) = loaded.settings {
            place.api_path = settings.http_api.path.clone();
            place.api_key = settings.http_api.key.clone();
            place.settings = Some(settings);
        }
        if let Some(key) = &args.api_key {
            place.api_key.clone_from(key);
        }
        Ok(place)
    }

    /// As a message names it.
    pub(crate) fn name(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

fn local(settings: &Settings, door: Door) -> Place {
    let Http { address, port, internal_address, internal_port, .. } = &settings.http;
    let (address, port) = match internal_port {
        Some(internal) if door == Door::Api && !settings.http_api.external => {
            (if internal_address.is_empty() { address } else { internal_address }, *internal)
        }
        _ => (address, *port),
    };
    let host = match address.as_str() {
        "" | "0.0.0.0" => "127.0.0.1",
        "::" | "[::]" => "::1",
        own => own.trim_matches(['[', ']']),
    };
    place_at(host, port, "")
}

fn from_url(url: &str) -> Result<Place, Failure> {
    let bad = |what: &str| {
        Err(Failure::could_not_run(format!(
            "{url}: {what}; write for example http://127.0.0.1:8000"
        )))
    };
    let rest = match url.split_once("://") {
        None => url,
        Some(("http" | "ws", rest)) => rest,
        Some(("https" | "wss", _)) => {
            return bad(
                "https is not spoken here; name the server itself, not the proxy before it",
            );
        }
        Some(_) => return bad("not the URL of a server"),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = path.trim_end_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => return bad("not a port"),
        },
        _ => (authority, 80),
    };
    let host = host.trim_matches(['[', ']']);
    if host.is_empty() || host.contains(['@', ' ']) || url.contains(char::is_control) {
        return bad("not the URL of a server");
    }
    Ok(place_at(host, port, &prefix))
}

fn place_at(host: &str, port: u16, prefix: &str) -> Place {
    Place {
        host: host.to_owned(),
        port,
        prefix: prefix.to_owned(),
        api_path: "/api".to_owned(),
        api_key: String::new(),
        settings: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_prefix() {
        let parts = |url| from_url(url).map(|p| (p.host, p.port, p.prefix)).unwrap();
        assert_eq!(parts("http://a:1"), ("a".into(), 1, String::new()));
        assert_eq!(parts("a:1/"), ("a".into(), 1, String::new()));
        assert_eq!(parts("ws://a/push/"), ("a".into(), 80, "/push".into()));
        assert_eq!(parts("http://[::1]:8000"), ("::1".into(), 8000, String::new()));
        assert_eq!(from_url("http://[::1]:80").unwrap().name(), "[::1]:80");
        assert!(from_url("http://a/\r\nX:").is_err());
        assert!(from_url("https://a").unwrap_err().message.contains("https is not spoken here"));
        assert!(from_url("http://a:x").is_err() && from_url("http://").is_err());
    }

    #[test]
    fn the_api_is_asked_at_the_internal_port_where_there_is_one() {
        let mut settings = Settings::development();
        settings.http.address = "0.0.0.0".to_owned();
        settings.http.internal_port = Some(9000);
        assert_eq!(local(&settings, Door::Api).name(), "127.0.0.1:9000");
        assert_eq!(local(&settings, Door::Clients).name(), "127.0.0.1:8000");
        settings.http_api.external = true;
        assert_eq!(local(&settings, Door::Api).name(), "127.0.0.1:8000");
    }
}

//! The cookie that never arrives: what is known of a client that came without one, and why browsers
//! send none.

use std::fmt;
use std::net::IpAddr;

/// Characters of a name that a stranger wrote.
const NAME_CHARS_MAX: usize = 100;

/// A client that sent no cookie to a server whose connect backend is to see one. Nothing of a cookie
/// is here: there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoCookie {
    /// The host of the page; none: it is no browser's.
    page: Option<Box<str>>,
    /// The host that was asked for.
    server: Box<str>,
}

impl NoCookie {
    /// By the values of `Origin` and `Host`.
    pub(crate) fn new(origin: Option<&str>, host: &str) -> Self {
        let page = origin.map(|origin| {
            let host = origin.split_once("://").map_or(origin, |(_, host)| host);
            shown(host_of(host))
        });
        Self { page, server: shown(host_of(host)) }
    }

    /// Only what is known.
    pub(crate) fn facts(&self) -> String {
        let server = &self.server;
        match &self.page {
            Some(page) => format!("client sent none: page {page}, server {server}"),
            None => format!("client sent none: no page (no Origin), server {server}"),
        }
    }
}

/// With what to do.
impl fmt::Display for NoCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http_headers names Cookie and the {}; ", self.facts())?;
        let Some(page) = &self.page else {
            return f.write_str("a program must send its Cookie header itself, or use a token");
        };
        let server = &self.server;
        if page.eq_ignore_ascii_case(server) {
            return f.write_str(
                "the page's visitor has no cookie here (is logged out), or its Path leaves this path \
                 out",
            );
        }
        match common_parent(page, server) {
            Some(parent) => write!(
                f,
                "a cookie is sent to {server} if it is set with Domain={parent}; or use tokens"
            ),
            None => f.write_str(
                "browsers send cookies across sites only with SameSite=None; Secure, and many not \
                 even then: serve both from one site (www.example.com and push.example.com, the \
                 cookie with Domain=example.com), or use tokens",
            ),
        }
    }
}

/// Without the port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn shown(name: &str) -> Box<str> {
    let good = |each: char| if each.is_control() { '?' } else { each };
    name.chars().take(NAME_CHARS_MAX).map(good).collect::<String>().into()
}

/// The domain that both are below, with two labels at least. Which domains are open to everybody's
/// names, as `co.uk` is, is not known here; browsers refuse cookies for those.
fn common_parent(one: &str, other: &str) -> Option<String> {
    let is_address = |name: &str| name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if is_address(one) || is_address(other) {
        return None;
    }
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    let shared: Vec<&str> = one
        .rsplit('.')
        .zip(other.rsplit('.'))
        .take_while(|(one, other)| one == other)
        .map(|(label, _)| label)
        .collect();
    (shared.len() >= 2).then(|| shared.into_iter().rev().collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_and_server_are_named_and_what_would_help() {
        let said = |origin: Option<&str>, host: &str| NoCookie::new(origin, host).to_string();
        let one = said(Some("https://www.example.com"), "push.example.com:8000");
        assert!(
            one.contains("client sent none: page www.example.com, server push.example.com; "),
            "{one}"
        );
        assert!(one.contains("Domain=example.com"), "{one}");
        let other = said(Some("https://www.example.com"), "push.example.org");
        assert!(other.contains("SameSite=None; Secure") && other.contains("tokens"), "{other}");
        let same = said(Some("http://localhost:3000"), "LOCALHOST:8000");
        assert!(same.contains("logged out"), "{same}");
        assert!(said(None, "a").contains("no Origin"));
        assert!(said(Some("http://10.0.0.1"), "10.0.0.2").contains("across sites"));
        assert!(said(Some("null"), "[::1]:80").contains("page null, server [::1]"));
    }

    #[test]
    fn what_a_stranger_wrote_is_short_and_without_control_characters() {
        let long = format!("https://{}\u{1b}[2J", "x".repeat(500));
        let facts = NoCookie::new(Some(&long), "a\u{7}b").facts();
        assert!(facts.len() < 200 && !facts.contains(char::is_control), "{facts}");
    }
}

//! Where an identity provider publishes its keys: a URL, some of whose parts may come from a token.
//!
//! What a token says is not proven when its key is looked for, so whoever makes a token chooses
//! what stands in those parts. They are bounded twice: the regular expression must list what they may
//! be, and no value can change which part of the URL it is in.

use std::fmt;

use http::Uri;
use regex_lite::{Captures, Regex};

/// Bytes of one value in a URL.
const VALUE_BYTES_MAX: usize = 253;

/// A URL with named places, such as `https://login.example/{{realm}}/certs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksEndpoint {
    /// Texts and names in turn: the first, and every second after it, is a text.
    parts: Vec<String>,
}

/// Where a set of keys is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeysUrl {
    pub(crate) https: bool,
    /// An IPv6 address has its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// With its query.
    pub(crate) path: String,
}

impl JwksEndpoint {
    /// Reads a template. The error is a sentence about it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or("{{ without its }}".to_owned())?;
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(format!("{{{{{name}}}}} is no name of a group"));
            }
            parts.extend([before.to_owned(), name.to_owned()]);
            rest = after;
        }
        parts.push(rest.to_owned());
        let endpoint = Self { parts };
        // A letter stands for every value: it changes nothing that is checked here.
        KeysUrl::read(&endpoint.filled(&|_| Some("x".to_owned())).map_err(|why| why.to_owned())?)?;
        Ok(endpoint)
    }

    #[cfg(test)]
    pub(crate) fn read_for_tests(text: &str) -> Self {
        Self::read(text).unwrap()
    }

    /// The names of its places.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().skip(1).step_by(2).map(String::as_str)
    }

    /// The URL where every place has its value. The error is a sentence about the token.
    pub(crate) fn url(&self, value: &dyn Fn(&str) -> Option<String>) -> Result<KeysUrl, String> {
        let text = self.filled(value)?;
        KeysUrl::read(&text)
    }

    fn filled(&self, value: &dyn Fn(&str) -> Option<String>) -> Result<String, &'static str> {
        let mut text = String::new();
        for (at, part) in self.parts.iter().enumerate() {
            if at % 2 == 0 {
                text.push_str(part);
                continue;
            }
            let value =
                value(part).ok_or("the token gives no value for a part of the URL of keys")?;
            if !is_one_part(&value) {
                return Err(
                    "what the token gives for a part of the URL of keys cannot stand there",
                );
            }
            text.push_str(&value);
        }
        Ok(text)
    }
}

/// Whether a value stays within the part of the URL that it is put into.
fn is_one_part(value: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
    !value.is_empty()
        && value.len() <= VALUE_BYTES_MAX
        && value.chars().all(allowed)
        && !value.starts_with('.')
        && !value.contains("..")
}

impl KeysUrl {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || "not a URL; write https://HOST/PATH".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(
                "has a name and password before its host, which are not supported".to_owned()
            );
        }
        let host = authority.host().to_owned();
        if host.is_empty() {
            return Err(wrong());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if uri.path().split('/').any(|part| matches!(part, "." | "..")) {
            return Err("has . or .. in its path".to_owned());
        }
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        Ok(Self { https, host, port, path: path.to_owned() })
    }
}

/// Without its query, which may be a secret.
impl fmt::Display for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != usual {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(self.path.split('?').next().unwrap_or_default())
    }
}

/// What the group of this name matched.
pub(crate) fn group(captures: Option<&Captures<'_>>, name: &str) -> Option<String> {
    Some(captures?.name(name)?.as_str().to_owned())
}

/// Whether the expression has a group of this name.
pub(super) fn has_group(regex: &Regex, name: &str) -> bool {
    regex.capture_names().flatten().any(|known| known == name)
}

/// Whether the group of this name can match only texts that are written out, such as `a|b\.c`.
pub(super) fn lists_its_values(pattern: &str, name: &str) -> bool {
    let chars: Vec<char> = pattern.chars().collect();
    let heads = [format!("(?P<{name}>"), format!("(?<{name}>")];
    let (mut at, mut in_class) = (0, false);
    while at < chars.len() {
        let rest = &chars[at..];
        let head = heads.iter().find(|head| starts_with(rest, head)).filter(|_| !in_class);
        if let Some(head) = head {
            return is_a_list(&rest[head.chars().count()..]);
        }
        match chars[at] {
            '\\' => at += 1,
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        at += 1;
    }
    false
}

/// Whether there are only letters, alternatives and groups of them until the group ends.
fn is_a_list(chars: &[char]) -> bool {
    let (mut depth, mut at) = (0, 0);
    while at < chars.len() {
        match chars[at] {
            ')' if depth == 0 => return true,
            ')' => depth -= 1,
            '(' => {
                depth += 1;
                match (chars.get(at + 1), chars.get(at + 2)) {
                    (Some('?'), Some(':')) => at += 2,
                    (Some('?'), _) => return false,
                    _ => {}
                }
            }
            '\\' => {
                at += 1;
                // A letter after it is a class, such as \d; a sign is itself.
                if !chars.get(at).is_some_and(char::is_ascii_punctuation) {
                    return false;
                }
            }
            '.' | '*' | '+' | '?' | '{' | '}' | '[' | ']' => return false,
            _ => {}
        }
        at += 1;
    }
    false
}

fn starts_with(chars: &[char], text: &str) -> bool {
    let mut chars = chars.iter();
    text.chars().all(|letter| chars.next() == Some(&letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(template: &str, values: &[(&str, &str)]) -> Result<String, String> {
        let value = |name: &str| {
            let found = values.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let url = JwksEndpoint::read(template)?.url(&value)?;
        Ok(format!("{url} {}", url.path))
    }

    #[test]
    fn places_are_filled_where_they_stand() {
        let template = "https://{{host}}/realms/{{realm}}/certs?v=1";
        let filled = url(template, &[("host", "a.example"), ("realm", "eu_1")]).unwrap();
        assert_eq!(filled, "https://a.example/realms/eu_1/certs /realms/eu_1/certs?v=1");
        assert_eq!(url("http://[::1]:81/k", &[]).unwrap(), "http://[::1]:81/k /k");
        assert!(url(template, &[("host", "a")]).unwrap_err().contains("no value"));
    }

    #[test]
    fn no_value_leaves_its_place() {
        let template = "https://{{tenant}}.example/{{tenant}}/keys";
        for evil in [
            "", ".", "..", "a/b", "a@b", "a:1", "a?b", "a#b", "a%2fb", "a\\b", "..x", "x..y", "é",
            "a\nb",
        ] {
            assert!(url(template, &[("tenant", evil)]).is_err(), "{evil:?}");
        }
        assert!(url(template, &[("tenant", &"a".repeat(254))]).is_err());
    }

    proptest::proptest! {
        /// Whatever stands in a token, the parts of the address around it stay what they are.
        #[test]
        fn a_value_changes_its_own_part_only(value in "[a-z0-9./:@?#%\\\\ _~-]{1,12}|.{0,8}") {
            let endpoint = JwksEndpoint::read("https://a.{{t}}.example:8443/x/{{t}}/keys").unwrap();
            if let Ok(url) = endpoint.url(&|_| Some(value.clone())) {
                proptest::prop_assert_eq!(url.host, format!("a.{value}.example"));
                proptest::prop_assert_eq!(url.path, format!("/x/{value}/keys"));
                proptest::prop_assert_eq!((url.https, url.port), (true, 8443));
            }
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "keys",
            "ftp://a/b",
            "https://",
            "https://u:p@a/b",
            "https://a/../b",
            "http:///x",
            "https://a/{{",
            "https://a/{{a b}}",
        ] {
            assert!(JwksEndpoint::read(text).is_err(), "{text}");
        }
        let names = JwksEndpoint::read("https://{{a}}/{{b}}/{{a}}").unwrap();
        assert_eq!(names.names().collect::<Vec<_>>(), ["a", "b", "a"]);
    }

    #[test]
    fn a_group_lists_its_values_or_it_does_not() {
        for list in ["a|b", r"auth\.eu\.example|auth\.us\.example", "(a|b)c|(?:d)", "", "^a$"] {
            assert!(lists_its_values(&format!("^https://(?P<t>{list})/.*$"), "t"), "{list}");
            assert!(lists_its_values(&format!("[(?P<t>]x(?<t>{list})"), "t"), "{list}");
        }
        for open in
            [".", "a+", "a?", "a*", "[ab]", r"\d", r"\w|a", "a{2}", "(?i:a)", "a|(.b)", r"\x41"]
        {
            assert!(!lists_its_values(&format!("(?P<t>{open})"), "t"), "{open}");
        }
        assert!(!lists_its_values("(?P<other>a)", "t"));
        assert!(!lists_its_values(r"\(?P<t>a)", "t"));
    }
}

//! Which pages may connect: the Origin header against `client.allowed_origins`.

/// Whether a page of this origin may connect. `allowed` are case-insensitive globs over the whole
/// value; `*` alone allows all.
pub(crate) fn is_allowed(allowed: &[String], origin: &str) -> bool {
    let origin = origin.to_ascii_lowercase();
    allowed
        .iter()
        .any(|pattern| matches(pattern.to_ascii_lowercase().as_bytes(), origin.as_bytes()))
}

/// Whether a host, as it stands in a Host or Origin header, is this machine's loopback.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an origin is a page served from loopback.
pub(crate) fn is_loopback_origin(origin: &str) -> bool {
    origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
        .is_some_and(is_loopback_host)
}

/// Glob match with `*` (any run) and `?` (one byte), in time proportional to the product.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // The last star takes one byte more.
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_cover_the_whole_origin_without_regard_to_case() {
        let allowed = |patterns: &[&str], origin: &str| {
            let patterns: Vec<String> = patterns.iter().map(|&each| each.to_owned()).collect();
            is_allowed(&patterns, origin)
        };
        assert!(allowed(&["https://*.Example.com"], "https://push.example.COM"));
        assert!(!allowed(&["https://*.example.com"], "https://example.com"));
        assert!(!allowed(&["https://example.com"], "https://example.com.evil.org"));
        assert!(allowed(&["*"], "null"));
        assert!(!allowed(&[], "https://example.com"));
        assert!(allowed(&["http://localhost:300?"], "http://localhost:3000"));
    }

    #[test]
    fn loopback_names_are_known_with_and_without_a_port() {
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:8000",
            "app.localhost",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["localhost.evil.org", "10.0.0.1", "example.com", "127.0.0.1.nip.io", ""] {
            assert!(!is_loopback_host(host), "{host}");
        }
        assert!(is_loopback_origin("http://localhost:8000"));
        assert!(!is_loopback_origin("null"));
    }
}

//! Chains of proxies, honest, forged and broken.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Who is the client, where 127.0.0.1 asks and 10.0.0.0/8 and fd00::/8 are trusted as well.
fn told(header: AddressHeader, lines: &[&str]) -> String {
    let mut headers = HeaderMap::new();
    for line in lines {
        let name: HeaderName = header.name().parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    let trusted = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]
        .map(|network| network.parse::<crate::config::Network>().unwrap());
    let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
    client(header, &headers, PEER, is_trusted).map_or("peer".to_owned(), |ip| ip.to_string())
}

#[test]
fn the_first_address_from_the_right_that_is_no_proxys_is_the_client() {
    for (lines, client) in [
        (&["203.0.113.7"][..], "203.0.113.7"),
        (&["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        (&["6.6.6.6, 203.0.113.7, 10.0.0.9"], "203.0.113.7"),
        (&["6.6.6.6, 203.0.113.7,10.0.0.9 ,\t10.0.0.8"], "203.0.113.7"),
        (&["6.6.6.6", "203.0.113.7", "10.0.0.9, 10.0.0.8"], "203.0.113.7"),
        (&["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
        (&[], "peer"),
        (&["2001:db8::1"], "2001:db8::1"),
        (&["[2001:db8::1]"], "2001:db8::1"),
        (&["[2001:db8::1]:4711, fd00::1"], "2001:db8::1"),
        (&["203.0.113.7:4711"], "203.0.113.7"),
        (&["::ffff:203.0.113.7"], "203.0.113.7"),
        (&["6.6.6.6, ::ffff:10.0.0.1"], "6.6.6.6"),
    ] {
        assert_eq!(told(AddressHeader::XForwardedFor, lines), client, "{lines:?}");
    }
}

#[test]
fn what_is_no_address_ends_the_walk_at_the_last_trusted_hop() {
    for (lines, client) in [
        (&["6.6.6.6, unknown"][..], "peer"),
        (&["6.6.6.6, unknown, 10.0.0.9"], "10.0.0.9"),
        (&["6.6.6.6,,10.0.0.9"], "10.0.0.9"),
        (&[""], "peer"),
        (&["6.6.6.6, "], "peer"),
        (&["6.6.6.6", "gr\u{fc}n"], "peer"),
        (&["203.0.113.7 6.6.6.6"], "peer"),
        (&["203.0.113.7:"], "peer"),
        (&["203.0.113.7:99999"], "peer"),
        (&["[203.0.113.7]"], "peer"),
        (&["[2001:db8::1"], "peer"),
        (&["fe80::1%eth0"], "peer"),
        (&["0.0.0.0"], "peer"),
        (&["6.6.6.6, gr\u{fc}n, 10.0.0.9"], "10.0.0.9"),
        (&["1.2.3"], "peer"),
        (&["01.2.3.4"], "peer"),
    ] {
        assert_eq!(told(AddressHeader::XForwardedFor, lines), client, "{lines:?}");
    }
    let long = vec!["10.0.0.1"; 1000].join(", ");
    assert_eq!(told(AddressHeader::XForwardedFor, &[&format!("6.6.6.6, {long}")]), "10.0.0.1");
}

#[test]
fn x_real_ip_is_one_address_or_none() {
    for (lines, client) in [
        (&["203.0.113.7"][..], "203.0.113.7"),
        (&["[2001:db8::1]"], "2001:db8::1"),
        (&["203.0.113.7", "6.6.6.6"], "peer"),
        (&["203.0.113.7, 6.6.6.6"], "peer"),
        (&["unknown"], "peer"),
        (&[], "peer"),
    ] {
        assert_eq!(told(AddressHeader::XRealIp, lines), client, "{lines:?}");
    }
}

#[test]
fn forwarded_is_read_as_rfc_7239_writes_it() {
    for (lines, client) in [
        (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
        (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
        (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
        (&["for=192.0.2.43 , for=10.0.0.1;by=_x"], "192.0.2.43"),
        (&["for=192.0.2.43", "proto=https; for=10.0.0.1"], "192.0.2.43"),
        (&["for=\"192.0.2.43:80\""], "192.0.2.43"),
        (&["for=\"192.0\\.2.43\""], "192.0.2.43"),
        (&["for=[2001:db8::1]:80"], "2001:db8::1"),
        (&["for=6.6.6.6;x=\"a,b;c\", for=10.0.0.1"], "6.6.6.6"),
        (&["for=192.0.2.43;;proto=http,,"], "192.0.2.43"),
        (&["for=6.6.6.6, for=_hidden, for=10.0.0.1"], "10.0.0.1"),
        (&["for=6.6.6.6, for=unknown"], "peer"),
        (&["for=6.6.6.6, proto=https"], "peer"),
        (&["for=6.6.6.6, for=\"_secret:_port\""], "peer"),
        (&[], "peer"),
    ] {
        assert_eq!(told(AddressHeader::Forwarded, lines), client, "{lines:?}");
    }
}

#[test]
fn a_forged_quote_cannot_swallow_what_a_proxy_appended() {
    for (line, client) in [
        ("for=6.6.6.6;x=\", for=203.0.113.7", "203.0.113.7"),
        ("for=6.6.6.6, for=\", for=\"[2001:db8::1]\"", "2001:db8::1"),
        ("for=6.6.6.6;x=\"\\, for=\"203.0.113.7:80\"", "203.0.113.7"),
        ("for=6.6.6.6;x=\", for=10.0.0.1", "10.0.0.1"),
        // And what a proxy quotes cannot be taken for an entry.
        ("for=203.0.113.7;host=\"x,for=6.6.6.6\"", "203.0.113.7"),
        ("for=203.0.113.7;host=\"x,for=6.6.6.6;x=\\\"\\\"\"", "203.0.113.7"),
        ("for=6.6.6.6;for=203.0.113.7", "peer"),
        ("for 6.6.6.6", "peer"),
        ("for=6.6.6.6 x", "peer"),
        ("=6.6.6.6", "peer"),
        ("for=", "peer"),
        ("for=\"", "peer"),
        ("for=\"\\", "peer"),
    ] {
        assert_eq!(told(AddressHeader::Forwarded, &[line]), client, "{line:?}");
    }
}

proptest! {
    /// Invariant NO-GUESS: whatever a stranger writes in front, the proxy's word is what counts.
    #[test]
    fn nothing_that_a_client_writes_in_front_changes_who_it_is(
        forged in prop::collection::vec("[ -~\u{e4}\u{1f600}]{0,60}", 0..4),
        last in "(for=|\"|,|;|=|\\\\|[0-9.]{1,7}|[ -~\u{e4}]){0,40}",
    ) {
        for (header, honest) in [
            (AddressHeader::Forwarded, "for=203.0.113.7"),
            (AddressHeader::Forwarded, "for=\"203.0.113.7:1\";proto=http"),
            (AddressHeader::XForwardedFor, "203.0.113.7"),
        ] {
            let mut lines: Vec<&str> = forged.iter().map(String::as_str).collect();
            let one_line = format!("{last}, {honest}");
            lines.push(&one_line);
            prop_assert_eq!(told(header, &lines), "203.0.113.7");
            *lines.last_mut().unwrap() = &last;
            lines.push(honest);
            prop_assert_eq!(told(header, &lines), "203.0.113.7");
        }
    }

    #[test]
    fn anything_is_read_without_panic(
        lines in prop::collection::vec("(for=|\"|,|;|=|\\\\|[0-9]{1,3}|\\.|:|\\[|\\]| |[a-z]){0,40}", 0..4),
    ) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        for header in [AddressHeader::XForwardedFor, AddressHeader::XRealIp, AddressHeader::Forwarded] {
            told(header, &lines);
        }
    }
}

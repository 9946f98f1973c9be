//! Headers as HAProxy writes them, and as nobody should.

use proptest::prelude::*;

use super::*;

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2_BEGIN, &[command, family], &length, rest].concat()
}

fn tcp4() -> Vec<u8> {
    vec![203, 0, 113, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb]
}

fn tcp6() -> Vec<u8> {
    let mut rest = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    rest.extend_from_slice(&[0; 16]);
    rest.extend_from_slice(&[0x12, 0x67, 0x01, 0xbb]);
    rest
}

/// Every header that is right, and what it says.
fn right() -> Vec<(Vec<u8>, &'static str)> {
    let additions = [tcp4(), vec![0x04, 0, 3, 1, 2, 3]].concat();
    let mapped = {
        let mut rest = tcp6();
        rest[..16].copy_from_slice(&"::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets());
        rest
    };
    vec![
        (b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 65535\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "itself"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), "itself"),
        (v2(0x21, 0x11, &tcp4()), "203.0.113.7"),
        (v2(0x21, 0x11, &additions), "203.0.113.7"),
        (v2(0x21, 0x21, &tcp6()), "2001:db8::7"),
        (v2(0x21, 0x21, &mapped), "192.0.2.1"),
        (v2(0x21, 0x00, &[]), "itself"),
        (v2(0x21, 0x31, &[0; 216]), "itself"),
        (v2(0x20, 0x00, &[]), "itself"),
        (v2(0x20, 0x11, &tcp4()), "itself"),
        (v2(0x21, 0x11, &[tcp4(), vec![0; 4084]].concat()), "203.0.113.7"),
    ]
}

fn shown(header: Header) -> String {
    match header.introduced {
        Introduced::Client(address) => address.to_string(),
        Introduced::Itself => "itself".to_owned(),
    }
}

#[test]
fn a_header_is_read_however_it_arrives_and_nothing_behind_it() {
    for (header, says) in right() {
        let input = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
        for end in 0..header.len() {
            let early = read(ProxyProtocol::Either, &input[..end]);
            assert_eq!(early, Ok(None), "{says} after {end} bytes");
        }
        for end in header.len()..=input.len() {
            let read = read(ProxyProtocol::Either, &input[..end]).unwrap().unwrap();
            assert_eq!((shown(read).as_str(), read.bytes), (says, header.len()));
        }
    }
}

#[test]
fn what_is_no_header_is_known_as_soon_as_it_can_be() {
    let read = |input: &[u8]| read(ProxyProtocol::Either, input);
    for (input, wrong) in [
        (&b"G"[..], Wrong::Missing),
        (b"PROXX", Wrong::Missing),
        (b"\r\n\r\n\0\r\nQUIT\r", Wrong::Missing),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", Wrong::Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", Wrong::Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", Wrong::Malformed),
        (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", Wrong::Malformed),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", Wrong::Malformed),
        (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", Wrong::Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", Wrong::Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", Wrong::Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n", Wrong::Malformed),
        (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", Wrong::Malformed),
        (b"PROXY \r\n", Wrong::Malformed),
        (b"PROXY \xff\r\n", Wrong::Malformed),
        (&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(), Wrong::TooLong),
        (&v2(0x11, 0x11, &tcp4()), Wrong::Malformed),
        (&v2(0x22, 0x11, &tcp4()), Wrong::Malformed),
        (&v2(0x21, 0x12, &tcp4()), Wrong::Malformed),
        (&v2(0x21, 0x41, &tcp4()), Wrong::Malformed),
        (&v2(0x21, 0x11, &tcp4()[..11]), Wrong::Malformed),
        (&v2(0x21, 0x21, &tcp4()), Wrong::Malformed),
        (&v2(0x21, 0x11, &[0; 4097])[..16], Wrong::TooLong),
    ] {
        assert_eq!(read(input), Err(wrong), "{}", input.escape_ascii());
    }
}

#[test]
fn the_version_that_is_off_is_refused() {
    let v1 = b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n";
    assert!(read(ProxyProtocol::V1, v1).is_ok());
    assert_eq!(read(ProxyProtocol::V2, v1), Err(Wrong::OtherVersion));
    assert_eq!(read(ProxyProtocol::V1, &v2(0x20, 0, &[])), Err(Wrong::OtherVersion));
    assert_eq!(read(ProxyProtocol::Off, v1), Err(Wrong::OtherVersion));
    assert_eq!(read(ProxyProtocol::V2, b"GET / HTTP/1.1\r\n"), Err(Wrong::Missing));
}

proptest! {
    #[test]
    fn anything_is_read_without_panic_and_never_waits_for_more_than_the_bound(
        v1_tail in prop::collection::vec(any::<u8>(), 0..300),
        v2_tail in prop::collection::vec(any::<u8>(), 0..6000),
    ) {
        for input in [[V1_BEGIN, &v1_tail].concat(), [V2_BEGIN, &v2_tail].concat(), v1_tail] {
            match read(ProxyProtocol::Either, &input) {
                Ok(Some(header)) => prop_assert!(header.bytes <= input.len().min(HEADER_BYTES_MAX)),
                Ok(None) => prop_assert!(input.len() < HEADER_BYTES_MAX),
                Err(_) => {}
            }
        }
    }

    /// Whoever reads piece by piece comes to the same end as whoever has it all.
    #[test]
    fn pieces_and_the_whole_say_the_same(at in 0..14_usize, flip in 0..60_usize, to: u8) {
        let (mut header, _) = right().swap_remove(at);
        if let Some(byte) = header.get_mut(flip) {
            *byte = to;
        }
        let whole = read(ProxyProtocol::Either, &header);
        let first = (0..=header.len())
            .map(|end| read(ProxyProtocol::Either, &header[..end]))
            .find(|step| *step != Ok(None));
        match first {
            Some(Err(_)) => prop_assert!(whole.is_err()),
            Some(step) => prop_assert_eq!(step, whole),
            None => prop_assert_eq!(whole, Ok(None)),
        }
    }
}

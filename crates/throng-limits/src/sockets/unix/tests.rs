use super::*;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(state: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![1, 1, state, 0];
    message.extend(4711_u32.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(attributes.concat());
    message
}

#[test]
fn a_listener_has_a_path_and_a_queue() {
    let queue = [2_u32.to_ne_bytes(), 5_u32.to_ne_bytes()].concat();
    let message = message(10, &[attribute(0, b"/run/app sock\0"), attribute(4, &queue)]);
    let expected = UnixRow {
        inode: 4711,
        listens: true,
        path: "/run/app sock".to_owned(),
        peer: 0,
        waiting: 2,
        backlog: Some(5),
    };
    assert_eq!(row(&message), Some(expected));
}

#[test]
fn an_abstract_name_begins_with_an_at() {
    let message = message(1, &[attribute(0, b"\0/tmp/x"), attribute(2, &9_u32.to_ne_bytes())]);
    let row = row(&message).unwrap();
    assert_eq!((row.path.as_str(), row.peer, row.backlog), ("@/tmp/x", 9, None));
}

#[test]
fn what_is_cut_short_is_no_row() {
    assert_eq!(row(&message(1, &[])[..15]), None);
    assert_eq!(row(&message(1, &[attribute(2, &[1, 2])])), None);
}

#[test]
fn the_kernels_text_has_paths_with_spaces() {
    let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000000000000: 00000002 00000000 00010000 0001 01    88 /run/a b.sock\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 53892\n\
        0000000000000000: garbage\n";
    let found: Vec<_> = rows(text).collect();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].inode, found[0].listens), (88, true));
    assert_eq!(found[0].path, "/run/a b.sock");
    assert_eq!((found[1].inode, found[1].listens, found[1].path.as_str()), (53_892, false, ""));
}

#[test]
fn what_a_copy_keeps_is_read_again() {
    let listener = UnixRow {
        inode: 1,
        listens: true,
        path: "/run/a b".to_owned(),
        peer: 0,
        waiting: 3,
        backlog: Some(128),
    };
    let connected = UnixRow { inode: 2, peer: 7, ..UnixRow::default() };
    let hostile =
        UnixRow { inode: 3, path: "/tmp/\n9 1 0 0 0 /x".to_owned(), ..UnixRow::default() };
    let found: Vec<_> = kept_rows(&kept(&[listener.clone(), connected.clone(), hostile])).collect();
    assert_eq!(found[..2], [listener, connected]);
    assert_eq!(found.len(), 3);
    assert_eq!(found[2].path, "/tmp/\u{fffd}9 1 0 0 0 /x");
}

proptest::proptest! {
    #[test]
    fn nothing_makes_it_panic(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        text in "(?s).{0,200}",
    ) {
        let _ = row(&bytes);
        let _ = (rows(&text).count(), kept_rows(&text).count());
    }
}

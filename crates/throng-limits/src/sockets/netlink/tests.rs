use super::*;

fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = framed(body, sequence).unwrap();
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message.resize(aligned(message.len()), 0);
    message
}

fn bodies(datagram: &[u8]) -> io::Result<(Vec<Vec<u8>>, bool)> {
    let mut bodies = Vec::new();
    let flow = read_datagram(datagram, 7, &mut |body| {
        bodies.push(body.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok((bodies, flow.is_break()))
}

#[test]
fn a_datagram_holds_several_messages_and_the_end() {
    let mut datagram = message(BY_FAMILY, 7, b"first");
    datagram.extend(message(BY_FAMILY, 7, b"second"));
    assert_eq!(bodies(&datagram).unwrap(), (vec![b"first".to_vec(), b"second".to_vec()], false));
    datagram.extend(message(DONE, 7, &[0; 4]));
    assert!(bodies(&datagram).unwrap().1);
}

#[test]
fn an_answer_to_an_earlier_question_is_passed_over() {
    assert_eq!(bodies(&message(BY_FAMILY, 6, b"old")).unwrap(), (vec![], false));
}

#[test]
fn an_error_of_the_kernel_is_an_error() {
    let denied = (-1_i32).to_ne_bytes();
    let error = bodies(&message(ERROR, 7, &denied)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let error = bodies(&message(DONE, 7, &i32::MIN.to_ne_bytes())).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(i32::MAX));
}

#[test]
fn lengths_that_lie_end_the_reading() {
    for length in [0_u32, 15, 17, u32::MAX] {
        let mut datagram = message(BY_FAMILY, 7, b"");
        datagram[..4].copy_from_slice(&length.to_ne_bytes());
        assert!(bodies(&datagram).is_err(), "{length}");
    }
    assert!(bodies(&[1, 2, 3]).is_err());
}

#[test]
fn attributes_end_where_their_lengths_make_no_sense() {
    let mut bytes = vec![5, 0, 9, 0, 42, 0, 0, 0];
    bytes.extend([3, 0, 1, 0]);
    let found: Vec<_> = attributes(&bytes).collect();
    assert_eq!(found, [(9, &[42_u8][..])]);
    assert_eq!(attributes(&[0, 0, 0]).count(), 0);
}

#[test]
fn this_kernel_answers() {
    let mut line = Line::open().unwrap();
    // Unix sockets: every machine has some once we make one.
    let _pair = std::os::unix::net::UnixStream::pair().unwrap();
    let mut request = [0_u8; 24];
    request[0] = 1;
    request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    let mut found = 0;
    line.dump(&request, |_| {
        found += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(found >= 2);
    // A family that does not exist.
    let error = line.dump(&[255; 24], |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.raw_os_error().is_some(), "{error}");
}

proptest::proptest! {
    #[test]
    fn no_datagram_makes_it_panic_or_go_round_for_ever(
        mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        length in 0_u32..64,
    ) {
        // Lengths that nearly fit are the ones that hurt.
        if let Some(first) = bytes.first_chunk_mut() {
            *first = length.to_ne_bytes();
        }
        bodies(&bytes).ok();
        attributes(&bytes).count();
    }
}

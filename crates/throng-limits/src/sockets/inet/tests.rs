use super::*;

/// What the kernel does with a filter (`inet_diag_bc_run`), and the checks it makes before.
fn accepts(program: &[u8], port: u16) -> bool {
    let mut at = 0;
    // Every round goes forward.
    while at < program.len() {
        let [code, yes, low, high] = program[at..at + 4] else { panic!("cut short") };
        let no = usize::from(u16::from_ne_bytes([low, high]));
        let yes = usize::from(yes);
        let left = program.len() - at;
        assert!(yes >= 4 && yes % 4 == 0 && yes <= left + 4, "yes: {yes} of {left}");
        assert!(no >= 4 && no % 4 == 0 && no <= left + 4, "no: {no} of {left}");
        let holds = match code {
            LOCAL_PORT_IS => u16::from_ne_bytes([program[at + 6], program[at + 7]]) == port,
            JUMP => false,
            other => panic!("operation {other}"),
        };
        at += if holds { yes } else { no };
    }
    at == program.len()
}

#[test]
fn a_filter_accepts_its_ports_and_no_others() {
    for ports in [&[80][..], &[80, 443], &[1, 2, 3, 65_535], &[8000; FILTER_PORTS_MAX]] {
        let program = filter(ports);
        for port in [0, 1, 2, 3, 79, 80, 443, 8000, 65_535] {
            assert_eq!(accepts(&program, port), ports.contains(&port), "{port} of {ports:?}");
        }
    }
    assert!(filter(&[]).is_empty());
}

#[test]
fn one_port_is_part_of_the_request_and_more_are_a_program() {
    let one = Question { local_ports: &[8000], ..Question::all(TCP) }.encode();
    assert_eq!((one.len(), &one[8..10]), (56, &8000_u16.to_be_bytes()[..]));
    let two = Question { local_ports: &[80, 443], ..Question::all(TCP) }.encode();
    assert_eq!(two[8..10], [0, 0]);
    assert_eq!(attributes(&two[56..]).next(), Some((BYTECODE, &filter(&[80, 443])[..])));
}

#[test]
fn a_protocol_beyond_a_byte_is_an_attribute() {
    let request = Question::all(MPTCP).encode();
    assert_eq!(request[..4], [V4, 0, 0, 0]);
    let found: Vec<_> = attributes(&request[56..]).collect();
    assert_eq!(found, [(PROTOCOL, &262_u32.to_ne_bytes()[..])]);
    assert_eq!(Question::all(TCP).encode().len(), 56);
}

fn message(family: u8, state: u8) -> Vec<u8> {
    let mut message = vec![0; MESSAGE_BYTES];
    message[..3].copy_from_slice(&[family, state, 2]);
    message[4..6].copy_from_slice(&8000_u16.to_be_bytes());
    message[6..8].copy_from_slice(&40_000_u16.to_be_bytes());
    message[8..12].copy_from_slice(&[127, 0, 0, 1]);
    message[24..28].copy_from_slice(&[10, 1, 2, 3]);
    message[56..60].copy_from_slice(&17_u32.to_ne_bytes());
    message[60..64].copy_from_slice(&16_u32.to_ne_bytes());
    message[64..68].copy_from_slice(&1000_u32.to_ne_bytes());
    message[68..72].copy_from_slice(&4711_u32.to_ne_bytes());
    message
}

#[test]
fn a_message_is_a_row() {
    let row = row(&message(V4, 1)).unwrap();
    assert_eq!(row.state, State::Established);
    assert_eq!(row.local, "127.0.0.1:8000".parse().unwrap());
    assert_eq!(row.peer, "10.1.2.3:40000".parse().unwrap());
    assert_eq!((row.receive_queue, row.send_queue), (17, 16));
    assert_eq!((row.uid, row.inode, row.timer), (1000, 4711, Timer::KeepAlive));
}

#[test]
fn a_client_of_ipv4_at_a_listener_of_ipv6_is_the_same_client() {
    let mut mapped = message(V6, 1);
    let ip = "10.1.2.3".parse::<Ipv4Addr>().unwrap().to_ipv6_mapped();
    mapped[24..40].copy_from_slice(&ip.octets());
    assert_eq!(row(&mapped).unwrap().peer, "10.1.2.3:40000".parse().unwrap());
}

#[test]
fn what_is_cut_short_or_unknown_is_no_row() {
    assert_eq!(row(&message(V4, 1)[..71]), None);
    assert_eq!(row(&message(1, 1)), None);
    assert_eq!(row(&message(V4, 99)), None);
    assert_eq!(row(&[]), None);
}

#[test]
fn silence_stands_in_an_attribute() {
    let mut message = message(V4, 1);
    assert_eq!(spoken(&message), None);
    let mut info = vec![0; 136];
    for (at, value) in [(24, 3_u32), (44, 100), (52, 200), (56, 300)] {
        info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    info[128..136].copy_from_slice(&9_u64.to_ne_bytes());
    attach(&mut message, INFO, &info);
    let whole = Spoken {
        sent_ms: 100,
        received_ms: 200,
        heard_ms: 300,
        unacked: 3,
        bytes_received: Some(9),
    };
    assert_eq!(spoken(&message), Some(whole));
    // An older kernel says less.
    message.truncate(MESSAGE_BYTES);
    attach(&mut message, INFO, &info[..104]);
    assert_eq!(spoken(&message), Some(Spoken { bytes_received: None, ..whole }));
    message.truncate(MESSAGE_BYTES);
    attach(&mut message, INFO, &info[..40]);
    assert_eq!(spoken(&message), None);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let _ = (row(&bytes), spoken(&bytes), attributes(&bytes).count());
    }
}

use std::fs::File;
use std::net::{TcpListener, TcpStream};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

fn pair() -> (Channel, Channel) {
    let (one, other) = Channel::pair().unwrap();
    (one, Channel::new(other))
}

#[test]
fn a_message_comes_with_its_descriptors_and_they_do_not_survive_an_exec() {
    let (one, other) = pair();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let cookie = rustix::net::sockopt::socket_cookie(&listener).unwrap();
    one.send(&vec![cookie], &[listener.as_fd()], soon()).unwrap();
    let (cookies, descriptors): (Vec<u64>, _) = other.receive(soon()).unwrap();
    assert_eq!(descriptors.len(), 1);
    assert_eq!(rustix::net::sockopt::socket_cookie(&descriptors[0]).unwrap(), cookies[0]);
    let flags = rustix::io::fcntl_getfd(&descriptors[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    // It is the same socket: who connects to it is accepted through the duplicate.
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    TcpListener::from(descriptors.into_iter().next().unwrap()).accept().unwrap();
}

#[test]
fn as_many_descriptors_as_the_kernel_takes_arrive_and_are_counted() {
    let (one, other) = pair();
    let files: Vec<File> = (0..DESCRIPTORS_MAX).map(|_| File::open("/dev/null").unwrap()).collect();
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    one.send(&files.len(), &borrowed, soon()).unwrap();
    let (count, descriptors): (usize, _) = other.receive(soon()).unwrap();
    assert_eq!((count, descriptors.len()), (DESCRIPTORS_MAX, DESCRIPTORS_MAX));
}

#[test]
fn the_end_of_the_other_process_is_told_from_its_silence() {
    let (one, other) = pair();
    let silent = other.receive::<u8>(Deadline::after(Duration::from_millis(1)));
    assert!(matches!(silent, Err(ChannelError::Silent(_))), "{silent:?}");
    drop(one);
    let gone = other.receive::<u8>(soon());
    assert!(matches!(gone, Err(ChannelError::Gone)), "{gone:?}");
    let gone = other.send(&1, &[], soon());
    assert!(matches!(gone, Err(ChannelError::Gone)), "{gone:?}");
}

#[test]
fn a_message_that_is_none_is_refused_with_the_reason() {
    let (one, other) = pair();
    one.send(&"words", &[], soon()).unwrap();
    let error = other.receive::<u64>(soon()).unwrap_err().to_string();
    assert!(error.contains("not readable") && error.contains("words"), "{error}");
}

#[test]
fn a_sealed_state_cannot_be_changed_and_is_read_whole() {
    let file = sealed("state", &[b"one ", b"two"]).unwrap();
    let mut writable = File::from(file.try_clone().unwrap());
    assert!(writable.write_all(b"x").is_err());
    assert_eq!(unsealed(file).unwrap(), b"one two");
    let open = memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    assert!(unsealed(open).unwrap_err().to_string().contains("not sealed"));
}

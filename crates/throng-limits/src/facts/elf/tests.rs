use proptest::prelude::*;

use super::*;

#[test]
fn a_program_of_this_machine_imports_what_every_program_does() {
    let own = Path::new("/proc/self/exe");
    assert_eq!(imports(own, &["read", "write"]), Some(true));
    assert_eq!(imports(own, &["no_such_function_anywhere"]), Some(false));
}

#[test]
fn what_is_no_program_is_not_guessed_at() {
    assert_eq!(imports(Path::new("/etc/passwd"), &["select"]), None);
    assert_eq!(imports(Path::new("/dev/zero"), &["select"]), None);
    assert_eq!(imports(Path::new("/nowhere"), &["select"]), None);
    assert_eq!(imported(&Source::Bytes(b"\x7fELF\x02\x01"), &["select"]), None);
}

proptest! {
    #[test]
    fn no_bytes_break_it(mut bytes in proptest::collection::vec(any::<u8>(), 64..600)) {
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[40..48].copy_from_slice(&64_u64.to_le_bytes());
        bytes[58..60].copy_from_slice(&64_u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&4_u16.to_le_bytes());
        let _: Option<bool> = imported(&Source::Bytes(&bytes), &["select"]);
    }
}

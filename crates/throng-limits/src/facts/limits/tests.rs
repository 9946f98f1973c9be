use super::*;

const SSH_SESSION: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max processes             95703                95703                processes
Max open files            1024                 1048576              files
Max locked memory         8388608              8388608              bytes
";

#[test]
fn finds_the_row_of_open_files() {
    assert_eq!(parse_open_files(SSH_SESSION), Some(OpenFiles { soft: 1024, hard: 1_048_576 }));
}

#[test]
fn unlimited_is_a_limit_too() {
    let text = "Max open files            65536                unlimited            files\n";
    let limits = parse_open_files(text).unwrap();
    assert_eq!(limits, OpenFiles { soft: 65_536, hard: UNLIMITED });
    assert_eq!(limits.to_string(), "65536 (hard unlimited)");
}

#[test]
fn a_text_without_the_row_is_no_limit() {
    assert_eq!(parse_open_files("Max open streams 1 2\n"), None);
    assert_eq!(parse_open_files("Max open files  many  1024 files\n"), None);
}

#[test]
fn the_own_limit_is_what_proc_says() {
    assert_eq!(OpenFiles::own(), OpenFiles::of(std::process::id()).unwrap());
}

#[test]
fn own_descriptors_cover_what_is_held() {
    let held: Vec<_> = (0..10).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    assert!(own_descriptors().unwrap() >= 10);
    drop(held);
}

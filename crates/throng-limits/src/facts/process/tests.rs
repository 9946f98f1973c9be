use super::*;

#[test]
fn resident_sizes_are_bytes() {
    let text = "Name:\tserver\nVmPeak:\t  4000 kB\nVmRSS:\t  2048 kB\nRssAnon:\t  1024 kB\n";
    assert_eq!(parse_memory(text), Some(Memory { resident: 2 << 20, anonymous: 1 << 20 }));
}

#[test]
fn a_kernel_thread_has_no_memory() {
    assert_eq!(parse_memory("Name:\tkworker/0:1\nThreads:\t1\n"), None);
}

#[test]
fn schedstat_begins_with_nanoseconds() {
    let text = "2304919104 51249023 8812\n";
    assert_eq!(parse_schedstat(text), Some(Duration::from_nanos(2_304_919_104)));
    assert_eq!(parse_schedstat(""), None);
}

#[test]
fn a_name_with_parentheses_does_not_shift_the_fields() {
    let text = "71 (a) (b c) S 1 71 71 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 4 0 100\n";
    assert_eq!(parse_stat(text), Some(Duration::from_secs(3)));
}

#[test]
fn this_process_uses_something() {
    let pid = std::process::id();
    assert!(memory(pid).unwrap().resident > 0);
    assert!(cpu_time(pid).unwrap() > Duration::ZERO);
    assert!(descriptors(pid).unwrap() > 2);
    assert!(ticked_time(pid).is_ok());
}

#[test]
fn a_process_that_is_gone_is_an_error_that_names_the_file() {
    let error = memory(u32::MAX).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /proc/4294967295/status"), "{error}");
}

//! Whatever stands in the files of a machine, nothing ends the diagnosis but its own words.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// Files that a stranger may have written, or that were cut off.
const FILES: [&str; 14] = [
    "proc/9/cgroup",
    "proc/9/environ",
    "proc/9/status",
    "proc/9/stat",
    "proc/9/cmdline",
    "proc/8/comm",
    "proc/sys/fs/nr_open",
    "root/etc/passwd",
    "root/etc/security/limits.conf",
    "root/etc/pam.d/sshd",
    "root/etc/ssh/sshd_config",
    "root/etc/systemd/system/push.service",
    "root/etc/supervisord.conf",
    "root/etc/docker/daemon.json",
];
/// Words from which such files are made, so that chance reaches beyond the first line.
const WORDS: &str = "(nofile|soft|hard|-|@|%|:|\\*|é|\u{feff}|[0-9]{1,21}|session|required|@include |sshd|pam_limits.so|/|\
                     \\[Service\\]|\\[supervisord\\]|LimitNOFILE=|minfds=|infinity|,|\\{|\\}|\"RLIMIT_NOFILE\"|\"soft\":|\
                     0::/system.slice/|push.service|docker-|\n| |\t|#|=|\0|alice|root|PPid:\t8|Uid:\t)";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_file_ends_the_diagnosis(texts in proptest::collection::vec(proptest::collection::vec(WORDS, 0..30), FILES.len())) {
        let machine = Machine::new();
        machine.put("proc/9/limits", "Max open files            1024  4096  files\n");
        machine.put("proc/8/limits", "Max open files            1024  4096  files\n");
        for (file, words) in FILES.iter().zip(&texts) {
            machine.put(file, &words.concat());
        }
        let tree = Tree::at(machine.0.join("proc"), machine.0.join("root"));
        let origin = Origin::read(&tree, 9).unwrap();
        let told = origin.tell(65_536);
        prop_assert!(told.chars().all(|c| c == '\n' || !c.is_control()), "{told:?}");
        prop_assert!(origin.why_not(65_535).contains("65535"));
    }
}

#[test]
fn a_process_that_is_gone_is_an_error_that_names_its_file() {
    let error = Origin::read(&Tree::live(), u32::MAX).unwrap_err();
    assert!(error.is_gone() && error.to_string().contains("/limits"), "{error}");
}

/// A directory of its own, gone afterwards.
struct Machine(PathBuf);

impl Machine {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("throng-origin-{}", std::process::id()));
        Self(dir)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok(); // the next run makes another
    }
}

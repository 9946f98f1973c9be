//! Who set a limit, on machines that were written down: each says what is true of it.

use std::fs;

use throng_limits::origin::Origin;

use crate::tree::{Machine, directory, read};

/// The process that every tree is about.
const PID: u32 = 4121;
/// What its operator wants.
const WANTED: u64 = 65_536;

/// Compares with the text beside each tree. With `THRONG_BLESS=1` the texts are written anew, to be
/// read before they are committed.
#[test]
fn every_tree_is_told_as_the_text_beside_it_says() {
    let bless = std::env::var_os("THRONG_BLESS").is_some();
    let mut wrong = Vec::new();
    for name in names() {
        let machine = Machine::compose(&read(&name, "tree"));
        let told = Origin::read(&machine.tree(), PID).unwrap().tell(WANTED);
        let beside = directory().join(format!("{name}.origin.txt"));
        if bless {
            fs::write(&beside, &told).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if told != expected {
            wrong.push(format!("== {name}\n-- expected\n{expected}-- told\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The trees of this test, by name.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(directory()).unwrap();
    let mut names: Vec<_> = entries
        .filter_map(|entry| {
            Some(entry.unwrap().file_name().to_str()?.strip_suffix(".tree")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

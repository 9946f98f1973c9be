use super::*;

#[test]
fn goes_to_the_hard_limit_and_no_further_than_the_cap() {
    assert_eq!(wanted_soft(OpenFiles { soft: 1024, hard: 20_000 }), 20_000);
    assert_eq!(wanted_soft(OpenFiles { soft: 1024, hard: UNLIMITED }), OPEN_FILES_MAX);
}

#[test]
fn never_lowers() {
    let generous = OpenFiles { soft: 1 << 22, hard: 1 << 22 };
    assert_eq!(wanted_soft(generous), generous.soft);
    assert_eq!(wanted_soft(OpenFiles { soft: UNLIMITED, hard: UNLIMITED }), UNLIMITED);
}

#[test]
fn says_what_was_and_what_is() {
    let was = OpenFiles { soft: 1024, hard: 20_000 };
    let is = OpenFiles { soft: 20_000, hard: 20_000 };
    let raised = Raised { was, is };
    assert_eq!(raised.to_string(), "limit on open files: 20000 (hard 20000), raised from 1024");
    assert_eq!(Raised { was: is, is }.to_string(), "limit on open files: 20000 (hard 20000)");
}

#[test]
fn the_own_limit_is_where_it_was_wanted() {
    let raised = raise_open_files().unwrap();
    assert_eq!(raised.is.soft, wanted_soft(raised.was));
}

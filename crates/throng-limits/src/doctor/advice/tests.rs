use super::*;
use crate::facts::identity::Rights;

fn command(facts: &Facts) -> Option<String> {
    live(facts).command
}

#[test]
fn root_raises_at_once_and_the_supervisor_too() {
    let mut facts = Facts::example();
    assert_eq!(command(&facts).unwrap(), "throng doctor 4121 --raise 65536");
    facts.origin.supervisor =
        Some(crate::doctor::finding::Supervisor { pid: 812, name: "supervisord".to_owned() });
    assert_eq!(command(&facts).unwrap(), "throng doctor 4121 --raise 65536 --with-parent");
}

#[test]
fn who_owns_the_process_needs_no_sudo_within_the_hard_limit() {
    let mut facts = Facts::example();
    facts.caller.rights = Rights(0);
    facts.caller.uid = 1000;
    assert_eq!(command(&facts).unwrap(), "throng doctor 4121 --raise 65536");
    facts.limit.hard = 4096;
    assert_eq!(command(&facts).unwrap(), "sudo throng doctor 4121 --raise 65536");
    facts.caller.uid = 1001;
    facts.limit.hard = 524_288;
    assert_eq!(command(&facts).unwrap(), "sudo throng doctor 4121 --raise 65536");
}

#[test]
fn root_without_the_capability_goes_to_the_hard_limit() {
    let mut facts = Facts::example();
    facts.caller.rights = Rights(0);
    facts.who.user = crate::facts::identity::Ids::default();
    facts.limit.hard = 20_000;
    assert_eq!(command(&facts).unwrap(), "throng doctor 4121 --raise 20000");
    // And what is for good asks for no more either, unless more is needed.
    assert_eq!(wanted_limit(&facts), 20_000);
    facts.need = Some(30_000);
    assert_eq!(wanted_limit(&facts), 65_536);
    facts.need = None;
    facts.limit.hard = 1024;
    assert!(live(&facts).note.contains("ask on the host"));
}

#[test]
fn a_program_that_waits_in_select_is_never_raised() {
    let mut facts = Facts::example();
    facts.select = Select::Proven { at: "/proc/4121/syscall".to_owned() };
    assert_eq!(command(&facts), None);
    assert!(breaks_select(&facts, 1025) && !breaks_select(&facts, 1024));
    facts.select = Select::Imported;
    assert!(command(&facts).is_some());
}

#[test]
fn enough_for_those_wanted_and_never_above_nr_open() {
    let mut facts = Facts::example();
    assert_eq!(wanted_limit(&facts), RAISED);
    facts.need = Some(100_000);
    assert_eq!(wanted_limit(&facts), 131_072);
    facts.need = Some(u64::MAX);
    assert_eq!(wanted_limit(&facts), 1_048_576);
    facts.kernel.nr_open = Some(1024);
    assert_eq!(command(&facts), None);
    assert!(live(&facts).note.contains("fs.nr_open"));
}

use super::*;

#[test]
fn the_lowest_bound_is_the_ceiling() {
    let ceiling = |descriptors, bound| Ceiling { descriptors, bound };
    assert_eq!(Ceiling::lowest(1024, 1 << 20, u64::MAX), ceiling(1024, Bound::OpenFiles));
    assert_eq!(Ceiling::lowest(200_000, 65_536, u64::MAX), ceiling(65_536, Bound::NrOpen));
    assert_eq!(Ceiling::lowest(1024, 1 << 20, 300), ceiling(300, Bound::FileMax));
    assert_eq!(Ceiling::lowest(1024, 1024, 1024), ceiling(1024, Bound::OpenFiles));
}

#[test]
fn this_process_has_a_ceiling_and_an_origin() {
    let limit = OpenFiles::own();
    let proc = Path::new("/proc");
    let ceiling = Ceiling::read(proc, limit, 10);
    assert!(ceiling.descriptors > 10 && ceiling.descriptors <= limit.soft);
    let origin = Origin::read(proc, std::process::id(), limit, ceiling.bound);
    assert!(!origin.to_string().is_empty() && !origin.fix(1).is_empty());
}

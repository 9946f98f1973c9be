use super::{Given, Partition, Seats};
use crate::publication::ChannelName;
use crate::random::Random;

use foldhash::fast::FixedState;

#[test]
fn seats_are_counted_by_mailbox() {
    let mut partition = Partition::new(0, 1, &FixedState::default());
    let news = ChannelName::from("news");
    let mut model = [0u32; 5];
    let mut random = Random::new(1);
    for _ in 0..2_000 {
        let mailbox = usize::try_from(random.next() % 5).unwrap();
        if random.next().is_multiple_of(2) {
            partition.take_seat(&news, u16::try_from(mailbox).unwrap());
            model[mailbox] += 1;
        } else {
            let given = partition.give_seat("news", u16::try_from(mailbox).unwrap());
            let wanted = match (model[mailbox], model.iter().sum::<u32>()) {
                (0, _) => Given::NoSeat,
                (_, 1) => Given::LastSeat,
                _ => Given::Seat,
            };
            assert_eq!(given, wanted);
            model[mailbox] = model[mailbox].saturating_sub(1);
        }
        let seated: Vec<u16> = partition
            .channel("news")
            .map_or_else(Vec::new, |(_, one)| one.seats.mailboxes().collect());
        let wanted = (0..5u16).filter(|at| model[usize::from(*at)] > 0);
        assert!(wanted.eq(seated), "sorted, and each once");
        assert_eq!(partition.audience("news"), model.iter().sum());
        assert_eq!(partition.subscription_count(), model.iter().sum::<u32>() as usize);
    }
}

#[test]
fn the_name_is_shared_by_all_who_take_a_seat() {
    let mut partition = Partition::new(0, 1, &FixedState::default());
    let first = partition.take_seat(&"news".into(), 0);
    let second = partition.take_seat(&"news".into(), 1);
    assert!(ChannelName::ptr_eq(&first, &second));
}

#[test]
fn seats_are_small() {
    assert_eq!(size_of::<Seats>(), 16);
    assert_eq!(size_of::<super::Channel>(), 24);
}

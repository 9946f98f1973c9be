//! Random clients, backends, brokers and clocks, all from a seed: nothing that can be said, in any
//! order, breaks a rule of the protocol, panics, or leaves anything behind.
//!
//! `THRONG_FUZZ_SEED` runs one seed, `THRONG_FUZZ_SECONDS` runs fresh ones for so long. What fails is
//! cut down to the few happenings that are needed for it, and printed.

mod client;
mod hear;
mod scene;
mod words;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::scene::KINDS;
use self::world::{Happening, World};
use crate::rng::{Rng, system_seed};

/// Happenings of one run.
const HAPPENINGS: u32 = 600;
/// Runs of a test: the same ones always, and fresh ones.
const SEEDS: std::ops::Range<u64> = 0..24;
const FRESH: usize = 4;

#[test]
fn nothing_that_clients_say_breaks_a_rule() {
    let number =
        |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    if let Some(seed) = number("THRONG_FUZZ_SEED") {
        return run(seed);
    }
    match number("THRONG_FUZZ_SECONDS") {
        None => {
            SEEDS.for_each(run);
            (0..FRESH).for_each(|_| run(system_seed()));
        }
        Some(seconds) => {
            let began = Instant::now();
            let mut runs = 0_u64;
            while began.elapsed() < Duration::from_secs(seconds) {
                run(system_seed());
                runs += 1;
            }
            println!("{runs} runs");
        }
    }
}

/// Runs one seed, twice: the same happenings have the same outcome.
fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let kind = rng.below(2 * KINDS);
    let happenings: Vec<Happening> = (0..HAPPENINGS).map(|_| Happening::any(&mut rng)).collect();
    let again = |happenings: &[Happening]| {
        catch_unwind(AssertUnwindSafe(|| {
            let first = live(kind, 1, happenings);
            assert_eq!(first, live(kind, 2, happenings), "the same happenings end otherwise");
        }))
    };
    if again(&happenings).is_ok() {
        return;
    }
    println!("seed {seed} fails; what is needed for it:");
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let needed = shrink(happenings, |fewer| again(fewer).is_err());
    std::panic::set_hook(silent);
    for happening in &needed {
        println!("  {happening:?}");
    }
    println!("THRONG_FUZZ_SEED={seed} runs it again, in a world of kind {kind}");
    live(kind, 1, &needed);
    live(kind, 2, &needed);
    panic!("the same happenings end otherwise");
}

/// The life of one world; what sums it up.
fn live(kind: u32, hash: u64, happenings: &[Happening]) -> u64 {
    let mut world = World::new(kind, hash);
    for happening in happenings {
        world.happens(*happening);
    }
    world.ends(&mut Rng::new(7))
}

/// The same happenings without those that the failure does not need.
fn shrink(mut all: Vec<Happening>, fails: impl Fn(&[Happening]) -> bool) -> Vec<Happening> {
    let mut piece = all.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < all.len() {
            let mut fewer = all.clone();
            fewer.drain(at..(at + piece).min(all.len()));
            if fails(&fewer) {
                all = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    all
}

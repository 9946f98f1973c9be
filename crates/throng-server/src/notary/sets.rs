//! Sets of public keys that were fetched, and who waits for one.
//!
//! Keys are used for five minutes without a question, then fetched again beside; after an hour a
//! token waits for the answer. While their place fails they go on to be used, for a day. A place is
//! asked at most once in ten seconds, whatever tokens say, and by one question at a time. A key that is
//! not known may be new: its token waits for the next question if that is near, else its client is to
//! come again.
//!
//! Invariant PURE: the time is passed in, and what is to be fetched is given back.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::KeysUrl;
use crate::token::{KeySet, SetKey};

/// The least time between two questions to one place.
pub(super) const PAUSE_MS: u64 = 10_000;
/// How long a token may wait for a question to begin: with the answer it stays below what clients
/// have for connecting (`client.stale_close_delay`).
const NEAR_MS: u64 = 3000;
/// Keys are younger than this, or fetched again while they are used.
const FRESH_MS: u64 = 5 * 60_000;
/// Keys older than this are not used before their place was asked.
const OLD_MS: u64 = 60 * 60_000;
/// Keys older than this are not used, whatever their place says.
const STALE_MS: u64 = 24 * 60 * 60_000;
/// Places that are remembered. Most have one, and tokens choose among those that the configuration
/// lists.
const PLACES_MAX: usize = 256;

/// The sets of all places.
#[derive(Debug)]
pub(super) struct Sets<W> {
    places: HashMap<Arc<KeysUrl>, Place<W>>,
    /// Counts uses: the place used longest ago is forgotten first.
    uses: u64,
}

#[derive(Debug)]
struct Place<W> {
    /// The last set, and when it came.
    set: Option<(KeySet, u64)>,
    /// When the last question began, or will begin.
    asked_ms: Option<u64>,
    /// A question is planned or under way.
    is_asked: bool,
    /// What the last question came to, where that is nothing.
    failed: Option<Box<str>>,
    waiting: Vec<(Box<str>, W)>,
    used: u64,
}

/// What became of a search.
#[derive(Debug)]
pub(super) enum Found<W> {
    Key(Arc<SetKey>, W),
    /// It is in [`Landed`] one day.
    Waits,
    Refused(Refusal, W),
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The place has none of this id.
    Unknown,
    /// The place had none of this id, and is not asked again for so many seconds.
    NotYet(u64),
    /// The place does not answer, for this reason.
    Unreachable(Box<str>),
    /// As many places are asked as may be.
    Full,
}

/// A question to be put after so many milliseconds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    pub(super) url: Arc<KeysUrl>,
    pub(super) delay_ms: u64,
}

/// Who waited, and what for.
pub(super) type Landed<W> = Vec<(W, Result<Arc<SetKey>, Refusal>)>;

impl<W> Default for Sets<W> {
    fn default() -> Self {
        Self { places: HashMap::new(), uses: 0 }
    }
}

impl<W> Sets<W> {
    /// Looks for a key; what must be fetched for it, if anything.
    pub(super) fn find(
        &mut self,
        url: KeysUrl,
        kid: &str,
        who: W,
        now_ms: u64,
    ) -> (Found<W>, Option<Fetch>) {
        self.uses += 1;
        let url = match self.places.get_key_value(&url) {
            Some((url, _)) => Arc::clone(url),
            None => {
                if self.places.len() >= PLACES_MAX && !self.forget_one() {
                    return (Found::Refused(Refusal::Full, who), None);
                }
                Arc::new(url)
            }
        };
        let place = self.places.entry(Arc::clone(&url)).or_insert_with(Place::new);
        place.used = self.uses;
        place.find(&url, kid, who, now_ms)
    }

    /// Forgets the place used longest ago that nobody waits for, those without keys first.
    fn forget_one(&mut self) -> bool {
        let idle = self.places.iter().filter(|(_, place)| !place.is_asked);
        let oldest = idle.min_by_key(|(_, place)| (place.set.is_some(), place.used));
        let Some(url) = oldest.map(|(url, _)| Arc::clone(url)) else { return false };
        self.places.remove(&url).is_some()
    }

    /// A question has been answered, or came to nothing.
    pub(super) fn landed(
        &mut self,
        url: &Arc<KeysUrl>,
        answer: Result<KeySet, String>,
        now_ms: u64,
    ) -> Landed<W> {
        // Places that are asked are not forgotten.
        let Some(place) = self.places.get_mut(url) else { return Vec::new() };
        place.is_asked = false;
        match answer {
            Ok(set) => {
                place.set = Some((set, now_ms));
                place.failed = None;
            }
            Err(why) => place.failed = Some(why.into()),
        }
        let waiting = std::mem::take(&mut place.waiting);
        let found = |(kid, who): (Box<str>, W)| (who, place.settled(&kid, now_ms));
        waiting.into_iter().map(found).collect()
    }

    /// How many places are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

impl<W> Place<W> {
    fn new() -> Self {
        Self {
            set: None,
            asked_ms: None,
            is_asked: false,
            failed: None,
            waiting: Vec::new(),
            used: 0,
        }
    }

    fn find(
        &mut self,
        url: &Arc<KeysUrl>,
        kid: &str,
        who: W,
        now_ms: u64,
    ) -> (Found<W>, Option<Fetch>) {
        if let Some((key, age_ms)) = self.known(kid, now_ms)
            && (age_ms < OLD_MS || self.failed.is_some())
        {
            let again = age_ms >= FRESH_MS && self.delay_ms(now_ms) == 0;
            return (Found::Key(key, who), again.then(|| self.ask(url, now_ms)).flatten());
        }
        let delay_ms = self.delay_ms(now_ms);
        // A place that has just failed is not waited for: the client may come again.
        if let Some(why) = self.failed.clone().filter(|_| delay_ms > 0 && !self.is_asked) {
            return (Found::Refused(Refusal::Unreachable(why), who), None);
        }
        if delay_ms > NEAR_MS && !self.is_asked {
            return (Found::Refused(Refusal::NotYet(delay_ms.div_ceil(1000)), who), None);
        }
        self.waiting.push((kid.into(), who));
        (Found::Waits, self.ask(url, now_ms))
    }

    /// A key that may still be used, and how old its set is.
    fn known(&self, kid: &str, now_ms: u64) -> Option<(Arc<SetKey>, u64)> {
        let (set, since_ms) = self.set.as_ref()?;
        let age_ms = now_ms.saturating_sub(*since_ms);
        let key = set.get(kid).filter(|_| age_ms < STALE_MS)?;
        Some((Arc::clone(key), age_ms))
    }

    fn settled(&self, kid: &str, now_ms: u64) -> Result<Arc<SetKey>, Refusal> {
        match (self.known(kid, now_ms), &self.failed) {
            (Some((key, _)), _) => Ok(key),
            (None, Some(why)) => Err(Refusal::Unreachable(why.clone())),
            (None, None) => Err(Refusal::Unknown),
        }
    }

    /// Until the place may be asked again.
    fn delay_ms(&self, now_ms: u64) -> u64 {
        let since_ms = self.asked_ms.map_or(u64::MAX, |asked| now_ms.saturating_sub(asked));
        PAUSE_MS.saturating_sub(since_ms)
    }

    fn ask(&mut self, url: &Arc<KeysUrl>, now_ms: u64) -> Option<Fetch> {
        if self.is_asked {
            return None;
        }
        let delay_ms = self.delay_ms(now_ms);
        self.is_asked = true;
        self.asked_ms = Some(now_ms.saturating_add(delay_ms));
        Some(Fetch { url: Arc::clone(url), delay_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JwksEndpoint;

    const SET: &[u8] = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn url(tenant: usize) -> KeysUrl {
        let value = |_: &str| Some(format!("t{tenant}"));
        JwksEndpoint::read_for_tests("https://a.example/{{t}}").url(&value).unwrap()
    }

    fn set() -> KeySet {
        KeySet::read(SET).unwrap()
    }

    struct Hand {
        sets: Sets<u32>,
        now_ms: u64,
        /// Questions that are due at these times.
        asked: Vec<(Arc<KeysUrl>, u64)>,
        last: u32,
    }

    impl Hand {
        fn new() -> Self {
            Self { sets: Sets::default(), now_ms: 1_000_000, asked: Vec::new(), last: 0 }
        }

        fn find(&mut self, kid: &str) -> Found<u32> {
            self.last += 1;
            let (found, fetch) = self.sets.find(url(0), kid, self.last, self.now_ms);
            self.asked.extend(fetch.map(|fetch| (fetch.url, self.now_ms + fetch.delay_ms)));
            found
        }

        fn land(&mut self, answer: Result<KeySet, String>) -> Landed<u32> {
            let (url, at_ms) = self.asked.remove(0);
            assert!(self.asked.is_empty(), "one question at a time");
            self.now_ms = self.now_ms.max(at_ms);
            self.sets.landed(&url, answer, self.now_ms)
        }
    }

    fn is_key<W>(found: &Found<W>) -> bool {
        matches!(found, Found::Key(..))
    }

    #[test]
    fn all_who_come_first_wait_for_one_question() {
        let mut hand = Hand::new();
        for kid in ["one", "one", "two"] {
            assert!(matches!(hand.find(kid), Found::Waits));
        }
        assert_eq!(hand.asked.len(), 1);
        let landed = hand.land(Ok(set()));
        let known: Vec<_> = landed.iter().map(|(who, key)| (*who, key.is_ok())).collect();
        assert_eq!(known, [(1, true), (2, true), (3, false)]);
        assert_eq!(landed[2].1.as_ref().unwrap_err(), &Refusal::Unknown);
        assert!(is_key(&hand.find("one")));
        assert!(hand.asked.is_empty());
    }

    #[test]
    fn a_flood_of_unknown_keys_asks_once_in_ten_seconds() {
        let mut hand = Hand::new();
        hand.find("one");
        hand.land(Ok(set()));
        let begun = hand.now_ms;
        let mut questions = 0;
        // A minute, a thousand tokens a second.
        for tick in 0..60_000 {
            hand.now_ms = begun + tick;
            let since = tick % PAUSE_MS;
            let near = since >= PAUSE_MS - NEAR_MS || (since == 0 && tick > 0);
            match hand.find(&format!("forged {tick}")) {
                Found::Waits => assert!(near, "{tick}"),
                Found::Refused(Refusal::NotYet(seconds), _) => {
                    assert!(!near && (4..=10).contains(&seconds), "{tick} {seconds}");
                }
                other => panic!("{other:?}"),
            }
            assert!(is_key(&hand.find("one")));
            if hand.asked.first().is_some_and(|(_, at_ms)| *at_ms <= hand.now_ms) {
                questions += 1;
                assert!(hand.land(Ok(set())).iter().all(|(_, key)| key.is_err()));
            }
        }
        assert_eq!(questions, 5, "at 10, 20, 30, 40 and 50 seconds");
    }

    #[test]
    fn a_new_key_is_found_although_the_place_was_just_asked() {
        let mut hand = Hand::new();
        hand.find("one");
        hand.land(Ok(KeySet::default()));
        hand.now_ms += 3000;
        assert!(matches!(hand.find("one"), Found::Refused(Refusal::NotYet(7), _)));
        assert!(hand.asked.is_empty());
        hand.now_ms += 4500;
        assert!(matches!(hand.find("one"), Found::Waits));
        let before = hand.now_ms;
        assert!(hand.land(Ok(set()))[0].1.is_ok());
        assert_eq!(hand.now_ms - before, PAUSE_MS - 7500);
    }

    #[test]
    fn keys_are_renewed_beside_and_those_that_are_gone_do_not_count() {
        let mut hand = Hand::new();
        hand.find("one");
        hand.land(Ok(set()));
        hand.now_ms += FRESH_MS - 1;
        assert!(is_key(&hand.find("one")) && hand.asked.is_empty());
        hand.now_ms += 1;
        assert!(is_key(&hand.find("one")) && hand.asked.len() == 1);
        assert!(is_key(&hand.find("one")));
        hand.land(Ok(KeySet::default()));
        let gone = hand.find("one");
        assert!(
            matches!(gone, Found::Refused(Refusal::NotYet(10), _)),
            "it was withdrawn: {gone:?}"
        );
        hand.now_ms += PAUSE_MS - NEAR_MS;
        assert!(matches!(hand.find("one"), Found::Waits));
        assert_eq!(hand.land(Ok(KeySet::default()))[0].1.as_ref().unwrap_err(), &Refusal::Unknown);
        // After a long silence the first one waits.
        hand.now_ms += PAUSE_MS;
        hand.find("one");
        hand.land(Ok(set()));
        hand.now_ms += OLD_MS;
        assert!(matches!(hand.find("one"), Found::Waits));
        assert!(hand.land(Ok(set()))[0].1.is_ok());
    }

    #[test]
    fn old_keys_serve_while_their_place_fails() {
        let mut hand = Hand::new();
        hand.find("one");
        hand.land(Ok(set()));
        hand.now_ms += OLD_MS;
        assert!(matches!(hand.find("one"), Found::Waits));
        assert!(hand.land(Err("answered 503".to_owned()))[0].1.is_ok(), "stale, but known");
        // Nobody waits for it again, and it is asked every ten seconds.
        assert!(is_key(&hand.find("one")) && hand.asked.is_empty());
        let unknown = hand.find("two");
        assert!(matches!(unknown, Found::Refused(Refusal::Unreachable(_), _)), "{unknown:?}");
        hand.now_ms += PAUSE_MS;
        assert!(is_key(&hand.find("one")) && hand.asked.len() == 1);
        hand.land(Err("answered 503".to_owned()));
        hand.now_ms += STALE_MS;
        assert!(matches!(hand.find("one"), Found::Waits), "a day is too long");
        let landed = hand.land(Err("answered 503".to_owned()));
        assert_eq!(landed[0].1.as_ref().unwrap_err(), &Refusal::Unreachable("answered 503".into()));
        // It is back.
        hand.now_ms += PAUSE_MS;
        assert!(matches!(hand.find("one"), Found::Waits));
        assert!(hand.land(Ok(set()))[0].1.is_ok());
    }

    #[test]
    fn tokens_that_choose_ever_new_places_take_no_more_room() {
        let mut sets = Sets::default();
        let (_, fetch) = sets.find(url(0), "one", 0, 0);
        sets.landed(&fetch.unwrap().url, Ok(set()), 0);
        for tenant in 1..3 * PLACES_MAX {
            let (found, fetch) = sets.find(url(tenant), "x", 0, 1);
            assert!(matches!(found, Found::Waits));
            sets.landed(&fetch.unwrap().url, Err("no such host".to_owned()), 1);
        }
        assert_eq!(sets.len(), PLACES_MAX);
        assert!(is_key(&sets.find(url(0), "one", 0, 2).0), "a place with keys is kept longest");
        // While all are asked there is no room for one more.
        let mut sets = Sets::default();
        for tenant in 0..PLACES_MAX {
            sets.find(url(tenant), "x", 0, 0);
        }
        let (found, fetch) = sets.find(url(PLACES_MAX), "x", 0, 0);
        assert!(matches!(found, Found::Refused(Refusal::Full, _)) && fetch.is_none());
    }
}

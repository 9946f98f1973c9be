use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::{Publication, Stream};
use crate::publication::Epoch;
use crate::request::{
    HistoryQuery, HubError, Now, Recover, Recovery, RecoveryMode, Retention, Since,
};

const EPOCH: Epoch = Epoch(*b"abcdefgh");

/// What happens to a stream.
#[derive(Debug, Clone)]
enum Act {
    Publish { bytes: usize },
    Wait { ms: u64 },
    Clear,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (0..20usize).prop_map(|bytes| Act::Publish { bytes }),
        3 => (0..60u64).prop_map(|ms| Act::Wait { ms }),
        1 => any::<bool>().prop_map(|_| Act::Clear),
    ]
}

fn query() -> impl Strategy<Value = HistoryQuery> {
    let epoch = prop_oneof![8 => "", 8 => EPOCH.as_str(), 1 => "strange!"];
    let since = (0..30u64, epoch).prop_map(|(offset, epoch)| Since { offset, epoch: epoch.into() });
    (option::of(0..10usize), option::of(since), any::<bool>(), 0..100usize).prop_map(
        |(limit, since, reverse, bytes_max)| HistoryQuery { limit, since, reverse, bytes_max },
    )
}

fn text(mut epoch: &str) -> String {
    if epoch.is_empty() {
        epoch = EPOCH.as_str();
    }
    epoch.to_owned()
}

/// A stream as plainly as it can be told: offset, bytes and end of each publication.
#[derive(Default)]
struct Model {
    all: Vec<(u64, usize, u64)>,
    top: u64,
}

impl Model {
    fn read(&self, query: &HistoryQuery) -> Result<Vec<u64>, HubError> {
        let mut list = self.all.clone();
        if let Some(since) = &query.since {
            if query.reverse && since.offset == 0 {
                return Err(HubError::BadSince);
            }
            if text(&since.epoch) != EPOCH.as_str() {
                return Err(HubError::UnrecoverablePosition);
            }
            if query.reverse {
                let starts = self.all.iter().any(|one| one.0 + 1 == since.offset);
                list.retain(|one| starts && one.0 < since.offset);
            } else {
                list.retain(|one| one.0 > since.offset);
            }
        }
        if query.reverse {
            list.reverse();
        }
        list.truncate(query.limit.unwrap_or(usize::MAX));
        let mut bytes = 0;
        let fits = |(at, one): &(usize, (u64, usize, u64))| {
            bytes += one.1;
            *at == 0 || bytes <= query.bytes_max
        };
        Ok(list.into_iter().enumerate().take_while(fits).map(|(_, one)| one.0).collect())
    }

    fn recover(&self, recover: &Recover) -> Option<Vec<u64>> {
        let list: Vec<_> = self.all.iter().filter(|one| one.0 > recover.offset).collect();
        let whole = (recover.offset + 1..=self.top).eq(list.iter().map(|one| one.0));
        let fits = list.len() <= recover.limit
            && list.iter().map(|one| one.1).sum::<usize>() <= recover.bytes_max;
        let same = text(&recover.epoch) == EPOCH.as_str();
        (whole && fits && same && recover.offset <= self.top)
            .then(|| list.iter().map(|one| one.0).collect())
    }
}

fn run(acts: &[Act], size: u32) -> (Stream, Model) {
    let mut now = Now::default();
    let retention = Retention { size, ttl_ms: 100, meta_ttl_ms: 1_000 };
    let mut stream = Stream::new(EPOCH, now);
    let mut model = Model::default();
    for act in acts {
        match *act {
            Act::Publish { bytes } => {
                let publication = Publication::new(vec![0; bytes].into(), None, 0);
                let offset = stream.append(publication, retention, now).offset;
                model.top += 1;
                assert_eq!(offset, model.top);
                model.all.push((offset, bytes, now.mono_ms + retention.ttl_ms));
                let over = model.all.len().saturating_sub(size as usize);
                model.all.drain(..over);
            }
            Act::Wait { ms } => now.mono_ms += ms,
            Act::Clear => {
                stream.clear();
                model.all.clear();
            }
        }
        model.all.retain(|one| one.2 > now.mono_ms);
    }
    stream.touch(retention, now);
    (stream, model)
}

proptest! {
    #[test]
    fn reads_as_the_plain_model_does(acts in vec(act(), 0..40), size in 1..8u32, query in query()) {
        let (stream, model) = run(&acts, size);
        assert_eq!(stream.position().offset, model.top);
        let page = stream.read(&query);
        let read = page.map(|page| page.publications.iter().map(|one| one.offset).collect());
        assert_eq!(read, model.read(&query));
    }

    #[test]
    fn recovers_as_the_plain_model_does(
        acts in vec(act(), 0..40),
        size in 1..8u32,
        offset in 0..30u64,
        limit in 0..10usize,
        bytes_max in 0..100usize,
    ) {
        let (stream, model) = run(&acts, size);
        for epoch in ["", EPOCH.as_str(), "strange!"] {
            let mode = RecoveryMode::Stream;
            let recover = Recover { epoch: epoch.into(), offset, mode, limit, bytes_max };
            let recovered = match stream.recover(&recover) {
                Recovery::Recovered(list) => Some(list.iter().map(|one| one.offset).collect()),
                _ => None,
            };
            assert_eq!(recovered, model.recover(&recover));
        }
    }
}

#[test]
fn is_over_only_when_nobody_could_tell() {
    let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
    let retention = Retention { size: 1, ttl_ms: 10, meta_ttl_ms: 100 };
    let mut stream = Stream::new(EPOCH, at(0));
    stream.append(Publication::new("x".into(), None, 0), retention, at(0));
    stream.expire(at(10));
    assert!(!stream.is_over(at(99)));
    assert!(stream.is_over(at(100)));
    stream.followed = true;
    assert!(!stream.is_over(at(1_000)));
}

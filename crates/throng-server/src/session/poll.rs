//! A client's shared polls: what it is subscribed to, which keys it tracks, and what it has of them.

mod moving;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use throng_hub::publication::ChannelName;
use throng_hub::registry::Member;
use throng_wire::dialect::{Reply, SubRefreshRequest, SubscribeResult};

use super::subscribe::{Shown, Wish};
use super::{Cx, Session, wake};
use crate::codes::{Disconnect, ErrorCode, Unsubscribe};
use crate::config::PollOptions;
use crate::polls::poller::Tracked;
use crate::polls::signature::{self, Claim, Unsigned};
use crate::polls::update::{self, Meant};
use crate::polls::{self, KEY_BYTES_MAX, Key, Room, watch};
use crate::shard::NEVER;

/// The kind of subscription that a shared poll is.
pub(super) const KIND: i32 = 4;
const TRACK: i32 = 1;
const UNTRACK: i32 = 2;

/// The subscriptions of one client to channels of shared polls.
#[derive(Debug, Default)]
pub(super) struct Polling {
    list: Vec<Polled>,
}

/// One subscription to a channel of shared polls.
#[derive(Debug)]
pub(crate) struct Polled {
    channel: ChannelName,
    /// Its number in the shard.
    watcher: Member,
    /// Which life of versions the client knows of.
    epoch: Arc<str>,
    /// Seconds of the shard; 0: never.
    expires_s: u32,
    keys: BTreeMap<Key, Mark>,
    /// The earliest end of a key, in seconds of the shard.
    keys_expire_s: u32,
    /// None only on its way from another process, and without keys.
    room: Option<Room>,
}

/// What a client has of a key that it tracks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mark {
    /// What it had when it began to track it, or was given then: what came later and is newer it was
    /// sent.
    version: u64,
    /// There was something newer then, which is still to come.
    behind: bool,
    /// Seconds of the shard; 0: never.
    expires_s: u32,
}

/// What an update is for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    No,
    Yes,
    /// And it is behind no more.
    CaughtUp,
    /// And it tracks the key no more.
    Last,
}

/// Keys that a command names, each once, and until when they may be tracked.
struct Claimed<'r> {
    /// With the version that the client has.
    keys: BTreeMap<&'r str, (u64, Option<i64>)>,
    /// The earliest end of a signature, in Unix seconds.
    ends: Option<i64>,
}

impl Session {
    fn polls(&self) -> &[Polled] {
        let polling = self.extra.as_ref().and_then(|extra| extra.polls.as_ref());
        polling.map_or(&[], |polling| &polling.list)
    }

    fn polls_mut(&mut self) -> &mut [Polled] {
        let polling = self.extra.as_mut().and_then(|extra| extra.polls.as_mut());
        polling.map_or(&mut [], |polling| &mut polling.list)
    }

    fn polled(&mut self, channel: &str) -> Option<&mut Polled> {
        self.polls_mut().iter_mut().find(|each| *each.channel == *channel)
    }

    pub(super) fn is_polling(&self, channel: &str) -> bool {
        self.polls().iter().any(|each| *each.channel == *channel)
    }

    /// The channels that it polls.
    pub(super) fn polled_channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.polls().iter().map(|each| &each.channel)
    }

    /// Subscribes a client that may.
    pub(super) fn subscribe_poll(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        (channel, options): (&str, &PollOptions),
        (wish, cancelled): (Wish, bool),
    ) {
        let grace = cx.settings.client.expired_sub_close_delay;
        let by_backend = super::backend::sub_refresh_backend(cx.settings, channel).is_some();
        let grace = if by_backend { Duration::ZERO } else { grace };
        let expiry = wish.expire_at.map(|unix_s| wake::expiry(cx, unix_s, grace));
        let channel = ChannelName::from(channel);
        let watcher = cx.watch.seat(cx.out.conn.slot, &channel);
        let (now_ms, place) = (polls::ms(cx.out.now), (&channel, cx.mailbox));
        let rng = &mut *cx.out.rng;
        let epoch =
            cx.polls.poller().subscribe(now_ms, place, &options.rules(), || polls::new_epoch(rng));
        cx.polls.sooner();
        let ttl = expiry.filter(|_| !by_backend).map(|(_, ttl)| ttl);
        let result = SubscribeResult {
            kind: KIND,
            epoch: &epoch,
            expires: ttl.is_some(),
            ttl: ttl.unwrap_or(0),
            data: wish.grant.data.as_deref(),
            ..SubscribeResult::default()
        };
        self.reply(cx, id, &Reply::Subscribe(result));
        cx.meter.subscribed();
        let expires_s = expiry.map_or(0, |(at_s, _)| at_s);
        let extra = self.extra.get_or_insert_default();
        extra.polls.get_or_insert_default().list.push(Polled {
            channel: ChannelName::clone(&channel),
            watcher,
            epoch,
            expires_s,
            keys: BTreeMap::new(),
            keys_expire_s: NEVER,
            room: None,
        });
        self.note_subscription_expiry(cx, expires_s);
        if cancelled {
            self.push_off(cx, &channel, Unsubscribe::SERVER);
        }
    }

    /// Ends one, if there is one. Returns whether there was.
    pub(super) fn leave_poll(&mut self, cx: &mut Cx<'_, '_>, channel: &str) -> bool {
        let Some(extra) = &mut self.extra else { return false };
        let Some(polling) = &mut extra.polls else { return false };
        let Some(at) = polling.list.iter().position(|each| *each.channel == *channel) else {
            return false;
        };
        let left = polling.list.swap_remove(at);
        extra.polls.take_if(|polling| polling.list.is_empty());
        left.end(cx.watch, cx.polls, (cx.settings, cx.mailbox, polls::ms(cx.out.now)));
        true
    }

    /// A command about the keys of a shared poll.
    pub(super) fn keys_command(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        request: &SubRefreshRequest<'_>,
    ) {
        let channel: &str = &request.channel;
        if channel.is_empty() {
            return self.refuse(cx, Disconnect::BAD_REQUEST, "sub_refresh names no channel");
        }
        let settings = cx.settings;
        let options = polls::options(settings, channel);
        let Some(options) = options.filter(|_| self.is_polling(channel)) else {
            let because = format!(
                "{}: keys are named without a subscription to a shared poll",
                Shown(channel)
            );
            return self.deny(cx, id, ErrorCode::PERMISSION_DENIED, &because);
        };
        let done = match request.kind {
            TRACK => self.track(cx, id, options, request),
            UNTRACK if request.untrack.is_empty() => {
                Err((ErrorCode::BAD_REQUEST, "no keys are named".to_owned()))
            }
            UNTRACK => {
                self.untrack(cx, channel, &request.untrack, options.rules().keep_ms);
                self.reply(cx, id, &Reply::SubRefresh { expires: false, ttl: 0, items: &[] });
                Ok(())
            }
            _ => Err((ErrorCode::BAD_REQUEST, "sub_refresh has types from 0 to 2".to_owned())),
        };
        if let Err((error, because)) = done {
            self.deny(cx, id, error, &format!("{}: {because}", Shown(channel)));
        }
    }

    fn track(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        options: &PollOptions,
        request: &SubRefreshRequest<'_>,
    ) -> Result<(), (ErrorCode, String)> {
        let Claimed { keys, ends } = self.claimed(cx, options, request)?;
        let channel: &str = &request.channel;
        let (now_ms, shard) = (polls::ms(cx.out.now), cx.mailbox);
        // A reply that would not fit its outbox helps nobody: half of the room is for what surrounds
        // the payloads.
        let mut room = cx.out.room() / 2;
        let mut given: Vec<Tracked> = Vec::new();
        let grace = options.track_expired_extra_delay;
        let mut failed = None;
        let mut new = Vec::with_capacity(keys.len());
        let Some(name) = self.polled(channel).map(|poll| ChannelName::clone(&poll.channel)) else {
            return Ok(());
        };
        let mut poller = cx.polls.poller();
        for (key, (version, exp)) in keys {
            let place = (&name, shard);
            let waits = (options.rules().interval_ms, &mut room);
            match poller.track(now_ms, place, (key, version), waits) {
                Ok(tracked) => {
                    let have = tracked.have.as_ref().map_or(version, |(version, _)| *version);
                    let expires_s = exp.map_or(0, |exp| wake::expiry(cx, exp, grace).0);
                    let mark = Mark { version: have, behind: tracked.behind, expires_s };
                    new.push((Key::clone(&tracked.key), mark));
                    if tracked.have.is_some() {
                        given.push(tracked);
                    }
                }
                Err(full) => failed = Some(full),
            }
        }
        drop(poller);
        cx.polls.sooner();
        let mut first_s = NEVER;
        if let Some(poll) = self.polled(channel) {
            for (key, mark) in new {
                if !poll.keys.contains_key(&key) {
                    cx.watch.follow(poll.watcher, channel, &key);
                }
                if mark.expires_s != 0 {
                    first_s = first_s.min(mark.expires_s);
                }
                poll.keys.insert(key, mark);
            }
            poll.keys_expire_s = poll.keys_expire_s.min(first_s);
            poll.make_room(cx.polls);
        }
        if first_s != NEVER {
            self.note_subscription_expiry(cx, first_s);
        }
        if !request.untrack.is_empty() {
            self.untrack(cx, channel, &request.untrack, options.rules().keep_ms);
        }
        if let Some(full) = failed {
            // Those that fitted are taken back: all or nothing, as the client sees it.
            let named = request.track.iter().flat_map(|batch| &batch.items);
            let named: Vec<_> = named.map(|item| item.key.clone()).collect();
            self.untrack(cx, channel, &named, options.rules().keep_ms);
            return Err((ErrorCode::LIMIT_EXCEEDED, full.because().to_owned()));
        }
        let items: Vec<_> = given
            .iter()
            .filter_map(|Tracked { key, have, .. }| {
                let (version, data) = have.as_ref()?;
                Some(update::on_wire(key, *version, data))
            })
            .collect();
        let ttl = ends.map_or(0, |ends| wake::expiry(cx, ends, Duration::ZERO).1);
        self.reply(cx, id, &Reply::SubRefresh { expires: ends.is_some(), ttl, items: &items });
        Ok(())
    }

    /// The keys of a command, if the client may track all of them.
    fn claimed<'r>(
        &mut self,
        cx: &Cx<'_, '_>,
        options: &PollOptions,
        request: &'r SubRefreshRequest<'_>,
    ) -> Result<Claimed<'r>, (ErrorCode, String)> {
        let all = || request.track.iter().flat_map(|batch| &batch.items);
        if let Some(bad) = all().find(|item| !watch::is_key(&item.key)) {
            let because = format!(
                "a key of {} bytes: keys have 1 to {KEY_BYTES_MAX} bytes and no zero among them",
                bad.key.len()
            );
            return Err((ErrorCode::BAD_REQUEST, because));
        }
        let leaving: BTreeSet<&str> = request.untrack.iter().map(|key| &**key).collect();
        let mut named: BTreeSet<&str> = all().map(|item| &*item.key).collect();
        if named.is_empty() {
            return Err((ErrorCode::BAD_REQUEST, "no keys are named".to_owned()));
        }
        let count = named.len();
        let Some(poll) = self.polled(&request.channel) else { return Err(gone()) };
        named.retain(|key| !leaving.contains(key) && !poll.keys.contains_key(*key));
        let staying = poll.keys.keys().filter(|key| !leaving.contains(&***key)).count();
        let most = options.max_keys_per_connection;
        if staying + named.len() > most || count > most {
            let because = format!(
                "{} keys, and shared_poll.max_keys_per_connection is {most}",
                (staying + named.len()).max(count)
            );
            return Err((ErrorCode::LIMIT_EXCEEDED, because));
        }
        if !cx.polls.fits(named.len()) {
            let because = "what clients track fills a quarter of limits.buffer_bytes; raise it";
            return Err((ErrorCode::LIMIT_EXCEEDED, because.to_owned()));
        }
        self.signed(cx, request)
    }

    fn signed<'r>(
        &self,
        cx: &Cx<'_, '_>,
        request: &'r SubRefreshRequest<'_>,
    ) -> Result<Claimed<'r>, (ErrorCode, String)> {
        let now_s = cx.out.now.unix_ms / 1000;
        let mut claimed = Claimed { keys: BTreeMap::new(), ends: None };
        for batch in &request.track {
            let keys: Vec<&str> = batch.items.iter().map(|item| &*item.key).collect();
            let claim = Claim { user: &self.user, channel: &request.channel, keys: &keys };
            let checked =
                signature::check(&cx.settings.shared_poll, &batch.signature, claim, now_s);
            let exp = checked.map_err(|unsigned| match unsigned {
                Unsigned::Expired => {
                    (ErrorCode::TOKEN_EXPIRED, "the signature of the keys is expired".to_owned())
                }
                Unsigned::Invalid(what) => {
                    (ErrorCode::PERMISSION_DENIED, format!("the signature of the keys {what}"))
                }
            })?;
            claimed.ends = match (claimed.ends, exp) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            for item in &batch.items {
                // Of a key that comes twice the last counts.
                claimed.keys.insert(&item.key, (item.version, exp));
            }
        }
        Ok(claimed)
    }

    fn untrack<K: AsRef<str>>(
        &mut self,
        cx: &mut Cx<'_, '_>,
        channel: &str,
        keys: &[K],
        keep_ms: u64,
    ) {
        let (now_ms, shard) = (polls::ms(cx.out.now), cx.mailbox);
        let (watch, all) = (&mut *cx.watch, cx.polls);
        let Some(poll) = self.polled(channel) else { return };
        for key in keys {
            poll.forget(key.as_ref(), watch, all, (shard, now_ms, keep_ms));
        }
        poll.make_room(all);
    }

    /// What an update of a key is for this client.
    pub(crate) fn wants(&self, (channel, key): (&str, &str), meant: Meant) -> Wanted {
        let poll = self.polls().iter().find(|each| *each.channel == *channel);
        let Some(mark) = poll.and_then(|poll| poll.keys.get(key)) else { return Wanted::No };
        match meant {
            Meant::Removed => Wanted::Last,
            Meant::New(version) if mark.version < version && mark.behind => Wanted::CaughtUp,
            Meant::New(version) if mark.version < version => Wanted::Yes,
            Meant::Again(version) if mark.behind && mark.version < version => Wanted::CaughtUp,
            Meant::New(_) | Meant::Again(_) => Wanted::No,
        }
    }

    /// It was told what it wanted.
    pub(crate) fn told(&mut self, cx: &mut Cx<'_, '_>, (channel, key): (&str, &str), last: bool) {
        if last {
            return self.untrack(cx, channel, &[key], 0);
        }
        let Some(poll) = self.polled(channel) else { return };
        if let Some(mark) = poll.keys.get_mut(key) {
            mark.behind = false;
        }
    }

    /// The versions of a channel begin anew: the client subscribes again and asks for everything.
    pub(crate) fn poll_reset(&mut self, cx: &mut Cx<'_, '_>, channel: &str, epoch: &str) {
        let knows = self.polled(channel).is_none_or(|poll| *poll.epoch == *epoch);
        if !knows && self.push_off(cx, channel, Unsubscribe::INSUFFICIENT) {
            let because = "the application's versions begin anew: its epoch is another";
            self.note_unsubscribe(cx, channel, Unsubscribe::INSUFFICIENT, because);
        }
    }

    /// Ends what has run out; returns the channels whose subscription has, and when the next does.
    pub(super) fn expire_polls(&mut self, cx: &mut Cx<'_, '_>) -> (Vec<ChannelName>, u32) {
        let second = cx.out.second;
        let (mut over, mut next_s) = (Vec::new(), NEVER);
        let (settings, now_ms, shard) = (cx.settings, polls::ms(cx.out.now), cx.mailbox);
        for poll in self.polls_mut() {
            if poll.keys_expire_s <= second {
                let keep_ms = polls::options(settings, &poll.channel)
                    .map_or(0, |options| options.rules().keep_ms);
                poll.expire_keys(second, cx.watch, cx.polls, (shard, now_ms, keep_ms));
            }
            next_s = next_s.min(poll.keys_expire_s);
            match poll.expires_s {
                0 => {}
                at_s if at_s <= second => over.push(ChannelName::clone(&poll.channel)),
                at_s => next_s = next_s.min(at_s),
            }
        }
        (over, next_s)
    }

    /// Sets when a subscription ends; returns whether there is one.
    pub(super) fn set_poll_expiry(&mut self, channel: &str, at_s: u32) -> bool {
        let poll = self.polled(channel);
        poll.map(|poll| poll.expires_s = at_s).is_some()
    }

    /// What it polls, for whom it leaves behind.
    pub(super) fn take_polls(&mut self) -> Vec<Polled> {
        let polling = self.extra.as_mut().and_then(|extra| extra.polls.take());
        polling.map(|polling| polling.list).unwrap_or_default()
    }
}

fn gone() -> (ErrorCode, String) {
    (ErrorCode::PERMISSION_DENIED, "the subscription has ended".to_owned())
}

impl Polled {
    /// Takes room for as many keys as it has.
    fn make_room(&mut self, all: &polls::Polls) {
        self.room = None;
        if !self.keys.is_empty() {
            self.room = Some(all.room(self.keys.len()));
        }
    }

    fn forget(
        &mut self,
        key: &str,
        watch: &mut watch::Watch,
        all: &polls::Polls,
        (shard, now_ms, keep_ms): (u16, u64, u64),
    ) {
        if self.keys.remove(key).is_some() && watch.forget(self.watcher, &self.channel, key) {
            all.poller().untrack(now_ms, (&self.channel, shard), key, keep_ms);
            all.sooner();
        }
    }

    fn expire_keys(
        &mut self,
        second: u32,
        watch: &mut watch::Watch,
        all: &polls::Polls,
        place: (u16, u64, u64),
    ) {
        let is_over = |mark: &Mark| mark.expires_s != 0 && mark.expires_s <= second;
        let over: Vec<Key> = self
            .keys
            .iter()
            .filter(|(_, mark)| is_over(mark))
            .map(|(key, _)| Key::clone(key))
            .collect();
        for key in over {
            self.forget(&key, watch, all, place);
        }
        let left = self.keys.values().map(|mark| mark.expires_s).filter(|at_s| *at_s != 0);
        self.keys_expire_s = left.min().unwrap_or(NEVER);
        self.make_room(all);
    }

    /// It is over: nobody is told on its behalf any more.
    pub(crate) fn end(
        self,
        watch: &mut watch::Watch,
        all: &polls::Polls,
        (settings, shard, now_ms): (&crate::config::Settings, u16, u64),
    ) {
        let options = polls::options(settings, &self.channel);
        let keep_ms = options.map_or(0, |options| options.rules().keep_ms);
        let mut poller = all.poller();
        let place = (&*self.channel, shard);
        let is_last = watch.unseat(self.watcher, &self.channel, &mut |key| {
            poller.untrack(now_ms, place, key, keep_ms);
        });
        if is_last {
            poller.unsubscribe(now_ms, &self.channel, shard, keep_ms);
        }
        drop(poller);
        all.sooner();
    }
}

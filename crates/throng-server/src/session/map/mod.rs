//! Channels that are maps, as a client sees them: page by page into one, its keys, and the maps in
//! which it shows itself.
//!
//! A client that reads pages is not subscribed yet. What is known of it meanwhile is its plan, kept
//! with what the session waits for, so that nobody else's record grows by it; with the last page the
//! node gives it a seat and everything it missed in one step.

mod keys;
mod presence;

use throng_hub::map::{Ask, Call, Enter, Entered, Way};
use throng_hub::publication::{ChannelName, Epoch, Position, Publication};
use throng_hub::registry::SubFlags;
use throng_hub::request::{HubError, Recovery, Request, Subscribed};
use throng_hub::state::{Corrupt, Fields, Record, Within, Writer};
use throng_wire::dialect::{Reply, SubscribeRequest, SubscribeResult};

use super::say::{self, Outcome};
use super::subscribe::{Plan, Shown, Wish};
use super::{Awaited, Cx, Session};
use crate::codes::{Disconnect, ErrorCode, Unsubscribe};
use crate::config::{ChannelOptions, MapOptions};

pub(crate) use self::keys::wrong_key;
pub(super) use self::presence::hide;

/// The type that replies name, whatever kind of map it is.
const MAP: i32 = 1;

/// The phases of a subscription to a map.
const LIVE: i32 = 0;
const STREAM: i32 = 1;
const STATE: i32 = 2;

/// A map that the client reads page by page.
#[derive(Debug)]
pub(super) struct Catching {
    plan: Box<Plan>,
}

/// A step into a map.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MapStep {
    phase: i32,
    /// As the client asks, before it is held to the namespace's.
    limit: i32,
    cursor: Box<str>,
    offset: u64,
    epoch: Box<str>,
    /// It comes back, and wants what it missed.
    recovers: bool,
    /// When the first step was made, on the shard's clock; 0 until it was.
    began_ms: u64,
    /// Where the map stood at the first page.
    frozen: Option<Position>,
    /// Where it stood when the client began to read changes.
    start: Option<u64>,
}

/// What a client asks of a map at first; none for a stream.
pub(super) fn first_step(request: &SubscribeRequest<'_>) -> Option<Box<MapStep>> {
    (request.kind != 0).then(|| Box::new(MapStep::default().onward(request)))
}

impl MapStep {
    /// The next step, of the same way.
    fn onward(self, request: &SubscribeRequest<'_>) -> Self {
        Self {
            phase: request.phase,
            limit: request.limit,
            cursor: Box::from(&*request.cursor),
            offset: request.offset,
            epoch: Box::from(&*request.epoch),
            recovers: request.recover,
            ..self
        }
    }

    fn way(&self) -> Way {
        let (since, epoch) = (self.offset, self.epoch.clone());
        match self.phase {
            STATE => Way::State { cursor: self.cursor.clone(), frozen: self.frozen },
            STREAM => Way::Changes { since, epoch, start: self.start },
            _ => Way::Live { since, epoch },
        }
    }
}

/// Whether the channel is what the client takes it for, and the step is one.
pub(super) fn check_kind(
    options: &ChannelOptions,
    request: &SubscribeRequest<'_>,
) -> Result<(), (ErrorCode, String)> {
    let is = options.map.as_ref().map_or(0, |map| map.kind.number());
    if request.kind != is {
        let is = options.map.as_ref().map_or("stream", |map| map.kind.name());
        let asked = match request.kind {
            0 => "stream".to_owned(),
            1 => "map".to_owned(),
            2 => "map_clients".to_owned(),
            3 => "map_users".to_owned(),
            4 => "shared_poll".to_owned(),
            other => format!("type {other}"),
        };
        let because = format!("a subscription to a {asked}, and subscription_type is \"{is}\"");
        return Err((ErrorCode::PERMISSION_DENIED, because));
    }
    match &options.map {
        Some(map) => check_phase(map, request),
        None => Ok(()),
    }
}

fn check_phase(
    map: &MapOptions,
    request: &SubscribeRequest<'_>,
) -> Result<(), (ErrorCode, String)> {
    let because = match request.phase {
        STREAM if !map.rules.recoverable => {
            "phase 1 reads changes, and map.mode is \"ephemeral\", which keeps none".to_owned()
        }
        LIVE | STREAM | STATE => return Ok(()),
        other => format!("there is no phase {other}"),
    };
    Err((ErrorCode::BAD_REQUEST, because))
}

/// What marks a subscription to a map. It is told when it must read the map anew.
pub(super) fn flags(options: &ChannelOptions, wish: &Wish) -> SubFlags {
    let Some(map) = options.map.as_ref().filter(|_| wish.map.is_some()) else {
        return SubFlags::default();
    };
    let mut flags = SubFlags::MAP.with(SubFlags::POSITIONED);
    for (flag, holds) in [
        (SubFlags::RECOVERABLE, map.rules.recoverable),
        (SubFlags::REMOVES, map.remove_client_on_unsubscribe),
    ] {
        if holds {
            flags = flags.with(flag);
        }
    }
    flags
}

impl Session {
    /// How many maps the client reads, and is not subscribed to yet.
    pub(super) fn catching(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.catching.len())
    }

    /// Goes on with a map that the client reads already. False: it is a first step, whose right is
    /// to be looked at.
    pub(super) fn continue_map(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        request: &SubscribeRequest<'_>,
    ) -> bool {
        let channel: &str = &request.channel;
        self.forget_stale_maps(cx, channel);
        let begins = request.phase == STATE && request.cursor.is_empty();
        let Some(catching) = self.take_map(channel) else {
            let goes_on =
                !request.cursor.is_empty() || (request.phase == STREAM && !request.recover);
            // Its channel is not looked at before: what there is, nobody learns so.
            if goes_on {
                let because = format!(
                    "{}: it goes on reading a map that it has not begun to, or has read for longer \
                     than map.subscribe_catch_up_timeout",
                    Shown(channel)
                );
                self.deny(cx, id, ErrorCode::PERMISSION_DENIED, &because);
            }
            return goes_on;
        };
        let plan = catching.plan;
        match (self.is_late(cx, &plan), begins) {
            (true, true) => return false,
            (true, false) => {
                let because = format!(
                    "{}: it has read the map for longer than map.subscribe_catch_up_timeout",
                    Shown(channel)
                );
                self.refuse(cx, Disconnect::SLOW, &because);
            }
            (false, true) => {
                self.keep_map(*plan);
                let because = format!("{}: it reads the map already", Shown(channel));
                self.deny(cx, id, ErrorCode::ALREADY_SUBSCRIBED, &because);
            }
            (false, false) => self.step(cx, id, (*plan, request)),
        }
        true
    }

    fn step(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        (mut plan, request): (Plan, &SubscribeRequest<'_>),
    ) {
        let settings = cx.settings;
        let options = settings.channel.resolve(&plan.channel).ok().map(|it| &**it.options);
        let checked = match options.and_then(|options| options.map.as_ref()) {
            None => Err((ErrorCode::UNKNOWN_CHANNEL, "it is no map any more".to_owned())),
            Some(map) => check_phase(map, request).map(|()| map),
        };
        let map = match checked {
            Ok(map) => map,
            Err((error, because)) => {
                let because = format!("{}: {because}", Shown(&plan.channel));
                return self.deny(cx, id, error, &because);
            }
        };
        let step = plan.map.take().unwrap_or_default().onward(request);
        let of_another =
            |frozen: &Position| !step.epoch.is_empty() && *step.epoch != *frozen.epoch.as_str();
        if step.frozen.as_ref().is_some_and(of_another) {
            return self.unrecoverable(cx, id, &plan.channel);
        }
        let request = self.step_request(cx, map, &plan, &step);
        plan.map = Some(Box::new(step));
        self.ask_node(cx, request, Awaited::Subscribe { id, plan: Box::new(plan) });
    }

    /// What the node is asked for a step.
    pub(super) fn step_request(
        &self,
        cx: &Cx<'_, '_>,
        map: &MapOptions,
        plan: &Plan,
        step: &MapStep,
    ) -> Request {
        let enter = Enter {
            client: self.client,
            info: plan.info.clone(),
            presence: plan.flags.contains(SubFlags::PRESENCE),
            announce: plan.flags.contains(SubFlags::ANNOUNCE),
            way: step.way(),
            page: map.page(step.limit),
            // Half of the room: the rest is for what surrounds the payloads.
            bytes_max: cx.out.room() / 2,
            live_max: map.live_max,
        };
        Request::Map(Box::new(Call {
            channel: ChannelName::clone(&plan.channel),
            rules: map.rules,
            ask: Ask::Enter(enter),
            quiet: false,
        }))
    }

    /// A step into a map is answered.
    pub(super) fn entered(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        mut plan: Plan,
        result: Result<Entered, HubError>,
    ) {
        let step = plan.map.get_or_insert_default();
        if step.began_ms == 0 {
            step.began_ms = cx.out.now.mono_ms.max(1);
        }
        let tells =
            |offset: u64| if plan.flags.contains(SubFlags::RECOVERABLE) { offset } else { 0 };
        match result {
            Err(HubError::UnrecoverablePosition) => {
                if step.recovers {
                    cx.meter.recovered(false, 0);
                }
                self.unrecoverable(cx, id, &plan.channel);
            }
            Err(error) => self.error(cx, id, super::error_code(error)),
            Ok(Entered::State { page, cursor, frozen }) => {
                step.frozen = Some(frozen);
                let result = SubscribeResult {
                    kind: MAP,
                    phase: STATE,
                    epoch: frozen.epoch.as_str(),
                    offset: tells(frozen.offset),
                    cursor: cursor.as_deref().unwrap_or_default(),
                    state: &say::publications(&page),
                    ..SubscribeResult::default()
                };
                self.reply(cx, id, &Reply::Subscribe(result));
                self.keep_map(plan);
            }
            Ok(Entered::Changes { page, offset, epoch, start }) => {
                step.start = Some(start);
                let result = SubscribeResult {
                    kind: MAP,
                    phase: STREAM,
                    epoch: epoch.as_str(),
                    offset,
                    publications: &say::publications(&page),
                    ..SubscribeResult::default()
                };
                self.reply(cx, id, &Reply::Subscribe(result));
                self.keep_map(plan);
            }
            Ok(Entered::Live { state, changes, position }) => {
                self.is_live(cx, id, plan, (&state, changes, position));
            }
        }
    }

    /// The client is in the map: from this moment what happens there reaches it.
    fn is_live(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        plan: Plan,
        (state, changes, position): (
            &[std::sync::Arc<Publication>],
            Vec<std::sync::Arc<Publication>>,
            Position,
        ),
    ) {
        let recovers = plan.map.as_ref().is_some_and(|step| step.recovers);
        let (cancelled, epoch): (bool, Epoch) = (plan.cancelled, position.epoch);
        if recovers {
            cx.meter.recovered(true, changes.len());
        }
        let subscribed =
            Subscribed { position: Some(position), recovery: Recovery::Recovered(changes) };
        let outcome: Outcome = match self.enter(cx, plan, Ok(subscribed)) {
            Ok(outcome) => outcome,
            Err(error) => return self.error(cx, id, error),
        };
        let recoverable = outcome.recoverable;
        let changes = say::publications(&outcome.publications);
        let result = SubscribeResult {
            kind: MAP,
            phase: LIVE,
            epoch: epoch.as_str(),
            offset: if recoverable { position.offset } else { 0 },
            positioned: false,
            was_recovering: recovers,
            recovered: recovers,
            state: &say::publications(state),
            ..outcome.result(&changes)
        };
        self.reply(cx, id, &Reply::Subscribe(result));
        if cancelled {
            self.push_off(cx, &outcome.channel, Unsubscribe::SERVER);
        }
    }

    fn unrecoverable(&self, cx: &mut Cx<'_, '_>, id: u32, channel: &str) {
        let because = format!(
            "{}: what the client has of the map is of another life of it, or too old",
            Shown(channel)
        );
        self.deny(cx, id, ErrorCode::UNRECOVERABLE_POSITION, &because);
    }

    /// Whether it reads the map for longer than it may.
    fn is_late(&self, cx: &Cx<'_, '_>, plan: &Plan) -> bool {
        let options = cx.settings.channel.resolve(&plan.channel).ok();
        let map = options.as_ref().and_then(|resolved| resolved.options.map.as_ref());
        let timeout = map.map_or(std::time::Duration::ZERO, |map| map.catch_up_timeout);
        let began_ms = plan.map.as_ref().map_or(0, |step| step.began_ms);
        let took_ms = cx.out.now.mono_ms.saturating_sub(began_ms);
        u128::from(took_ms) > timeout.as_millis()
    }

    /// Gives up maps that the client reads no more, but for one that it speaks of now.
    fn forget_stale_maps(&mut self, cx: &Cx<'_, '_>, but: &str) {
        let Some(pending) = &mut self.pending else { return };
        let mut catching = std::mem::take(&mut pending.catching);
        catching.retain(|one| *one.plan.channel == *but || !self.is_late(cx, &one.plan));
        if let Some(pending) = &mut self.pending {
            pending.catching = catching;
        }
        self.forget_pending();
    }

    /// The client reads this map no more.
    pub(super) fn give_up_map(&mut self, channel: &str) {
        drop(self.take_map(channel));
    }

    fn take_map(&mut self, channel: &str) -> Option<Catching> {
        let catching = &mut self.pending.as_mut()?.catching;
        let at = catching.iter().position(|one| *one.plan.channel == *channel)?;
        let taken = catching.swap_remove(at);
        self.forget_pending();
        Some(taken)
    }

    fn keep_map(&mut self, plan: Plan) {
        let plan = Box::new(plan);
        self.pending.get_or_insert_default().catching.push(Catching { plan });
    }

    /// Those that are not subscribed to yet end as soon as they are.
    pub(super) fn cancel_maps(&mut self, channel: &str) {
        let Some(pending) = &mut self.pending else { return };
        for one in &mut pending.catching {
            if channel.is_empty() || *one.plan.channel == *channel {
                one.plan.cancelled = true;
            }
        }
    }

    /// A map has no room, and says which option is behind it.
    pub(super) fn refused_by_map(&self, cx: &mut Cx<'_, '_>, id: u32, error: HubError) {
        let code = super::error_code(error);
        match error {
            HubError::MapFull(full) => self.deny(cx, id, code, &full.to_string()),
            _ => self.error(cx, id, code),
        }
    }
}

throng_hub::record!("a step into a map", MapStep {
    1 phase,
    2 limit,
    3 cursor,
    4 offset,
    5 epoch,
    6 recovers,
    7 began_ms as Began,
    8 frozen as Within,
    9 start as Start,
});

throng_hub::record!("a planned subscription", Plan {
    1 channel,
    2 flags,
    3 info as Within,
    4 data,
    5 expire_at,
    6 was_recovering,
    7 from_offset,
    8 reject_unrecovered,
    9 cancelled,
    10 map as Within,
    11 filter as Within,
});

impl Record for Catching {
    const WHAT: &'static str = Plan::WHAT;

    fn put_fields(&self, out: &mut Writer) {
        let Self { plan } = self;
        plan.put_fields(out);
    }

    fn take_fields(fields: Fields<'_>) -> Result<Self, Corrupt> {
        Plan::take_fields(fields).map(|plan| Self { plan: Box::new(plan) })
    }
}

use self::moving::{Began, Start};

mod moving {
    use throng_hub::state::{Corrupt, Field, SinceMs, Through, Writer};

    /// The millisecond of the clock when something began; 0: it has not.
    pub(in crate::session) struct Began;

    impl Through<u64> for Began {
        fn absent() -> Option<u64> {
            Some(0)
        }
        fn put(value: &u64, tag: u8, out: &mut Writer) {
            if *value != 0 {
                <SinceMs as Through<u64>>::put(value, tag, out);
            }
        }
        fn take(old: Option<u64>, field: &Field<'_>) -> Result<u64, Corrupt> {
            <SinceMs as Through<u64>>::take(old, field).map(|began_ms| began_ms.max(1))
        }
    }

    /// An offset, where it is known.
    pub(in crate::session) struct Start;

    impl Through<Option<u64>> for Start {
        fn absent() -> Option<Option<u64>> {
            Some(None)
        }
        fn put(value: &Option<u64>, tag: u8, out: &mut Writer) {
            if let Some(value) = value {
                out.number(tag, *value);
            }
        }
        fn take(_: Option<Option<u64>>, field: &Field<'_>) -> Result<Option<u64>, Corrupt> {
            field.number().map(Some)
        }
    }
}

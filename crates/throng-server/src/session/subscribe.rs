//! Subscribing and unsubscribing: the checks, the plan, and what is undone.

use std::sync::Arc;

use bytes::Bytes;
use throng_hub::filter::Filter;
use throng_hub::publication::{ChannelName, ClientInfo};
use throng_hub::registry::{Registry, SubFlags, Subscription};
use throng_hub::request::{
    Recover, RecoveryMode, Request, Retention, Subscribe, Unsubscribe as HubUnsubscribe,
};
use throng_wire::dialect::{Encoding, Push, Reply, SubscribeRequest};
use uuid::Uuid;

use super::access::{self, Asker};
use super::filter;
use super::map::{MapStep, first_step};
use super::proof::{Claimed, temporary};
use super::{Awaited, Cx, Session};
use crate::codes::{Disconnect, ErrorCode, Unsubscribe};
use crate::config::{BackendId, ChannelError, ChannelOptions, Resolved, Settings};
use crate::metrics::Of;
use crate::token::{Grant, SubscriptionClaims, TokenError};

/// What a subscription will be when the node has answered.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) channel: ChannelName,
    pub(super) flags: SubFlags,
    pub(super) info: Option<Arc<ClientInfo>>,
    pub(super) data: Option<Bytes>,
    /// Unix seconds.
    pub(super) expire_at: Option<i64>,
    /// The client asked to recover, from this offset.
    pub(super) was_recovering: bool,
    pub(super) from_offset: u64,
    /// An unrecoverable position is error 112.
    pub(super) reject_unrecovered: bool,
    /// An unsubscribe came before the answer.
    pub(super) cancelled: bool,
    /// Where it is on its way into a map.
    pub(super) map: Option<Box<MapStep>>,
    /// Which publications the client wants; none: all.
    pub(super) filter: Option<Arc<Filter>>,
}

impl Plan {
    /// What takes it back.
    pub(super) fn undo(&self, client: Uuid) -> HubUnsubscribe {
        HubUnsubscribe {
            channel: ChannelName::clone(&self.channel),
            client,
            presence: self.flags.contains(SubFlags::PRESENCE),
            announce: self.flags.contains(SubFlags::ANNOUNCE),
            info: self.info.clone(),
        }
    }
}

/// What is asked of a subscription, by whoever asks for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    pub(super) grant: Grant,
    /// Unix seconds.
    pub(super) expire_at: Option<i64>,
    pub(super) positioned: bool,
    pub(super) recoverable: bool,
    pub(super) join_leave: bool,
    pub(super) recover: Option<(Box<str>, u64)>,
    pub(super) reject_unrecovered: bool,
    pub(super) server_side: bool,
    /// The client takes Fossil's patches.
    pub(super) delta: bool,
    /// The first step into a map.
    pub(super) map: Option<Box<MapStep>>,
    /// Which publications it wants; none: all.
    pub(super) filter: Option<Arc<Filter>>,
}

/// What tells the node that a subscription is over.
pub(super) fn leaving(
    client: Uuid,
    channel: &ChannelName,
    subscription: &Subscription,
) -> HubUnsubscribe {
    HubUnsubscribe {
        channel: ChannelName::clone(channel),
        client,
        presence: subscription.flags.contains(SubFlags::PRESENCE),
        announce: subscription.flags.contains(SubFlags::ANNOUNCE),
        info: subscription.info.clone(),
    }
}

/// What a channel with these options keeps.
pub(crate) fn retention(options: &ChannelOptions) -> Retention {
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Retention {
        size: options.history_size,
        ttl_ms: millis(options.history_ttl),
        meta_ttl_ms: millis(options.history_meta_ttl),
    }
}

/// Whether a user may subscribe without a token.
pub(super) enum Right {
    Yes,
    /// This backend is to say.
    Ask(BackendId),
    /// What is in the way.
    No(String),
}

/// Why a subscription token does not help.
enum Denied {
    Error(ErrorCode, String),
    Close(Disconnect, String),
}

impl Session {
    pub(super) fn subscribe(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        request: &SubscribeRequest<'_>,
    ) {
        let channel: &str = &request.channel;
        if channel.is_empty() {
            return self.refuse(cx, Disconnect::BAD_REQUEST, "subscribe names no channel");
        }
        if request.kind != 0 && self.continue_map(cx, id, request) {
            return;
        }
        let resolved = match self.checked(cx.settings, cx.registry, cx.out.conn.slot, request) {
            Ok(resolved) => resolved,
            Err((error, because)) => {
                return self.deny(cx, id, error, &format!("{}: {because}", Shown(channel)));
            }
        };
        let encoding = cx.out.framing.encoding();
        let filter = match filter_of(resolved.options, encoding, request) {
            Ok(filter) => filter,
            Err(because) => {
                let because = format!("{}: {because}", Shown(channel));
                return self.deny(cx, id, ErrorCode::BAD_REQUEST, &because);
            }
        };
        let wish = Wish {
            filter,
            positioned: request.positioned,
            recoverable: request.recoverable,
            join_leave: request.join_leave,
            recover: request.recover.then(|| (Box::from(&*request.epoch), request.offset)),
            reject_unrecovered: request.flag & 2 != 0,
            delta: request.delta == "fossil",
            map: first_step(request),
            ..Wish::default()
        };
        if request.token.is_empty() {
            match self.right_without_token(cx.settings, &resolved) {
                Right::Yes => {}
                Right::Ask(backend) => {
                    return self.ask_subscribe(cx, (id, backend), request, wish);
                }
                Right::No(because) => {
                    let because = format!("{}: {because}", Shown(channel));
                    return self.deny(cx, id, ErrorCode::PERMISSION_DENIED, &because);
                }
            }
        } else {
            return match self.subscription_claims(cx, &request.token) {
                Ok(None) => {
                    let (channel, wish) = (ChannelName::from(channel), Box::new(wish));
                    let claimed = Claimed::Subscribe { id, channel, wish, cancelled: false };
                    self.ask_notary(cx, &request.token, claimed);
                }
                Ok(Some(claims)) => {
                    self.subscribe_by_token(cx, id, (channel, wish, false), Ok(claims));
                }
                Err(error) => self.subscribe_by_token(cx, id, (channel, wish, false), Err(error)),
            };
        }
        if let Some(poll) = &resolved.options.poll {
            return self.subscribe_poll(cx, id, (channel, poll), (wish, false));
        }
        let (plan, request) = self.plan(cx, channel, resolved.options, wish);
        self.ask_node(cx, request, Awaited::Subscribe { id, plan: Box::new(plan) });
    }

    /// The checks before any question of right, in the protocol's order.
    fn checked<'s>(
        &self,
        settings: &'s Settings,
        registry: &Registry,
        slot: u32,
        request: &'s SubscribeRequest<'_>,
    ) -> Result<Resolved<'s, 's>, (ErrorCode, String)> {
        let channel: &str = &request.channel;
        let limit = settings.channel.max_length;
        if channel.len() > limit {
            return Err((
                ErrorCode::BAD_REQUEST,
                format!("{} bytes, and channel.max_length is {limit}", channel.len()),
            ));
        }
        // A subscription that the server has ordered counts before it is answered: undoing a second
        // one would take the first one's presence away.
        let is_there = registry.find(slot, channel).is_some() || self.is_polling(channel);
        if is_there || self.is_subscribing(channel) {
            return Err((ErrorCode::ALREADY_SUBSCRIBED, "subscribed already".to_owned()));
        }
        let limit = settings.client.channel_limit;
        let others = self.catching() + self.polled_channels().count();
        if limit > 0 && registry.count(slot) + others >= limit {
            return Err((
                ErrorCode::LIMIT_EXCEEDED,
                format!("this client has {limit} channels, which is client.channel_limit"),
            ));
        }
        let resolved = settings.channel.resolve(channel).map_err(|error| {
            let code = match error {
                ChannelError::UnknownNamespace => ErrorCode::UNKNOWN_CHANNEL,
                _ => ErrorCode::BAD_REQUEST,
            };
            (code, error.to_string())
        })?;
        if resolved.options.poll.is_none() {
            super::map::check_kind(resolved.options, request)?;
        } else if request.kind != super::poll::KIND {
            let because = "its subscription_type is shared_poll; subscribe with \
                           newSharedPollSubscription";
            return Err((ErrorCode::PERMISSION_DENIED, because.to_owned()));
        }
        Ok(resolved)
    }

    /// Whether this user may subscribe without a token; else what is in the way.
    pub(super) fn right_without_token(
        &self,
        settings: &Settings,
        resolved: &Resolved<'_, '_>,
    ) -> Right {
        let insecure = settings.client.insecure;
        if resolved.private {
            let prefix = &settings.channel.private_prefix;
            return Right::No(format!(
                "no subscription token, and a channel beginning with channel.private_prefix \
                 ({prefix}) needs one"
            ));
        }
        if let Some(users) = &resolved.users {
            if users.contains(&self.user) || insecure {
                return Right::Yes;
            }
            return Right::No(
                "the user is not in the list that the channel's name ends with \
                        (allow_user_limited_channels is on)"
                    .to_owned(),
            );
        }
        if let Some(backend) = resolved.options.subscribe_backend {
            return Right::Ask(backend);
        }
        match access::may_subscribe(resolved.options, &self.user, insecure) {
            Ok(()) => Right::Yes,
            Err(option) => Right::No(format!("no subscription token, and {option} is off")),
        }
    }

    /// Subscribes a client whose token was read, or does not.
    pub(super) fn subscribe_by_token(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        (channel, mut wish, cancelled): (&str, Wish, bool),
        read: Result<SubscriptionClaims, TokenError>,
    ) {
        let claims = match self.right_by_token(channel, read) {
            Ok(claims) => claims,
            Err(Denied::Error(error, because)) => return self.deny(cx, id, error, &because),
            Err(Denied::Close(why, because)) => {
                return self.refuse_token(cx, why, &Shown(channel).to_string(), &because);
            }
        };
        if super::wake::is_over(cx, claims.expire_at) {
            let channel = Shown(channel);
            let because = format!("{channel}: the subscription token's expire_at is in the past");
            return self.deny(cx, id, ErrorCode::EXPIRED, &because);
        }
        let settings = cx.settings;
        // It was there when the client asked, but the settings may be a newer process's.
        let Ok(resolved) = settings.channel.resolve(channel) else {
            let because = format!("{}: its namespace is no more", Shown(channel));
            return self.deny(cx, id, ErrorCode::UNKNOWN_CHANNEL, &because);
        };
        wish.expire_at = claims.expire_at;
        wish.grant = claims.grant;
        if let Some(poll) = &resolved.options.poll {
            return self.subscribe_poll(cx, id, (channel, poll), (wish, cancelled));
        }
        let (mut plan, request) = self.plan(cx, channel, resolved.options, wish);
        plan.cancelled = cancelled;
        self.ask_node(cx, request, Awaited::Subscribe { id, plan: Box::new(plan) });
    }

    fn right_by_token(
        &self,
        channel: &str,
        read: Result<SubscriptionClaims, TokenError>,
    ) -> Result<SubscriptionClaims, Denied> {
        let claims = read.map_err(|error| match error {
            TokenError::Invalid(reason) => Denied::Error(
                ErrorCode::PERMISSION_DENIED,
                format!("{}: the subscription token is invalid: {reason}", Shown(channel)),
            ),
            error => {
                let what = format!("{}: the subscription token", Shown(channel));
                let (error, because) = temporary(error, &what);
                Denied::Error(error, because)
            }
        })?;
        let because = if claims.channel != channel {
            "channel"
        } else if claims.user != *self.user {
            "user"
        } else if !claims.client.is_empty() && claims.client != self.client.to_string() {
            "client"
        } else {
            return Ok(claims);
        };
        let because = format!("the subscription token was made for another {because}");
        Err(Denied::Close(Disconnect::INVALID_TOKEN, because))
    }

    /// What the subscription will be, and what the node must be asked for it.
    pub(super) fn plan(
        &self,
        cx: &Cx<'_, '_>,
        channel: &str,
        options: &ChannelOptions,
        wish: Wish,
    ) -> (Plan, Request) {
        let overridden;
        let options = if wish.grant.overrides.is_empty() {
            options
        } else {
            overridden = wish.grant.overrides.over(options);
            &overridden
        };
        let asker =
            Asker { user: &self.user, subscriber: true, insecure: cx.settings.client.insecure };
        let flags = flags(options, asker, &wish);
        let is_seen = [SubFlags::PRESENCE, SubFlags::ANNOUNCE, SubFlags::SHOWS_CLIENT];
        let info = is_seen
            .into_iter()
            .any(|flag| flags.contains(flag))
            .then(|| self.client_info(wish.grant.info.clone()));
        let recover = self.recover(cx, options, flags, &wish);
        let plan = Plan {
            channel: ChannelName::from(channel),
            flags,
            info,
            data: wish.grant.data,
            expire_at: wish.expire_at,
            was_recovering: wish.recover.is_some() && flags.contains(SubFlags::RECOVERABLE),
            from_offset: wish.recover.map_or(0, |(_, offset)| offset),
            reject_unrecovered: wish.reject_unrecovered,
            cancelled: false,
            map: wish.map,
            filter: wish.filter,
        };
        if let Some(map) = &options.map
            && let Some(step) = &plan.map
        {
            let request = self.step_request(cx, map, &plan, step);
            return (plan, request);
        }
        let request = Request::Subscribe(Subscribe {
            channel: ChannelName::clone(&plan.channel),
            client: self.client,
            info: plan.info.clone(),
            presence: flags.contains(SubFlags::PRESENCE),
            announce: flags.contains(SubFlags::ANNOUNCE),
            positioned: flags.contains(SubFlags::POSITIONED),
            recover,
            retention: retention(options),
        });
        (plan, request)
    }

    fn recover(
        &self,
        cx: &Cx<'_, '_>,
        options: &ChannelOptions,
        flags: SubFlags,
        wish: &Wish,
    ) -> Option<Recover> {
        if !flags.contains(SubFlags::RECOVERABLE) {
            return None;
        }
        let cache = options.recovery_mode_cache;
        let (epoch, offset) = match &wish.recover {
            Some((epoch, offset)) => (epoch.clone(), *offset),
            None if cache && options.auto_cache_recover => (Box::default(), 0),
            None => return None,
        };
        Some(Recover {
            epoch,
            offset,
            mode: if cache { RecoveryMode::Cache } else { RecoveryMode::Stream },
            limit: cx.settings.client.recovery_max_publication_limit,
            // A reply that would not fit the outbox must not be asked for again and again: half
            // of the room leaves the rest for what surrounds the payloads.
            bytes_max: cx.out.room() / 2,
        })
    }

    /// How others see this client.
    pub(super) fn client_info(&self, chan_info: Option<Bytes>) -> Arc<ClientInfo> {
        Arc::new(ClientInfo {
            user: Arc::clone(&self.user),
            client: self.client,
            conn_info: self.extra.as_ref().and_then(|extra| extra.conn_info.clone()),
            chan_info,
        })
    }

    pub(super) fn unsubscribe(&mut self, cx: &mut Cx<'_, '_>, id: u32, channel: &str) {
        if channel.is_empty() {
            return self.refuse(cx, Disconnect::BAD_REQUEST, "unsubscribe names no channel");
        }
        self.leave(cx, channel);
        self.give_up_map(channel);
        self.reply(cx, id, &Reply::Unsubscribe);
    }

    /// Ends one subscription, if there is one. Returns whether there was.
    pub(super) fn leave(&mut self, cx: &mut Cx<'_, '_>, channel: &str) -> bool {
        let Some(subscription) = cx.registry.leave(cx.out.conn.slot, channel) else {
            return self.leave_poll(cx, channel);
        };
        let leaving = leaving(self.client, &ChannelName::from(channel), &subscription);
        let to = super::reply_to(cx, 0);
        cx.requests.push((Request::Unsubscribe(leaving), to));
        for call in super::map::hide(cx.settings, self.client, channel, subscription.flags) {
            cx.requests.push((Request::Map(Box::new(call)), to));
        }
        true
    }

    /// Invariant NO-SILENCE: a subscription that ends by itself has a line of the log.
    pub(super) fn note_unsubscribe(
        &self,
        cx: &Cx<'_, '_>,
        channel: &str,
        why: Unsubscribe,
        because: &str,
    ) {
        let line = format!("{} {}: {because}", why.code, Shown(channel));
        self.note(cx.log, why.code, &line);
    }

    /// Ends one subscription and tells the client. Returns whether there was one.
    pub(super) fn push_off(
        &mut self,
        cx: &mut Cx<'_, '_>,
        channel: &str,
        why: Unsubscribe,
    ) -> bool {
        let left = self.leave(cx, channel);
        if left {
            let Unsubscribe { code, reason } = why;
            cx.meter.rare.count(Of::Unsubscribe, 0, code);
            self.push(cx, &Push::Unsubscribe { channel, code, reason });
        }
        left
    }
}

/// The tags filter that came with a subscribe.
fn filter_of(
    options: &ChannelOptions,
    encoding: Encoding,
    request: &SubscribeRequest<'_>,
) -> Result<Option<Arc<Filter>>, String> {
    let Some(raw) = request.tags_filter else { return Ok(None) };
    if request.kind != 0 {
        return Err("a tags filter (tf) came, which only streams have".to_owned());
    }
    if !options.allow_tags_filter {
        return Err("a tags filter (tf) came, and allow_tags_filter is off".to_owned());
    }
    if options.allow_fossil && !request.delta.is_empty() {
        let because = "a tags filter (tf) and a delta came, which do not go together: a patch \
                       starts from the publication before, which the filter may hold back";
        return Err(because.to_owned());
    }
    let filter = filter::compile(encoding, raw);
    filter.map(Some).map_err(|why| format!("the tags filter (tf) is none: {why}"))
}

/// How the member will follow the channel.
fn flags(options: &ChannelOptions, asker: Asker<'_>, wish: &Wish) -> SubFlags {
    let keeps = retention(options).keeps();
    let history = access::may_see_history(options, asker);
    let recoverable = keeps
        && (options.force_recovery || (wish.recoverable && (options.allow_recovery || history)));
    let positioned = keeps
        && (recoverable
            || options.force_positioning
            || (wish.positioned && (options.allow_positioning || history)));
    let join_leave = options.join_leave
        && (options.force_push_join_leave
            || (wish.join_leave && access::may_see_presence(options, asker)));
    // A map's patches would be of the key's last value, and a filter may hold back what the next
    // patch is of; that is refused before, unless the settings have changed since.
    let delta = wish.delta && options.allow_fossil && wish.map.is_none() && wish.filter.is_none();
    let mut flags = super::map::flags(options, wish);
    for (flag, holds) in [
        (SubFlags::POSITIONED, positioned),
        (SubFlags::RECOVERABLE, recoverable),
        (SubFlags::JOIN_LEAVE, join_leave),
        (SubFlags::SERVER_SIDE, wish.server_side),
        (SubFlags::PRESENCE, options.presence),
        (SubFlags::ANNOUNCE, options.join_leave),
        (SubFlags::DELTA, delta),
        (SubFlags::SHOWS_CLIENT, !options.map_clients_prefix.is_empty()),
        (SubFlags::SHOWS_USER, !options.map_users_prefix.is_empty() && !asker.user.is_empty()),
    ] {
        if holds {
            flags = flags.with(flag);
        }
    }
    flags
}

/// A channel's name in a log line: what a client chose, so bounded and without control characters.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write;
        for each in self.0.chars().take(80) {
            f.write_char(if each.is_control() { '?' } else { each })?;
        }
        if self.0.chars().nth(80).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

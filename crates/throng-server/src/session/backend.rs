//! What a session asks the application's backends, and what it makes of their answers.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde_json::value::RawValue;
use throng_hub::map::Write;
use throng_hub::publication::ChannelName;
use throng_hub::registry::SubFlags;
use throng_hub::request::{Publish, Request};
use throng_wire::dialect::{ConnectRequest, Reply, SubscribeRequest};

use super::connect::Credentials;
use super::subscribe::{Shown, Wish};
use super::{Awaited, Cx, Kind, Session, Stage};
use crate::backend::{self, Answer, Ask, Call, Headers, Said};
use crate::codes::{Disconnect, ErrorCode, Unsubscribe};
use crate::config::{BackendId, DataFormat, Settings};
use crate::token::ConnectionClaims;

/// Seconds after which a refresh that came to nothing is tried again.
const RETRY_S: u32 = 60;

/// What a backend's answer is for.
#[derive(Debug)]
pub(super) enum Asked {
    Connect {
        id: u32,
        /// What the client asks of server-side subscriptions.
        wanted: Vec<(ChannelName, Wish)>,
    },
    Rpc {
        id: u32,
    },
    Publish {
        id: u32,
        publish: Box<Publish>,
        format: DataFormat,
    },
    Subscribe {
        id: u32,
        channel: ChannelName,
        wish: Box<Wish>,
        /// An unsubscribe came before the answer.
        cancelled: bool,
    },
    /// What is to become of a key of a map.
    Key {
        id: u32,
        channel: ChannelName,
        write: Box<Write>,
        removes: bool,
        format: DataFormat,
    },
    /// Whether the connection may go on.
    Refresh,
    /// Whether a subscription may go on.
    SubRefresh {
        channel: ChannelName,
    },
}

impl Asked {
    /// Whether a command of the client's own waits for it.
    pub(super) fn is_command(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Rpc { .. }
            | Self::Publish { .. }
            | Self::Key { .. }
            | Self::Subscribe { .. } => true,
            Self::Refresh | Self::SubRefresh { .. } => false,
        }
    }

    /// Bytes of the allowance that wait with it.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Publish { publish, .. } => publish.data.len(),
            _ => 0,
        }
    }
}

impl Session {
    /// Asks a backend and remembers what the answer is for.
    pub(super) fn ask_backend(
        &mut self,
        cx: &mut Cx<'_, '_>,
        (kind, id): (backend::Kind, BackendId),
        ask: Ask,
        asked: Asked,
    ) {
        let settings = cx.settings;
        // A bug of ours, should it be missing: the number comes from the same settings.
        let Some(backend) = settings.backends.get(id) else {
            return self.refuse(cx, Disconnect::INTERNAL, "a backend is not in the settings");
        };
        let extra = self.extra.as_deref();
        let none = Headers::default();
        let headers = extra.map_or((&none, &none), |extra| (&extra.headers, &extra.emulated));
        let meta = extra.and_then(|extra| extra.meta.as_ref());
        let meta = meta.filter(|_| backend.include_connection_meta).and_then(|meta| raw(meta));
        let transport = self.kind.over(cx.out.framing).name();
        let encoding = cx.out.framing.encoding();
        let ask = Ask { meta, ..ask.said_by(self.client.to_string(), transport, encoding) };
        let ask = if backend.binary_encoding { ask.in_base64() } else { ask };
        let call = Call::new((kind, id), backend, ask, headers, Some(self.address()));
        let pending = self.pending.get_or_insert_default();
        pending.last_ticket = pending.last_ticket.wrapping_add(1);
        let ticket = pending.last_ticket;
        if asked.is_command() {
            pending.command = cx.command;
        }
        pending.list.push((ticket, Awaited::Backend(Box::new(asked))));
        let to = super::reply_to(cx, ticket);
        cx.effects.calls.push((call, to));
    }

    /// A backend has answered. Returns whether the client may be read again.
    pub(crate) fn backend_answer(
        &mut self,
        cx: &mut Cx<'_, '_>,
        ticket: u32,
        answer: Answer,
    ) -> bool {
        self.take_up(cx);
        let Some(Awaited::Backend(asked)) = self.take_awaited(ticket) else { return false };
        let is_command = asked.is_command();
        self.forget_pending();
        match *asked {
            Asked::Connect { id, wanted } => self.connect_answered(cx, id, wanted, answer),
            Asked::Rpc { id } => match answer {
                Answer::Said(said) => {
                    self.reply(cx, id, &Reply::Rpc { data: said.grant.data.as_deref() });
                }
                Answer::Nothing => self.reply(cx, id, &Reply::Rpc { data: None }),
                refused => self.refused_by(cx, id, "rpc", refused),
            },
            Asked::Publish { id, publish, format } => {
                self.publish_answered(cx, id, (*publish, format), answer);
            }
            Asked::Key { id, channel, write, removes, format } => {
                self.key_answered(cx, id, (channel, *write, removes, format), answer);
            }
            Asked::Subscribe { id, channel, wish, cancelled } => {
                self.subscribe_answered(cx, id, (&channel, *wish, cancelled), answer);
            }
            Asked::Refresh => self.refresh_answered(cx, answer),
            Asked::SubRefresh { channel } => self.sub_refresh_answered(cx, &channel, answer),
        }
        self.goes_on(cx, is_command)
    }

    /// Asks who the client is.
    pub(super) fn ask_connect(
        &mut self,
        cx: &mut Cx<'_, '_>,
        (id, backend): (u32, BackendId),
        request: &ConnectRequest<'_>,
        wanted: Vec<(ChannelName, Wish)>,
    ) {
        self.stage = Stage::Connecting;
        let channels = wanted.iter().map(|(channel, _)| ChannelName::clone(channel)).collect();
        let data = request.data.as_deref();
        let ask = Ask::connect(data, (&request.name, &request.version), channels);
        let asked = Asked::Connect { id, wanted };
        self.ask_backend(cx, (backend::Kind::Connect, backend), ask, asked);
    }

    fn connect_answered(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        wanted: Vec<(ChannelName, Wish)>,
        answer: Answer,
    ) {
        let client = &cx.settings.client;
        let said = match answer {
            Answer::Said(said) => *said,
            Answer::Nothing if client.insecure || client.allow_anonymous_connect_without_token => {
                Said::default()
            }
            Answer::Nothing => {
                let because = format!(
                    "the connect backend knows no user for the client, and \
                     client.allow_anonymous_connect_without_token is off{}",
                    self.without_cookie()
                );
                return self.refuse(cx, Disconnect::BAD_REQUEST, &because);
            }
            refused => {
                self.stage = Stage::Failed;
                return self.refused_by(cx, id, "connect", refused);
            }
        };
        if super::wake::is_over(cx, said.expire_at) {
            self.stage = Stage::Failed;
            let because = "the expire_at that the connect backend answered is in the past";
            return self.connect_error(cx, id, ErrorCode::EXPIRED, because);
        }
        let Said { user, expire_at, grant, channels, subs, meta, .. } = said;
        let expiries = subs
            .iter()
            .filter_map(|(channel, sub)| Some((channel.as_str().into(), sub.expire_at?)))
            .collect();
        let subs = subs.into_iter().map(|(channel, sub)| (channel, sub.grant)).collect();
        let claims = ConnectionClaims { user, expire_at, info: grant.info, channels, subs, meta };
        self.admit(cx, id, Credentials { claims, data: grant.data, expiries }, &wanted);
    }

    pub(super) fn ask_rpc(
        &mut self,
        cx: &mut Cx<'_, '_>,
        (id, backend): (u32, BackendId),
        method: &str,
        data: &[u8],
    ) {
        let ask = Ask::rpc(&self.user, method, Some(data));
        self.ask_backend(cx, (backend::Kind::Rpc, backend), ask, Asked::Rpc { id });
    }

    /// Asks whether a client may publish this, and in which form.
    pub(super) fn ask_publish(
        &mut self,
        cx: &mut Cx<'_, '_>,
        (id, backend): (u32, BackendId),
        publish: Publish,
        format: DataFormat,
    ) {
        let ask = Ask::publish(&self.user, &publish.channel, Some(&publish.data));
        let asked = Asked::Publish { id, publish: Box::new(publish), format };
        self.ask_backend(cx, (backend::Kind::Publish, backend), ask, asked);
    }

    fn publish_answered(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        (mut publish, format): (Publish, DataFormat),
        answer: Answer,
    ) {
        let said = match answer {
            Answer::Said(said) => *said,
            Answer::Nothing => return self.said_nothing(cx, id, "publish", &publish.channel),
            refused => return self.refused_by(cx, id, "publish", refused),
        };
        if let Some(data) = said.grant.data {
            if let Err(because) = format.check(&data) {
                let channel = Shown(&publish.channel);
                let because = format!("{channel}: what the publish backend answered: {because}");
                return self.deny(cx, id, ErrorCode::INTERNAL, &because);
            }
            publish.draw = Some(Arc::new(cx.allowance.hold(data.len())));
            publish.data = data;
        }
        publish.skip_history = said.skip_history;
        publish.delta |= said.delta;
        publish.tags = said.tags.into();
        publish.idempotency_key =
            (!said.idempotency_key.is_empty()).then(|| said.idempotency_key.into());
        publish.version = said.version;
        publish.version_epoch = said.version_epoch.into();
        self.ask_node(cx, Request::Publish(publish), Awaited::Publish { id });
    }

    /// Asks whether a client may subscribe.
    pub(super) fn ask_subscribe(
        &mut self,
        cx: &mut Cx<'_, '_>,
        (id, backend): (u32, BackendId),
        request: &SubscribeRequest<'_>,
        wish: Wish,
    ) {
        let channel = ChannelName::from(&*request.channel);
        let data = request.data.as_deref();
        let ask = Ask::subscribe(&self.user, &channel, &request.token, data);
        let asked = Asked::Subscribe { id, channel, wish: Box::new(wish), cancelled: false };
        self.ask_backend(cx, (backend::Kind::Subscribe, backend), ask, asked);
    }

    fn subscribe_answered(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        (channel, mut wish, cancelled): (&ChannelName, Wish, bool),
        answer: Answer,
    ) {
        let said = match answer {
            Answer::Said(said) => *said,
            Answer::Nothing => return self.said_nothing(cx, id, "subscribe", channel),
            refused => return self.refused_by(cx, id, "subscribe", refused),
        };
        if super::wake::is_over(cx, said.expire_at) {
            let channel = Shown(channel);
            let because = format!("{channel}: the backend's expire_at is in the past");
            return self.deny(cx, id, ErrorCode::EXPIRED, &because);
        }
        let settings = cx.settings;
        // It was there when the backend was asked, but the settings may be a newer process's.
        let Ok(resolved) = settings.channel.resolve(channel) else {
            let because = format!("{}: its namespace is no more", Shown(channel));
            return self.deny(cx, id, ErrorCode::UNKNOWN_CHANNEL, &because);
        };
        wish.expire_at = said.expire_at;
        wish.grant = said.grant;
        if let Some(poll) = &resolved.options.poll {
            return self.subscribe_poll(cx, id, (channel, poll), (wish, cancelled));
        }
        let (mut plan, request) = self.plan(cx, channel, resolved.options, wish);
        plan.cancelled = cancelled;
        self.ask_node(cx, request, Awaited::Subscribe { id, plan: Box::new(plan) });
    }

    /// Only a result lets a client through; a wrong address may well answer `{}`.
    pub(super) fn said_nothing(&mut self, cx: &mut Cx<'_, '_>, id: u32, what: &str, channel: &str) {
        let channel = Shown(channel);
        let because = format!(
            "{channel}: the {what} backend answered no result; {{\"result\":{{}}}} allows it"
        );
        self.deny(cx, id, ErrorCode::PERMISSION_DENIED, &because);
    }

    /// The connection's right has run out: asks whether it may go on.
    pub(super) fn ask_refresh(&mut self, cx: &mut Cx<'_, '_>, backend: BackendId) {
        // Whatever becomes of the question, it is asked again then.
        self.expires_s = cx.out.second.saturating_add(RETRY_S);
        let ask = Ask::refresh(&self.user);
        self.ask_backend(cx, (backend::Kind::Refresh, backend), ask, Asked::Refresh);
    }

    fn refresh_answered(&mut self, cx: &mut Cx<'_, '_>, answer: Answer) {
        let over = "the refresh backend said that the connection is over";
        match answer {
            Answer::Said(said) if !said.expired && !super::wake::is_over(cx, said.expire_at) => {
                if said.grant.info.is_some() {
                    self.extra.get_or_insert_default().conn_info = said.grant.info;
                }
                if said.meta.is_some() {
                    self.extra.get_or_insert_default().meta = said.meta;
                }
                self.set_expiry(cx, said.expire_at);
            }
            Answer::Said(_) | Answer::Nothing => {
                return self.refuse(cx, Disconnect::CONNECTION_EXPIRED, over);
            }
            Answer::Disconnect(why) => return self.refuse(cx, why, over),
            Answer::Error { .. } | Answer::Failed => {
                self.expires_s = cx.out.second.saturating_add(RETRY_S);
            }
        }
        cx.out.wake_at(self.wake_at());
    }

    /// A subscription's right has run out: asks whether it may go on.
    pub(super) fn ask_sub_refresh(
        &mut self,
        cx: &mut Cx<'_, '_>,
        backend: BackendId,
        channel: &ChannelName,
    ) {
        self.set_subscription_expiry(cx, channel, cx.out.second.saturating_add(RETRY_S));
        let ask = Ask::sub_refresh(&self.user, channel);
        let asked = Asked::SubRefresh { channel: ChannelName::clone(channel) };
        self.ask_backend(cx, (backend::Kind::SubRefresh, backend), ask, asked);
    }

    fn sub_refresh_answered(&mut self, cx: &mut Cx<'_, '_>, channel: &ChannelName, answer: Answer) {
        let slot = cx.out.conn.slot;
        let server_side = match cx.registry.find(slot, channel) {
            Some(subscription) => subscription.flags.contains(SubFlags::SERVER_SIDE),
            None if self.is_polling(channel) => false,
            None => return,
        };
        let because = "the sub_refresh backend said that the subscription is over";
        match answer {
            Answer::Said(said) if !said.expired && !super::wake::is_over(cx, said.expire_at) => {
                let at =
                    said.expire_at.map_or(0, |at| super::wake::expiry(cx, at, Duration::ZERO).0);
                self.set_subscription_expiry(cx, channel, at);
                if said.grant.info.is_some() {
                    let info = self.client_info(said.grant.info);
                    if let Some(subscription) = cx.registry.find_mut(slot, channel)
                        && subscription.info.is_some()
                    {
                        subscription.info = Some(info);
                    }
                }
            }
            Answer::Said(_) | Answer::Nothing if server_side => {
                self.refuse(cx, Disconnect::SUBSCRIPTION_EXPIRED, because);
            }
            Answer::Said(_) | Answer::Nothing => {
                if self.push_off(cx, channel, Unsubscribe::EXPIRED) {
                    self.note_unsubscribe(cx, channel, Unsubscribe::EXPIRED, because);
                }
            }
            Answer::Disconnect(why) => self.refuse(cx, why, because),
            Answer::Error { .. } | Answer::Failed => {
                self.set_subscription_expiry(cx, channel, cx.out.second.saturating_add(RETRY_S));
            }
        }
    }

    pub(super) fn set_subscription_expiry(
        &mut self,
        cx: &mut Cx<'_, '_>,
        channel: &str,
        at_s: u32,
    ) {
        if let Some(subscription) = cx.registry.find_mut(cx.out.conn.slot, channel) {
            subscription.expires_s = at_s;
        } else {
            self.set_poll_expiry(channel, at_s);
        }
        self.note_subscription_expiry(cx, at_s);
    }

    /// What the line about a client that is not let in says of a cookie that it did not bring; the
    /// same is remembered with its close.
    fn without_cookie(&mut self) -> String {
        let Some(extra) = &mut self.extra else { return String::new() };
        let Some(no_cookie) = extra.no_cookie.take() else { return String::new() };
        extra.afterword = Some(no_cookie.facts().into());
        format!(": {no_cookie}")
    }

    /// Passes on what a backend has against a command.
    pub(super) fn refused_by(&mut self, cx: &mut Cx<'_, '_>, id: u32, what: &str, answer: Answer) {
        let without_cookie = self.without_cookie();
        let (code, message, temporary): (u32, &str, bool) = match &answer {
            Answer::Disconnect(why) => {
                let because = format!("the {what} backend said so{without_cookie}");
                return self.refuse(cx, why.clone(), &because);
            }
            Answer::Error { code, message, temporary } => (*code, message, *temporary),
            Answer::Said(_) | Answer::Nothing | Answer::Failed => {
                let ErrorCode { code, message, .. } = ErrorCode::INTERNAL;
                (code, message, true)
            }
        };
        let because = if answer == Answer::Failed {
            format!("{code} the {what} backend did not answer as it should{without_cookie}")
        } else {
            format!("{code} the {what} backend said so{without_cookie}")
        };
        if self.kind == Kind::Unidirectional {
            return self.refuse(cx, Disconnect::INTERNAL, &because);
        }
        self.note(cx.log, code, &because);
        self.reply(cx, id, &Reply::Error { code, message, temporary });
    }
}

/// Who is asked whether subscriptions of this channel may go on.
pub(super) fn sub_refresh_backend(settings: &Settings, channel: &str) -> Option<BackendId> {
    settings.channel.resolve(channel).ok()?.options.sub_refresh_backend
}

/// What a client says that it would have sent as headers, of those that some backend wants.
pub(super) fn emulated(wanted: &[HeaderName], request: &ConnectRequest<'_>) -> Headers {
    let mut headers = Vec::new();
    for (name, value) in &request.headers {
        let name = wanted.iter().find(|wanted| wanted.as_str().eq_ignore_ascii_case(name));
        if let Some((name, value)) = name.zip(value.parse().ok()) {
            headers.push((name.clone(), value));
        }
    }
    headers.into()
}

/// What a token or a backend gave, which is JSON.
fn raw(payload: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(payload).ok()
}

//! The commands that only ask: presence, its statistics, history, and remote calls.

use throng_hub::publication::ChannelName;
use throng_hub::request::{HistoryQuery, Request, Since};
use throng_wire::dialect::{HistoryRequest, Reply};

use super::access::{self, Asker};
use super::subscribe::{Shown, retention};
use super::{Awaited, Cx, Session};
use crate::codes::{Disconnect, ErrorCode};
use crate::config::{ChannelError, ChannelOptions, RpcOf};

/// How much of a presence is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Full,
    Stats,
}

impl Session {
    pub(super) fn presence(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        channel: &str,
        presence: Presence,
    ) {
        let Some(options) = self.channel_of(cx, id, channel) else { return };
        if !options.presence {
            let because = format!("{}: presence is off", Shown(channel));
            return self.deny(cx, id, ErrorCode::NOT_AVAILABLE, &because);
        }
        if !access::may_see_presence(options, self.asker(cx, channel)) {
            let because = format!(
                "{}: allow_presence_for_client and allow_presence_for_subscriber do not cover it",
                Shown(channel)
            );
            return self.deny(cx, id, ErrorCode::PERMISSION_DENIED, &because);
        }
        let channel = ChannelName::from(channel);
        match presence {
            Presence::Full => {
                self.ask_node(cx, Request::Presence { channel }, Awaited::Presence { id });
            }
            Presence::Stats => {
                self.ask_node(
                    cx,
                    Request::PresenceStats { channel },
                    Awaited::PresenceStats { id },
                );
            }
        }
    }

    pub(super) fn history(&mut self, cx: &mut Cx<'_, '_>, id: u32, request: &HistoryRequest<'_>) {
        let channel: &str = &request.channel;
        let Some(options) = self.channel_of(cx, id, channel) else { return };
        let retention = retention(options);
        if !retention.keeps() {
            let because = format!("{}: history_size or history_ttl is zero", Shown(channel));
            return self.deny(cx, id, ErrorCode::NOT_AVAILABLE, &because);
        }
        if !access::may_see_history(options, self.asker(cx, channel)) {
            let because = format!(
                "{}: allow_history_for_client and allow_history_for_subscriber do not cover it",
                Shown(channel)
            );
            return self.deny(cx, id, ErrorCode::PERMISSION_DENIED, &because);
        }
        let most = cx.settings.client.history_max_publication_limit;
        let limit = usize::try_from(request.limit).map_or(most, |limit| limit.min(most));
        let query = HistoryQuery {
            limit: Some(limit),
            since: request
                .since
                .as_ref()
                .map(|since| Since { offset: since.offset, epoch: Box::from(&*since.epoch) }),
            reverse: request.reverse,
            // Half of the room: the rest is for what surrounds the payloads.
            bytes_max: cx.out.room() / 2,
        };
        let channel = ChannelName::from(channel);
        let request = Request::History { channel, query, retention };
        self.ask_node(cx, request, Awaited::History { id });
    }

    pub(super) fn rpc(&mut self, cx: &mut Cx<'_, '_>, id: u32, method: &str, data: &[u8]) {
        let backends = &cx.settings.backends;
        let ping = cx.settings.rpc_ping.as_deref();
        if ping == Some(method) {
            return self.reply(cx, id, &Reply::Rpc { data: Some(b"{}") });
        }
        let because = match backends.rpc_of(method) {
            Ok(RpcOf { backend: Some(backend), .. }) => {
                return self.ask_rpc(cx, (id, backend), method, data);
            }
            _ if !backends.answer_rpc() && ping.is_none() => {
                let because = "rpc: there is no backend for it, and rpc.ping.enabled is off";
                return self.deny(cx, id, ErrorCode::NOT_AVAILABLE, because);
            }
            Ok(of) => format!("proxy_enabled of {} is off", of.option()),
            Err(namespace) => format!("rpc.namespaces has no {}", Shown(namespace)),
        };
        let because = format!("rpc {}: {because}", Shown(method));
        self.deny(cx, id, ErrorCode::METHOD_NOT_FOUND, &because);
    }

    /// The options of a command's channel; answers the command where there are none.
    fn channel_of<'s>(
        &self,
        cx: &mut Cx<'s, '_>,
        id: u32,
        channel: &str,
    ) -> Option<&'s ChannelOptions> {
        let settings = cx.settings;
        let error = match settings.channel.resolve(channel) {
            Ok(resolved) => return Some(resolved.options),
            Err(error) => error,
        };
        let code = match error {
            ChannelError::Empty => {
                self.refuse(cx, Disconnect::BAD_REQUEST, "the command names no channel");
                return None;
            }
            ChannelError::UnknownNamespace => ErrorCode::UNKNOWN_CHANNEL,
            _ => ErrorCode::BAD_REQUEST,
        };
        self.deny(cx, id, code, &format!("{}: {error}", Shown(channel)));
        None
    }

    fn asker<'s>(&'s self, cx: &Cx<'_, '_>, channel: &str) -> Asker<'s> {
        Asker {
            user: &self.user,
            subscriber: cx.registry.find(cx.out.conn.slot, channel).is_some(),
            insecure: cx.settings.client.insecure,
        }
    }
}

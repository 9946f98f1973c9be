//! Subscribing and unsubscribing: the checks, the plan, and what is undone.

use std::sync::Arc;

use bytes::Bytes;
use throng_hub::publication::{ChannelName, ClientInfo};
use throng_hub::registry::{SubFlags, Subscription};
use throng_hub::request::{
    Recover, RecoveryMode, Request, Retention, Subscribe, Unsubscribe as HubUnsubscribe,
};
use throng_wire::dialect::{Push, Reply, SubscribeRequest};
use uuid::Uuid;

use super::access::{self, Asker};
use super::{Awaited, Cx, Session};
use crate::codes::{Disconnect, ErrorCode, Unsubscribe};
use crate::config::{ChannelError, ChannelOptions, Resolved};
use crate::token::{Grant, TokenError};

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
#[derive(Debug, Default)]
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
    let millis = |duration: std::time::Duration| {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    };
    Retention {
        size: options.history_size,
        ttl_ms: millis(options.history_ttl),
        meta_ttl_ms: millis(options.history_meta_ttl),
    }
}

impl Session {
    pub(super) fn subscribe(&mut self, cx: &mut Cx<'_, '_>, id: u32, request: &SubscribeRequest<'_>) {
        let channel: &str = &request.channel;
        if channel.is_empty() {
            return self.refuse(cx, Disconnect::BAD_REQUEST, "subscribe names no channel");
        }
        let settings = cx.settings;
        let resolved = match self.checked(cx, request) {
            Ok(resolved) => resolved,
            Err((error, because)) => {
                return self.deny(cx, id, error, &format!("{}: {because}", Shown(channel)));
            }
        };
        let mut wish = Wish {
            positioned: request.positioned,
            recoverable: request.recoverable,
            join_leave: request.join_leave,
            recover: request.recover.then(|| (Box::from(&*request.epoch), request.offset)),
            reject_unrecovered: request.flag & 2 != 0,
            ..Wish::default()
        };
        if request.token.is_empty() {
            let insecure = settings.client.insecure;
            let listed = resolved.allows_user(&self.user);
            let verdict = match listed {
                Some(true) => Ok(()),
                Some(false) => Err(format!(
                    "{}: this user is not in the channel's own list behind {}",
                    Shown(channel),
                    settings.channel.user_boundary
                )),
                None if resolved.private && !insecure => Err(format!(
                    "{}: no subscription token, and a channel beginning with {} needs one",
                    Shown(channel),
                    settings.channel.private_prefix
                )),
                None => access::may_subscribe(resolved.options, &self.user, insecure).map_err(
                    |option| {
                        format!("{}: no subscription token, and {option} is off", Shown(channel))
                    },
                ),
            };
            if let Err(because) = verdict {
                return self.deny(cx, id, ErrorCode::PERMISSION_DENIED, &because);
            }
        } else {
            let claims = match self.subscription_claims(cx, channel, &request.token) {
                Ok(claims) => claims,
                Err(Denied::Error(error, because)) => return self.deny(cx, id, error, &because),
                Err(Denied::Close(why, because)) => return self.refuse(cx, why, &because),
            };
            wish.expire_at = claims.expire_at;
            wish.grant = claims.grant;
        }
        let (plan, request) = self.plan(cx, channel, resolved.options, wish);
        self.ask_node(cx, request, Awaited::Subscribe { id, plan: Box::new(plan) });
    }

    /// The checks before any question of right, in the protocol's order.
    fn checked<'s>(
        &self,
        cx: &Cx<'_, 's>,
        request: &SubscribeRequest<'_>,
    ) -> Result<Resolved<'s>, (ErrorCode, String)>
    where
        's: 's,
    {
        let _ = (cx, request);
        unreachable!()
    }
}

/// A channel's name in a log line: what a client chose, so bounded and without control characters.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for each in self.0.chars().take(80) {
            f.write_str(if each.is_control() { "?" } else { each.encode_utf8(&mut [0; 4]) })?;
        }
        if self.0.chars().nth(80).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

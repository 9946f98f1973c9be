//! What the server API orders sessions to do.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::backend::Asked;
use super::proof::Claimed;
use super::subscribe::Wish;
use super::{Awaited, Cx, Session};
use crate::codes::{Disconnect, Unsubscribe};
use crate::token::Grant;

/// Whom an order is for: all connections of a user, or some of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    pub user: Arc<str>,
    /// Only the connection with this client id.
    pub client: Option<Uuid>,
    /// Only the connection with this session id.
    pub session: Option<Uuid>,
    /// Not those.
    pub spared: Vec<Uuid>,
    /// Only connections with a smaller number.
    pub before: Option<u64>,
}

/// An order.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Subscribe {
        channel: Arc<str>,
        grant: Grant,
        /// Unix seconds.
        expire_at: Option<i64>,
        recover_since: Option<(Box<str>, u64)>,
    },
    /// An empty channel is every channel.
    Unsubscribe {
        channel: Arc<str>,
    },
    Disconnect(Disconnect),
    Refresh {
        expired: bool,
        expire_at: Option<i64>,
        info: Option<Bytes>,
    },
}

impl Session {
    /// Whether the order is for this session.
    pub(crate) fn is_meant(&self, target: &Target) -> bool {
        self.user == target.user
            && target.client.is_none_or(|client| client == self.client)
            && target.session.is_none_or(|session| self.session.as_deref() == Some(&session))
            && !target.spared.contains(&self.client)
    }

    /// Carries an order out.
    pub(crate) fn order(&mut self, cx: &mut Cx<'_, '_>, order: &Order) {
        match order {
            Order::Subscribe { channel, grant, expire_at, recover_since } => {
                let taken = cx.registry.find(cx.out.conn.slot, channel).is_some()
                    || self.is_polling(channel);
                let settings = cx.settings;
                if taken || self.is_subscribing(channel) {
                    return;
                }
                let Ok(resolved) = settings.channel.resolve(channel) else { return };
                if resolved.options.map.is_some() || resolved.options.poll.is_some() {
                    return;
                }
                let wish = Wish {
                    grant: grant.clone(),
                    expire_at: *expire_at,
                    recover: recover_since.clone(),
                    server_side: true,
                    ..Wish::default()
                };
                let (plan, request) = self.plan(cx, channel, resolved.options, wish);
                self.ask_node(cx, request, Awaited::OrderedSubscribe { plan: Box::new(plan) });
            }
            Order::Unsubscribe { channel } => self.ordered_off(cx, channel),
            Order::Disconnect(why) => {
                let because = if *why == Disconnect::CONNECTION_LIMIT {
                    "a newer connection of the user took this one's place: \
                     client.subscribe_to_user_personal_channel.single_connection is on"
                } else {
                    "the server API asked for it"
                };
                self.refuse(cx, why.clone(), because);
            }
            Order::Refresh { expired: true, .. } => {
                self.refuse(cx, Disconnect::CONNECTION_EXPIRED, "the server API said so");
            }
            Order::Refresh { expire_at, info, .. } => {
                if info.is_some() {
                    self.extra.get_or_insert_default().conn_info.clone_from(info);
                }
                let ttl = self.set_expiry(cx, *expire_at);
                cx.out.wake_at(self.wake_at());
                self.push_refresh(cx, ttl);
            }
        }
    }

    fn ordered_off(&mut self, cx: &mut Cx<'_, '_>, channel: &str) {
        let slot = cx.out.conn.slot;
        let channels: Vec<Arc<str>> = cx
            .registry
            .subscriptions(slot)
            .map(|(name, _)| name)
            .chain(self.polled_channels())
            .map(Arc::clone)
            .filter(|name| channel.is_empty() || &**name == channel)
            .collect();
        for each in channels {
            self.push_off(cx, &each, Unsubscribe::SERVER);
        }
        self.cancel_maps(channel);
        // Those that are not answered yet end as soon as they are.
        let Some(pending) = &mut self.pending else { return };
        for (_, awaited) in &mut pending.list {
            if let Awaited::Subscribe { plan, .. } | Awaited::OrderedSubscribe { plan } = awaited
                && (channel.is_empty() || &*plan.channel == channel)
            {
                plan.cancelled = true;
            }
            if let Awaited::Proof(unproven) = awaited
                && let Claimed::Subscribe { channel: asked, cancelled, .. } = &mut unproven.claimed
                && (channel.is_empty() || **asked == *channel)
            {
                *cancelled = true;
            }
            if let Awaited::Backend(asked) = awaited
                && let Asked::Subscribe { channel: asked, cancelled, .. } = &mut **asked
                && (channel.is_empty() || **asked == *channel)
            {
                *cancelled = true;
            }
        }
    }

    pub(super) fn is_subscribing(&self, channel: &str) -> bool {
        self.pending.as_ref().is_some_and(|pending| {
            pending.list.iter().any(|(_, awaited)| match awaited {
                Awaited::Subscribe { plan, .. }
                | Awaited::ConnectSubscribe { plan }
                | Awaited::OrderedSubscribe { plan } => &*plan.channel == channel,
                Awaited::Backend(asked) => {
                    matches!(&**asked, Asked::Subscribe { channel: asked, .. } if **asked == *channel)
                }
                Awaited::Proof(unproven) => {
                    matches!(&unproven.claimed, Claimed::Subscribe { channel: asked, .. }
                        if **asked == *channel)
                }
                _ => false,
            })
        })
    }
}

//! What a session does with the time: pings, and everything that expires.

use std::cmp::min;

use throng_hub::publication::ChannelName;
use throng_hub::registry::SubFlags;
use throng_wire::dialect::Push;
use throng_wire::websocket::Opcode;

use super::backend::sub_refresh_backend;
use super::{Cx, Kind, Session, Stage, seconds};
use crate::codes::{Disconnect, Unsubscribe};
use crate::metrics::Frame;
use crate::shard::{NEVER, WakeAt};

impl Session {
    /// A second that the session asked for has come.
    pub(crate) fn wake(&mut self, cx: &mut Cx<'_, '_>) -> WakeAt {
        let second = cx.out.second;
        if self.expires_s <= second
            && self.stage == Stage::Ready
            && let Some(backend) = cx.settings.backends.refresh
        {
            self.ask_refresh(cx, backend);
        }
        if self.expires_s <= second {
            self.expires_s = NEVER;
            if self.stage == Stage::Ready {
                self.refuse(
                    cx,
                    Disconnect::CONNECTION_EXPIRED,
                    "the token ran out and no new one came within client.expired_close_delay",
                );
            } else {
                self.refuse(
                    cx,
                    Disconnect::STALE,
                    "no accepted connect command within client.stale_close_delay",
                );
            }
            return NEVER;
        }
        if self.pong_by_s <= second {
            self.refuse(cx, Disconnect::NO_PONG, "no answer to a ping within client.pong_timeout");
            return NEVER;
        }
        if self.subs_expire_s <= second {
            self.expire_subscriptions(cx);
        }
        if self.ping_s <= second {
            self.ping(cx);
        }
        self.wake_at()
    }

    /// The next second in which there is something to do.
    pub(super) fn wake_at(&self) -> WakeAt {
        min(min(self.expires_s, self.pong_by_s), min(self.subs_expire_s, self.ping_s))
    }

    /// Begins to ping a client that has just connected: first at a moment that is its own, so that
    /// a crowd that came together is not pinged together.
    pub(super) fn begin_pings(&mut self, cx: &mut Cx<'_, '_>) {
        let interval = seconds(cx.settings.client.ping_interval);
        if interval == 0 {
            return;
        }
        let early = interval.div_ceil(2);
        let jitter = cx.out.rng.below(interval - early);
        self.ping_s = cx.out.second + early + jitter;
    }

    fn ping(&mut self, cx: &mut Cx<'_, '_>) {
        let second = cx.out.second;
        self.ping_s = second + seconds(cx.settings.client.ping_interval).max(1);
        if self.native_ping {
            cx.out.frame(Opcode::Ping, &[]);
        } else {
            let ping = cx.out.framing.encoding().ping();
            cx.meter.sent(self.transport(cx), Frame::ServerPing, ping.len());
            cx.out.message(ping);
        }
        // A unidirectional client cannot answer; that its socket takes the ping is all we learn.
        if self.kind == Kind::Bidirectional || self.native_ping {
            self.awaits_pong = true;
            self.pong_by_s = second + seconds(cx.settings.client.pong_timeout).max(1);
        }
    }

    /// The client has answered a ping of the protocol.
    pub(super) fn take_pong(&mut self, cx: &mut Cx<'_, '_>) {
        if self.awaits_pong {
            self.count_pong(cx);
            self.take_native_pong();
        } else {
            self.refuse(cx, Disconnect::BAD_REQUEST, "an answer came to a ping that was not sent");
        }
    }

    /// How long an answer took that may have been waited for.
    pub(super) fn count_pong(&self, cx: &Cx<'_, '_>) {
        let timeout = seconds(cx.settings.client.pong_timeout).max(1);
        let pinged_s = self.pong_by_s.saturating_sub(timeout);
        if self.awaits_pong
            && let Some(took_us) = cx.pings.since(pinged_s, cx.at_us)
        {
            cx.meter.answered(self.transport(cx), took_us);
        }
    }

    pub(super) fn take_native_pong(&mut self) {
        self.awaits_pong = false;
        self.pong_by_s = NEVER;
    }

    /// Ends the subscriptions whose grace is over, and finds the next one to end.
    fn expire_subscriptions(&mut self, cx: &mut Cx<'_, '_>) {
        let (slot, second) = (cx.out.conn.slot, cx.out.second);
        self.subs_expire_s = NEVER;
        let mut over: Vec<(ChannelName, SubFlags)> = Vec::new();
        for (channel, subscription) in cx.registry.subscriptions(slot) {
            match subscription.expires_s {
                0 => {}
                at if at <= second => over.push((ChannelName::clone(channel), subscription.flags)),
                at => self.subs_expire_s = min(self.subs_expire_s, at),
            }
        }
        let (polls, next_s) = self.expire_polls(cx);
        self.subs_expire_s = min(self.subs_expire_s, next_s);
        over.extend(polls.into_iter().map(|channel| (channel, SubFlags::default())));
        for (channel, flags) in over {
            if let Some(backend) = sub_refresh_backend(cx.settings, &channel) {
                self.ask_sub_refresh(cx, backend, &channel);
                continue;
            }
            if flags.contains(SubFlags::SERVER_SIDE) {
                self.refuse(
                    cx,
                    Disconnect::SUBSCRIPTION_EXPIRED,
                    "a server-side subscription was not renewed within \
                     client.expired_sub_close_delay",
                );
                return;
            }
            if self.push_off(cx, &channel, Unsubscribe::EXPIRED) {
                let because = "not renewed within client.expired_sub_close_delay";
                self.note_unsubscribe(cx, &channel, Unsubscribe::EXPIRED, because);
            }
        }
    }

    /// Remembers that a subscription expires then.
    pub(super) fn note_subscription_expiry(&mut self, cx: &mut Cx<'_, '_>, at_s: u32) {
        if at_s != 0 && at_s < self.subs_expire_s {
            self.subs_expire_s = at_s;
            cx.out.wake_at(self.wake_at());
        }
    }

    /// Says something to a client whose right was renewed or taken from outside.
    pub(super) fn push_refresh(&self, cx: &mut Cx<'_, '_>, ttl: Option<u32>) {
        self.push(cx, &Push::Refresh { expires: ttl.is_some(), ttl: ttl.unwrap_or(0) });
    }
}

/// The shard's second at which a right that ends at `unix_s` is over with its grace, and the
/// seconds until it ends.
pub(super) fn expiry(cx: &Cx<'_, '_>, unix_s: i64, grace: std::time::Duration) -> (u32, u32) {
    let left = unix_s.saturating_sub(now_s(cx)).max(0);
    let ttl = u32::try_from(left).unwrap_or(NEVER / 4).min(NEVER / 4);
    (cx.out.second.saturating_add(ttl).saturating_add(seconds(grace)), ttl)
}

/// Whether a right that ends at `unix_s` is over already.
pub(super) fn is_over(cx: &Cx<'_, '_>, unix_s: Option<i64>) -> bool {
    unix_s.is_some_and(|unix_s| unix_s <= now_s(cx))
}

fn now_s(cx: &Cx<'_, '_>) -> i64 {
    cx.out.now.unix_ms / 1000
}

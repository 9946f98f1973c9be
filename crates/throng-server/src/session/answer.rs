//! What a session does with the node's answers.

use std::time::Duration;

use throng_hub::map::MapAnswer;
use throng_hub::publication::ChannelName;
use throng_hub::registry::{Join, SubFlags};
use throng_hub::request::{Answer, HubError, Recovery, Request, Subscribed};
use throng_wire::dialect::{Push, Reply};

use super::backend::sub_refresh_backend;
use super::say::{self, Outcome};
use super::subscribe::{Plan, Shown};
use super::{Awaited, Cx, Session, wake};
use crate::codes::{Disconnect, ErrorCode, Unsubscribe};

impl Session {
    /// An answer has come for `ticket`. Returns whether the client may be read again.
    pub(crate) fn answer(&mut self, cx: &mut Cx<'_, '_>, ticket: u32, answer: Answer) -> bool {
        self.take_up(cx);
        let Some(awaited) = self.take_awaited(ticket) else { return false };
        let is_command = awaited.is_command();
        self.settle(cx, awaited, answer);
        self.forget_pending();
        self.goes_on(cx, is_command)
    }

    /// The command that waits is the one at hand again.
    pub(super) fn take_up(&self, cx: &mut Cx<'_, '_>) {
        cx.command = self.pending.as_ref().map(|pending| pending.command).unwrap_or_default();
    }

    /// Whether the client may be read again; then a command that waited is over.
    pub(super) fn goes_on(&self, cx: &mut Cx<'_, '_>, was_command: bool) -> bool {
        // What the server ordered meanwhile makes no room for a publication.
        let goes_on = !self.is_waiting() && (was_command || !self.is_starving());
        if goes_on && was_command {
            cx.effects.answered = Some(cx.command);
        }
        goes_on
    }

    /// What the answer of this number is for.
    pub(super) fn take_awaited(&mut self, ticket: u32) -> Option<Awaited> {
        let pending = self.pending.as_mut()?;
        let at = pending.list.iter().position(|(asked, _)| *asked == ticket)?;
        Some(pending.list.swap_remove(at).1)
    }

    /// Gives the list of questions up when none is left.
    pub(super) fn forget_pending(&mut self) {
        let idle = |pending: &super::Pending| {
            pending.list.is_empty() && pending.connect.is_none() && pending.catching.is_empty()
        };
        if self.pending.as_deref().is_some_and(idle) {
            self.pending = None;
        }
    }

    fn settle(&mut self, cx: &mut Cx<'_, '_>, awaited: Awaited, answer: Answer) {
        match (awaited, answer) {
            (Awaited::Subscribe { id, plan }, Answer::Subscribed { result, .. }) => {
                self.subscribed(cx, id, *plan, result);
            }
            (Awaited::ConnectSubscribe { plan }, Answer::Subscribed { result, .. }) => {
                let channel = ChannelName::clone(&plan.channel);
                match self.enter(cx, *plan, result) {
                    Ok(outcome) => self.connect_progress(cx, outcome),
                    // Connected without a channel that it relies on, the client would never know.
                    Err(error) => {
                        let because = format!(
                            "{}: a server-side subscription failed: {}",
                            Shown(&channel),
                            error.message
                        );
                        self.refuse(cx, Disconnect::INTERNAL, &because);
                    }
                }
            }
            (Awaited::OrderedSubscribe { plan }, Answer::Subscribed { result, .. }) => {
                self.subscribed_by_order(cx, *plan, result);
            }
            (Awaited::Subscribe { id, plan }, Answer::Entered { result, .. }) => {
                self.entered(cx, id, *plan, result);
            }
            (Awaited::Publish { id }, Answer::Map(MapAnswer::Written(result))) => match result {
                Ok(_) => self.reply(cx, id, &Reply::Publish),
                Err(error) => self.refused_by_map(cx, id, error),
            },
            (Awaited::Publish { id }, Answer::Published(result)) => match result {
                Ok(_) => self.reply(cx, id, &Reply::Publish),
                Err(error) => self.hub_error(cx, id, error),
            },
            (Awaited::Presence { id }, Answer::Presence(result)) => match result {
                Ok(list) => {
                    let list: Vec<_> = list.iter().map(|info| say::client_info(info)).collect();
                    self.reply(cx, id, &Reply::Presence(&list));
                }
                Err(error) => self.hub_error(cx, id, error),
            },
            (Awaited::PresenceStats { id }, Answer::PresenceStats(result)) => match result {
                Ok(stats) => {
                    let (num_clients, num_users) = (stats.clients, stats.users);
                    self.reply(cx, id, &Reply::PresenceStats { num_clients, num_users });
                }
                Err(error) => self.hub_error(cx, id, error),
            },
            (Awaited::History { id }, Answer::History(result)) => match result {
                Ok(page) => {
                    let publications = say::publications(&page.publications);
                    let epoch = page.position.epoch;
                    let (epoch, offset) = (epoch.as_str(), page.position.offset);
                    let reply = Reply::History { publications: &publications, epoch, offset };
                    self.reply(cx, id, &reply);
                }
                Err(error) => self.hub_error(cx, id, error),
            },
            (awaited, answer) => {
                // A bug of ours: the node answers each kind of question with its kind of answer.
                debug_assert!(false, "{awaited:?} was answered with {answer:?}");
                cx.out.close(Disconnect::INTERNAL);
            }
        }
    }

    /// A subscription that the server API ordered is answered.
    fn subscribed_by_order(
        &mut self,
        cx: &mut Cx<'_, '_>,
        plan: Plan,
        result: Result<Subscribed, HubError>,
    ) {
        let (cancelled, channel) = (plan.cancelled, ChannelName::clone(&plan.channel));
        let outcome = match self.enter(cx, plan, result) {
            Ok(outcome) => outcome,
            Err(error) => {
                let ErrorCode { code, message, .. } = error;
                let line =
                    format!("{code} {}: the ordered subscription: {message}", Shown(&channel));
                return self.note(cx.log, code, &line);
            }
        };
        let list = outcome.publications(cx.out.framing.encoding());
        let result = outcome.result(&list);
        self.push(cx, &Push::Subscribe { channel: &channel, result });
        // The push has no place for what was recovered; it counts on from the offset it tells.
        for publication in list {
            self.push(cx, &Push::Publication { channel: &channel, publication });
        }
        if cancelled {
            self.push_off(cx, &channel, Unsubscribe::SERVER);
        }
    }

    /// The client's own subscribe command is answered.
    fn subscribed(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        plan: Plan,
        result: Result<Subscribed, HubError>,
    ) {
        let unrecovered =
            matches!(&result, Ok(Subscribed { recovery: Recovery::NotRecovered, .. }));
        if plan.reject_unrecovered && plan.was_recovering && unrecovered {
            let to = super::reply_to(cx, 0);
            cx.requests.push((Request::Unsubscribe(plan.undo(self.client)), to));
            cx.meter.recovered(false, 0);
            let because = format!("{}: the position cannot be recovered", Shown(&plan.channel));
            return self.deny(cx, id, ErrorCode::UNRECOVERABLE_POSITION, &because);
        }
        let cancelled = plan.cancelled;
        match self.enter(cx, plan, result) {
            Ok(outcome) => {
                let list = outcome.publications(cx.out.framing.encoding());
                self.reply(cx, id, &Reply::Subscribe(outcome.result(&list)));
                if cancelled {
                    self.push_off(cx, &outcome.channel, Unsubscribe::SERVER);
                }
            }
            Err(error) => self.error(cx, id, error),
        }
    }

    /// Enters the channel as planned: from this moment its publications reach the client.
    pub(super) fn enter(
        &mut self,
        cx: &mut Cx<'_, '_>,
        plan: Plan,
        result: Result<Subscribed, HubError>,
    ) -> Result<Outcome, ErrorCode> {
        let subscribed = result.map_err(error_code)?;
        let grace = cx.settings.client.expired_sub_close_delay;
        let by_backend = sub_refresh_backend(cx.settings, &plan.channel).is_some();
        let grace = if by_backend { Duration::ZERO } else { grace };
        let expiry = plan.expire_at.map(|unix_s| wake::expiry(cx, unix_s, grace));
        let expires_s = expiry.map_or(0, |(at_s, _)| at_s);
        let join = Join {
            flags: plan.flags.with(based(plan.flags, &subscribed)),
            expires_s,
            info: plan.info.clone(),
            position: subscribed.position,
            filter: plan.filter.clone(),
        };
        if cx.registry.join(cx.out.conn.slot, &plan.channel, join).is_err() {
            // The server subscribed the client while its own command was under way.
            let to = super::reply_to(cx, 0);
            cx.requests.push((Request::Unsubscribe(plan.undo(self.client)), to));
            return Err(ErrorCode::ALREADY_SUBSCRIBED);
        }
        self.note_subscription_expiry(cx, expires_s);
        self.show(cx, &plan.channel, plan.flags, plan.info.as_ref());
        let top = subscribed.position.map_or(0, |position| position.offset);
        let (recovered, publications) = match subscribed.recovery {
            Recovery::Recovered(list) => (plan.was_recovering || !list.is_empty(), list),
            Recovery::NotRecovered | Recovery::NotAsked => (false, Vec::new()),
        };
        let missed = publications.len();
        let mut publications = publications;
        if let Some(filter) = &plan.filter {
            publications.retain(|publication| filter.passes(&publication.tags));
            cx.meter.withheld((missed - publications.len()) as u64);
        }
        // Of what its filter held back the client would not learn that it is past it.
        let is_past = missed > 0 && publications.is_empty();
        cx.meter.subscribed();
        if plan.was_recovering {
            cx.meter.recovered(recovered, publications.len());
        }
        let positioned = plan.positioned();
        Ok(Outcome {
            positioned,
            recoverable: plan.flags.contains(SubFlags::RECOVERABLE),
            was_recovering: plan.was_recovering,
            recovered,
            epoch: subscribed.position.map(|position| position.epoch),
            // Recovered: the client counts on from where it was while it takes the publications.
            offset: match recovered && plan.was_recovering && !is_past {
                true => plan.from_offset,
                false => top,
            },
            publications,
            delta: plan.flags.contains(SubFlags::DELTA),
            data: plan.data,
            // Where a backend is asked, the client need not know.
            ttl: expiry.filter(|_| !by_backend).map(|(_, ttl)| ttl),
            channel: plan.channel,
        })
    }

    fn hub_error(&self, cx: &mut Cx<'_, '_>, id: u32, error: HubError) {
        self.error(cx, id, error_code(error));
    }

    /// Publications of a channel were lost on their way here: a client that follows its position
    /// must recover.
    pub(crate) fn insufficient(&mut self, cx: &mut Cx<'_, '_>, channel: &str) {
        let slot = cx.out.conn.slot;
        let server_side = cx
            .registry
            .find(slot, channel)
            .is_some_and(|subscription| subscription.flags.contains(SubFlags::SERVER_SIDE));
        if server_side {
            let because = format!("{}: publications were lost before this node", Shown(channel));
            self.refuse(cx, Disconnect::INSUFFICIENT, &because);
        } else {
            self.push_off(cx, channel, Unsubscribe::INSUFFICIENT);
            let because = "publications were lost before this node";
            self.note_unsubscribe(cx, channel, Unsubscribe::INSUFFICIENT, because);
        }
    }
}

/// Whether the client has, from the recovery, the publication that the next one's patch starts
/// from. One that claims to have it already, and is given none, may not have kept it.
fn based(flags: SubFlags, subscribed: &Subscribed) -> SubFlags {
    let Subscribed { position, recovery } = subscribed;
    let last = match recovery {
        Recovery::Recovered(list) => list.last().map(|last| (last.offset, last.epoch)),
        Recovery::NotRecovered | Recovery::NotAsked => None,
    };
    let top = position.map(|position| (position.offset, Some(position.epoch)));
    let is_based = flags.contains(SubFlags::DELTA) && last.is_some() && last == top;
    if is_based { SubFlags::BASED } else { SubFlags::default() }
}

/// What a client, or a caller of the server API, is told of the hub's errors.
pub(crate) fn error_code(error: HubError) -> ErrorCode {
    match error {
        HubError::UnrecoverablePosition => ErrorCode::UNRECOVERABLE_POSITION,
        HubError::BadSince => ErrorCode::BAD_REQUEST,
        HubError::Broker => ErrorCode::INTERNAL,
        HubError::Overloaded => ErrorCode::TOO_MANY_REQUESTS,
        HubError::MapFull(_) => ErrorCode::LIMIT_EXCEEDED,
    }
}

//! Tokens that are signed with a private key: their signatures are looked at elsewhere, so that a
//! wave of clients does not hold up what the others are sent.

use std::sync::Arc;

use throng_hub::publication::ChannelName;
use throng_hub::state::{Corrupt, Fields, Part, Record, Through, Within, Writer};

use super::subscribe::Wish;
use super::{Awaited, Cx, Session};
use crate::allowance::{Allowance, Drawn};
use crate::codes::{Disconnect, ErrorCode};
use crate::config::Token;
use crate::handoff::parts::Named;
use crate::notary::{Check, Proof, Purpose};
use crate::token::{ConnectionClaims, Signature, SubscriptionClaims, TokenError, Way};

/// Characters of a reason that is remembered with a close.
const AFTERWORD_MAX: usize = 200;

/// A token whose signature is being looked at.
#[derive(Debug)]
pub(super) struct Unproven {
    /// Shared with who looks at it, who passes it over when this is gone.
    pub(super) check: Arc<Check>,
    /// None only on its way from another process.
    _drawn: Option<Drawn>,
    pub(super) claimed: Claimed,
}

/// What a client wants by its token.
#[derive(Debug)]
pub(super) enum Claimed {
    Connect {
        id: u32,
        /// What the client asks of server-side subscriptions.
        wanted: Vec<(ChannelName, Wish)>,
    },
    Refresh {
        id: u32,
    },
    Subscribe {
        id: u32,
        channel: ChannelName,
        wish: Box<Wish>,
        /// An unsubscribe came before the answer.
        cancelled: bool,
    },
    SubRefresh {
        id: u32,
        channel: ChannelName,
    },
}

impl Claimed {
    fn purpose(&self) -> Purpose {
        match self {
            Self::Connect { .. } | Self::Refresh { .. } => Purpose::Connection,
            Self::Subscribe { .. } | Self::SubRefresh { .. } => Purpose::Subscription,
        }
    }
}

impl Session {
    /// What a connection token says; none: its signature must be looked at elsewhere.
    pub(super) fn connection_claims(
        &self,
        cx: &Cx<'_, '_>,
        raw: &str,
    ) -> Result<Option<ConnectionClaims>, TokenError> {
        let keys = &cx.settings.client.token;
        read(cx, keys, raw, |signature| keys.connection(raw, now_s(cx), signature))
    }

    /// What a subscription token says, by the keys that are meant for it.
    pub(super) fn subscription_claims(
        &self,
        cx: &Cx<'_, '_>,
        raw: &str,
    ) -> Result<Option<SubscriptionClaims>, TokenError> {
        let keys = Purpose::Subscription.keys(cx.settings);
        read(cx, keys, raw, |signature| keys.subscription(raw, now_s(cx), signature))
    }

    /// Lets the signature of a token be looked at, and remembers what for.
    pub(super) fn ask_notary(&mut self, cx: &mut Cx<'_, '_>, raw: &str, claimed: Claimed) {
        let check = Arc::new(Check { purpose: claimed.purpose(), token: raw.into() });
        let unproven = Unproven {
            check: Arc::clone(&check),
            _drawn: Some(cx.allowance.hold(raw.len())),
            claimed,
        };
        let pending = self.pending.get_or_insert_default();
        pending.last_ticket = pending.last_ticket.wrapping_add(1);
        let ticket = pending.last_ticket;
        pending.list.push((ticket, Awaited::Proof(Box::new(unproven))));
        let to = super::reply_to(cx, ticket);
        cx.effects.checks.push((check, to));
    }

    /// A signature was looked at. Returns whether the client may be read again.
    pub(crate) fn proof(&mut self, cx: &mut Cx<'_, '_>, ticket: u32, proof: Proof) -> bool {
        // A ticket of another question would be a bug of ours, and must not be lost by it.
        let is_proof = |(known, awaited): &(u32, Awaited)| {
            *known == ticket && matches!(awaited, Awaited::Proof(_))
        };
        if !self.pending.as_ref().is_some_and(|pending| pending.list.iter().any(is_proof)) {
            return false;
        }
        let Some(Awaited::Proof(unproven)) = self.take_awaited(ticket) else { return false };
        self.forget_pending();
        let Unproven { check, _drawn, claimed } = *unproven;
        let (raw, now_s) = (&*check.token, now_s(cx));
        let keys = check.purpose.keys(cx.settings);
        let proven = match proof {
            Proof::Genuine => Ok(()),
            Proof::Forged(why) => Err(TokenError::Invalid(why.into())),
            Proof::Unknown(why) => Err(TokenError::Unchecked(why.into())),
            Proof::Busy => Err(TokenError::Busy),
        };
        let connection = |proven: Result<(), TokenError>| {
            proven.and_then(|()| keys.connection(raw, now_s, Signature::Skip))
        };
        let subscription = |proven: Result<(), TokenError>| {
            proven.and_then(|()| keys.subscription(raw, now_s, Signature::Skip))
        };
        match claimed {
            Claimed::Connect { id, wanted } => {
                self.connect_by_token(cx, id, connection(proven), &wanted);
            }
            Claimed::Refresh { id } => self.refresh_by_token(cx, id, connection(proven)),
            Claimed::Subscribe { id, channel, wish, cancelled } => {
                let wanted = (&*channel, *wish, cancelled);
                self.subscribe_by_token(cx, id, wanted, subscription(proven));
            }
            Claimed::SubRefresh { id, channel } => {
                self.sub_refresh_by_token(cx, id, &channel, subscription(proven));
            }
        }
        !self.is_waiting()
    }

    /// Ends the session because of its token; the reason is remembered with the close.
    pub(super) fn refuse_token(
        &mut self,
        cx: &mut Cx<'_, '_>,
        why: Disconnect,
        what: &str,
        reason: &str,
    ) {
        let because = format!("{what}: {reason}");
        let afterword: String = reason.chars().take(AFTERWORD_MAX).collect();
        self.extra.get_or_insert_default().afterword = Some(afterword.into());
        self.refuse(cx, why, &because);
    }
}

/// Reads a token, here if that is quickly done. What is wrong with it beside its signature is said
/// at once.
fn read<C>(
    cx: &Cx<'_, '_>,
    keys: &Token,
    raw: &str,
    claims: impl Fn(Signature) -> Result<C, TokenError>,
) -> Result<Option<C>, TokenError> {
    if cx.settings.client.insecure_skip_token_signature_verify {
        return claims(Signature::Skip).map(Some);
    }
    match keys.way(raw)? {
        Way::Secret(_) => claims(Signature::Verify).map(Some),
        Way::Key(..) | Way::Set { .. } => claims(Signature::Skip).map(|_| None),
    }
}

fn now_s(cx: &Cx<'_, '_>) -> i64 {
    cx.out.now.unix_ms / 1000
}

/// The error of a token that the client may bring again, or another in its place.
pub(super) fn temporary(error: TokenError, what: &str) -> (ErrorCode, String) {
    match error {
        TokenError::Expired => {
            (ErrorCode::TOKEN_EXPIRED, format!("{what} is expired, or not valid yet"))
        }
        TokenError::Invalid(why) | TokenError::Unchecked(why) => {
            (ErrorCode::INTERNAL, format!("{what} could not be checked: {why}"))
        }
        TokenError::Busy => {
            let because = format!("{what} could not be checked: too many wait for it");
            (ErrorCode::TOO_MANY_REQUESTS, because)
        }
    }
}

impl Unproven {
    /// Draws of this process's allowance what was drawn of the other's.
    pub(super) fn draw(&mut self, allowance: &Arc<Allowance>) {
        self._drawn = Some(allowance.hold(self.check.token.len()));
    }
}

/// The fields of all that a token may be for; each has some of them.
#[derive(Debug, Default)]
struct Written {
    kind: u8,
    id: u32,
    token: Box<str>,
    wanted: Vec<(ChannelName, Wish)>,
    channel: ChannelName,
    wish: Option<Box<Wish>>,
    cancelled: bool,
}
throng_hub::record!("a token that is being checked", Written {
    1 kind,
    2 id,
    3 token,
    4 wanted as Named,
    5 channel,
    6 wish as Within,
    7 cancelled,
});

const CONNECT: u8 = 1;
const REFRESH: u8 = 2;
const SUBSCRIBE: u8 = 3;
const SUB_REFRESH: u8 = 4;

impl Record for Unproven {
    const WHAT: &'static str = Written::WHAT;

    fn put_fields(&self, out: &mut Writer) {
        let Self { check, _drawn: _, claimed } = self;
        let kind = match claimed {
            Claimed::Connect { .. } => CONNECT,
            Claimed::Refresh { .. } => REFRESH,
            Claimed::Subscribe { .. } => SUBSCRIBE,
            Claimed::SubRefresh { .. } => SUB_REFRESH,
        };
        kind.put(1, out);
        check.token.put(3, out);
        match claimed {
            Claimed::Connect { id, wanted } => {
                id.put(2, out);
                Named::put(wanted, 4, out);
            }
            Claimed::Refresh { id } => id.put(2, out),
            Claimed::Subscribe { id, channel, wish, cancelled } => {
                id.put(2, out);
                channel.put(5, out);
                Within::put(wish, 6, out);
                cancelled.put(7, out);
            }
            Claimed::SubRefresh { id, channel } => {
                id.put(2, out);
                channel.put(5, out);
            }
        }
    }

    fn take_fields(fields: Fields<'_>) -> Result<Self, Corrupt> {
        let place = fields.clone();
        let Written { kind, id, token, wanted, channel, wish, cancelled } =
            Written::take_fields(fields)?;
        let claimed = match kind {
            CONNECT => Claimed::Connect { id, wanted },
            REFRESH => Claimed::Refresh { id },
            SUBSCRIBE => {
                let wish = wish.ok_or_else(|| place.corrupt("half of it is missing"))?;
                Claimed::Subscribe { id, channel, wish, cancelled }
            }
            SUB_REFRESH => Claimed::SubRefresh { id, channel },
            other => return Err(place.corrupt(format!("there is no kind {other}"))),
        };
        let check = Arc::new(Check { purpose: claimed.purpose(), token });
        Ok(Self { check, _drawn: None, claimed })
    }
}

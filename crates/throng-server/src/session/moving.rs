//! A session written down, and read by another process (invariant MOVABLE).

use std::sync::Arc;

use throng_hub::map::Write;
use throng_hub::publication::ChannelName;
use throng_hub::request::Publish;
use throng_hub::state::{
    Corrupt, Each, Field, Fields, Part, Raw, Record, Since, Through, Until, Within, Writer,
};

use super::backend::Asked;
use super::proof::Unproven;
use super::subscribe::Wish;
use super::{Awaited, Backlog, Extra, Kind, Open, Pending, Session, Stage};
use crate::allowance::Allowance;
use crate::config::DataFormat;
use crate::front::address::ClientAddress;
use crate::handoff::parts::{HeaderList, Named, Pair, WithinUnlessEmpty};
use crate::notary::Check;
use crate::shard::Address;

throng_hub::record!("a session", Session {
    1 client,
    2 address as Address,
    3 user,
    4 stage,
    5 kind,
    6 native_ping,
    7 awaits_pong,
    8 since_s as Since,
    9 ping_s as Until,
    10 pong_by_s as Until,
    11 expires_s as Until,
    12 subs_expire_s as Until,
    13 extra as Within,
    14 pending as Within,
    15 backlog as Within,
    16 session as Boxed,
});

/// A value in a box, where there is one.
struct Boxed;

impl<T: Part> Through<Option<Box<T>>> for Boxed {
    fn absent() -> Option<Option<Box<T>>> {
        Some(None)
    }
    fn put(value: &Option<Box<T>>, tag: u8, out: &mut Writer) {
        if let Some(value) = value {
            value.put(tag, out);
        }
    }
    fn take(_: Option<Option<Box<T>>>, field: &Field<'_>) -> Result<Option<Box<T>>, Corrupt> {
        T::take(None, field).map(Box::new).map(Some)
    }
}

// 4 was something once.
throng_hub::record!("what few sessions have", Extra {
    1 user_header,
    2 connect,
    3 conn_info,
    5 token_channels as Each,
    6 headers as HeaderList,
    7 emulated as HeaderList,
    8 meta,
    9 no_cookie as Within,
    10 afterword,
    11 head,
    12 error,
    13 polls as Within,
});

// What is done with is left out: only the rest is ever looked at again.
impl Record for Backlog {
    const WHAT: &'static str = "waiting commands";

    fn put_fields(&self, out: &mut Writer) {
        let Self { frame, at, _drawn: _, _parked: _ } = self;
        out.bytes(1, frame.get(*at..).unwrap_or_default());
    }

    fn take_fields(mut fields: Fields<'_>) -> Result<Self, Corrupt> {
        let mut frame = Vec::new();
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => frame = Raw::take(None, &field)?,
                _ => field.pass()?,
            }
        }
        Ok(Self { frame, at: 0, _drawn: None, _parked: None })
    }
}

throng_hub::numbered!(Stage {
    1 Self::Fresh => Self::Fresh,
    2 Self::Connecting => Self::Connecting,
    3 Self::Ready => Self::Ready,
    4 Self::Failed => Self::Failed,
});

throng_hub::numbered!(Kind {
    1 Self::Bidirectional => Self::Bidirectional,
    2 Self::Unidirectional => Self::Unidirectional,
});

// The node has answered all questions when everything is frozen: what is awaited then are answers
// of backends, and signatures.
impl Record for Pending {
    const WHAT: &'static str = "what a session waits for";

    fn put_fields(&self, out: &mut Writer) {
        // When the command was read, another process's clock does not know.
        let Self { last_ticket, list, connect, catching, command: _ } = self;
        debug_assert!(connect.is_none(), "the node has answered");
        last_ticket.put(1, out);
        Within::put(catching, 4, out);
        for (ticket, awaited) in list {
            match awaited {
                Awaited::Backend(asked) => out.record(2, |out| {
                    ticket.put(1, out);
                    out.record(2, |out| asked.put_fields(out));
                }),
                Awaited::Proof(unproven) => out.record(3, |out| {
                    ticket.put(1, out);
                    out.record(2, |out| unproven.put_fields(out));
                }),
                _ => debug_assert!(false, "the node has answered"),
            }
        }
    }

    fn take_fields(mut fields: Fields<'_>) -> Result<Self, Corrupt> {
        let mut pending = Self::default();
        let mut list: Vec<(u32, Asked)> = Vec::new();
        let mut unproven: Vec<(u32, Unproven)> = Vec::new();
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => pending.last_ticket = Part::take(None, &field)?,
                2 => list = Named::take(Some(list), &field)?,
                3 => unproven = Named::take(Some(unproven), &field)?,
                4 => {
                    let before = std::mem::take(&mut pending.catching);
                    pending.catching = Within::take(Some(before), &field)?;
                }
                _ => field.pass()?,
            }
        }
        let awaited = |(ticket, asked)| (ticket, Awaited::Backend(Box::new(asked)));
        let proof = |(ticket, unproven)| (ticket, Awaited::Proof(Box::new(unproven)));
        let awaited = list.into_iter().map(awaited);
        pending.list = awaited.chain(unproven.into_iter().map(proof)).collect();
        Ok(pending)
    }
}

throng_hub::record!("a wish for a subscription", Wish {
    1 grant as WithinUnlessEmpty,
    2 expire_at,
    3 positioned,
    4 recoverable,
    5 join_leave,
    6 recover as Pair,
    7 reject_unrecovered,
    8 server_side,
    9 delta,
    10 map as Within,
    11 filter as Within,
});

/// The fields of all questions to backends; each has some of them.
#[derive(Debug, Default)]
struct Question {
    kind: u8,
    id: u32,
    wanted: Vec<(ChannelName, Wish)>,
    publish: Option<Box<Publish>>,
    format: Option<DataFormat>,
    channel: ChannelName,
    wish: Option<Box<Wish>>,
    cancelled: bool,
    write: Option<Box<Write>>,
    removes: bool,
}
throng_hub::record!("a question to a backend", Question {
    1 kind,
    2 id,
    3 wanted as Named,
    4 publish as Within,
    5 format as IfAny,
    6 channel,
    7 wish as Within,
    8 cancelled,
    9 write as Within,
    10 removes,
});

/// A value where there is one.
struct IfAny;

impl<T: Part> Through<Option<T>> for IfAny {
    fn absent() -> Option<Option<T>> {
        Some(None)
    }
    fn put(value: &Option<T>, tag: u8, out: &mut Writer) {
        if let Some(value) = value {
            value.put(tag, out);
        }
    }
    fn take(_: Option<Option<T>>, field: &Field<'_>) -> Result<Option<T>, Corrupt> {
        T::take(None, field).map(Some)
    }
}

const CONNECT: u8 = 1;
const RPC: u8 = 2;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 4;
const REFRESH: u8 = 5;
const SUB_REFRESH: u8 = 6;
const KEY: u8 = 7;

impl Record for Asked {
    const WHAT: &'static str = Question::WHAT;

    fn put_fields(&self, out: &mut Writer) {
        // Written by hand, so that nothing is copied for it.
        match self {
            Self::Connect { id, wanted } => {
                CONNECT.put(1, out);
                id.put(2, out);
                Named::put(wanted, 3, out);
            }
            Self::Rpc { id } => {
                RPC.put(1, out);
                id.put(2, out);
            }
            Self::Publish { id, publish, format } => {
                PUBLISH.put(1, out);
                id.put(2, out);
                Within::put(publish, 4, out);
                format.put(5, out);
            }
            Self::Subscribe { id, channel, wish, cancelled } => {
                SUBSCRIBE.put(1, out);
                id.put(2, out);
                channel.put(6, out);
                Within::put(wish, 7, out);
                cancelled.put(8, out);
            }
            Self::Key { id, channel, write, removes, format } => {
                KEY.put(1, out);
                id.put(2, out);
                format.put(5, out);
                channel.put(6, out);
                Within::put(write, 9, out);
                removes.put(10, out);
            }
            Self::Refresh => REFRESH.put(1, out),
            Self::SubRefresh { channel } => {
                SUB_REFRESH.put(1, out);
                channel.put(6, out);
            }
        }
    }

    fn take_fields(fields: Fields<'_>) -> Result<Self, Corrupt> {
        let place = fields.clone();
        let Question {
            kind,
            id,
            wanted,
            publish,
            format,
            channel,
            wish,
            cancelled,
            write,
            removes,
        } = Question::take_fields(fields)?;
        let missing = || place.corrupt("half of it is missing");
        Ok(match kind {
            CONNECT => Self::Connect { id, wanted },
            RPC => Self::Rpc { id },
            PUBLISH => Self::Publish {
                id,
                publish: publish.ok_or_else(missing)?,
                format: format.ok_or_else(missing)?,
            },
            SUBSCRIBE => {
                Self::Subscribe { id, channel, wish: wish.ok_or_else(missing)?, cancelled }
            }
            KEY => Self::Key {
                id,
                channel,
                write: write.ok_or_else(missing)?,
                removes,
                format: format.ok_or_else(missing)?,
            },
            REFRESH => Self::Refresh,
            SUB_REFRESH => Self::SubRefresh { channel },
            other => return Err(place.corrupt(format!("there is no kind {other}"))),
        })
    }
}

throng_hub::record!("a new session", Open {
    1 kind,
    2 native_ping,
    3 user,
    4 connect,
    5 address as Within,
    6 headers as HeaderList,
    7 no_cookie as Within,
    8 session,
    9 head,
});

throng_hub::record!("a client's address", ClientAddress { 1 ip as Address, 2 told_by });

impl Session {
    /// Draws of this process's allowance what the session drew of the other's.
    pub(crate) fn draw(&mut self, allowance: &Arc<Allowance>) {
        if let Some(backlog) = &mut self.backlog {
            backlog._drawn = Some(allowance.hold(backlog.frame.len()));
            // What waits for no answer waits for room to publish, or for its turn.
            if self.pending.is_none() {
                backlog._parked = Some(allowance.park(backlog.frame.len()));
            }
        }
        let Some(pending) = &mut self.pending else { return };
        for (_, awaited) in &mut pending.list {
            if let Awaited::Backend(asked) = awaited
                && let Asked::Publish { publish, .. } = &mut **asked
            {
                publish.draw = Some(Arc::new(allowance.hold(publish.data.len())));
            }
            if let Awaited::Backend(asked) = awaited
                && let Asked::Key { write, .. } = &mut **asked
            {
                write.draw = Some(Arc::new(allowance.hold(write.data.len())));
            }
            if let Awaited::Proof(unproven) = awaited {
                unproven.draw(allowance);
            }
        }
    }

    /// Whether it waits for nothing: no answer, and no commands that came too soon.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.pending.is_none() && self.backlog.is_none()
    }

    /// The tickets of the answers of backends that it waits for.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = u32> + '_ {
        let list = self.pending.iter().flat_map(|pending| &pending.list);
        list.filter(|(_, awaited)| matches!(awaited, Awaited::Backend(_)))
            .map(|(ticket, _)| *ticket)
    }

    /// The tokens whose signatures are still to be looked at.
    pub(crate) fn unproven(&self) -> impl Iterator<Item = (u32, &Arc<Check>)> + '_ {
        let list = self.pending.iter().flat_map(|pending| &pending.list);
        list.filter_map(|(ticket, awaited)| match awaited {
            Awaited::Proof(unproven) => Some((*ticket, &unproven.check)),
            _ => None,
        })
    }
}

//! A connection written down, apart from its session.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use throng_hub::state::{Corrupt, Each, Field, Fields, Part, Raw, Record, Through, Until, Writer};
use throng_wire::framing::Framing;
use throng_wire::websocket::{Decoder, Half, HalfFrame, Opcode, Role, Window};

use super::conn::{Flags, Link, State};
use super::crowd::Counters;
use super::outbox::Outbox;
use crate::addresses::Addresses;
use crate::session::is_deflated;

/// In a shard's piece: what the handler's sessions share.
pub(super) const SHARED: u8 = 1;
/// A connection.
pub(super) const CONNECTION: u8 = 2;
/// Frames that wait for several connections.
pub(super) const FRAMES: u8 = 3;
pub(super) const COUNTERS: u8 = 4;
/// What went ahead of this piece; without it, nothing did.
pub(super) const AHEAD: u8 = 5;

/// In a connection's record: its number, before everything else.
pub(super) const NUMBER: u8 = 1;
/// Its session; it is closing where there is none.
pub(super) const SESSION: u8 = 13;
/// That permessage-deflate was agreed on.
const DEFLATE: u8 = 15;

/// Shared frames are known by where they are.
#[derive(Debug, Default)]
pub(super) struct Frames {
    list: Vec<Bytes>,
    places: HashMap<(usize, usize), u64, foldhash::fast::FixedState>,
}

impl Frames {
    fn place(&mut self, frames: &Bytes) -> u64 {
        let next = self.list.len() as u64;
        let place = *self.places.entry((frames.as_ptr().addr(), frames.len())).or_insert(next);
        if place == next {
            self.list.push(frames.clone());
        }
        place
    }

    pub(super) fn put(&self, out: &mut Writer) {
        for frames in &self.list {
            out.bytes(FRAMES, frames);
        }
    }
}

/// How a piece goes on from those before it.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// How many those are.
    pub(super) pieces: u64,
    /// How many connections there are with all that was told; in the last piece.
    pub(super) connections: Option<u64>,
    /// Those that were told and have gone.
    pub(super) gone: Vec<u64>,
}
throng_hub::record!("what went ahead", Ahead { 1 pieces, 2 connections, 3 gone as Each });

impl Ahead {
    pub(super) fn put(&self, out: &mut Writer) {
        // Who does not know it would take what is missing for what has gone.
        out.needed(AHEAD, |out| self.put_fields(out));
    }
}

throng_hub::record!("a shard's counters", Counters {
    1 opened,
    2 late_answers,
    3 panics,
    4 resets,
});

impl Counters {
    pub(super) fn put(&self, tag: u8, out: &mut Writer) {
        out.record(tag, |out| self.put_fields(out));
    }

    /// Counts on from what another shard counted.
    pub(super) fn add(&mut self, fields: Fields<'_>) -> Result<(), Corrupt> {
        let theirs = Self::take_fields(fields)?;
        let Self { opened, late_answers, panics, resets } = self;
        *opened = opened.saturating_add(theirs.opened);
        *late_answers = late_answers.saturating_add(theirs.late_answers);
        *panics = panics.saturating_add(theirs.panics);
        *resets = resets.saturating_add(theirs.resets);
        Ok(())
    }
}

throng_hub::numbered!(State {
    1 Self::Open => Self::Open,
    2 Self::Closing => Self::Closing,
    3 Self::Dead => Self::Dead,
});

impl Link {
    /// Writes the link down.
    pub(super) fn put(&self, frames: &mut Frames, out: &mut Writer) {
        let Self {
            socket: _,
            form,
            framing,
            deflate,
            state,
            flags,
            number,
            decoder,
            outbox,
            stash,
            wake_s,
            deadline_s,
            // Told anew there.
            accounted: _,
            _permit: _,
            _address: address,
        } = self;
        out.number(NUMBER, *number);
        form.put(2, out);
        Wrapped::put(framing, 14, out);
        state.put(3, out);
        (flags.bits() & Flags::MOVED).put(4, out);
        if let Some(half) = decoder.half() {
            out.record(5, |out| put_half(&half, out));
        }
        if let Some(outbox) = outbox {
            let (waiting, written) = outbox.parts();
            written.put(6, out);
            for each in waiting {
                if each.is_unique() {
                    out.bytes(7, each);
                } else {
                    out.number(8, frames.place(each));
                }
            }
        }
        if let Some(stash) = stash {
            out.bytes(9, stash);
        }
        <Until as Through<u32>>::put(wake_s, 10, out);
        <Until as Through<u32>>::put(deadline_s, 11, out);
        if let Some(held) = address {
            Address::put(&held.address(), 12, out);
        }
        if deflate.is_some() {
            // Who does not know it would close the client for its first compressed message.
            out.needed(DEFLATE, |out| Deflating::put(deflate, 1, out));
        }
    }
}

/// A link as it was written down.
#[derive(Debug)]
pub(super) struct Written<'a> {
    form: u8,
    framing: Framing,
    deflate: Option<Window>,
    state: State,
    flags: Flags,
    decoder: Decoder,
    outbox: Option<Box<Outbox>>,
    #[expect(clippy::box_collection, reason = "as in the link")]
    stash: Option<Box<Vec<u8>>>,
    wake_s: u32,
    deadline_s: u32,
    address: Option<IpAddr>,
    /// Its session.
    pub(super) session: Option<Field<'a>>,
}

impl<'a> Written<'a> {
    /// Reads a connection's record behind its number.
    pub(super) fn take(mut fields: Fields<'a>, frames: &[Bytes]) -> Result<Self, Corrupt> {
        let mut written = Self {
            form: 0,
            framing: Framing::WebSocket,
            deflate: None,
            state: State::Dead,
            flags: Flags::default(),
            decoder: Decoder::new(),
            outbox: None,
            stash: None,
            wake_s: super::NEVER,
            deadline_s: super::NEVER,
            address: None,
            session: None,
        };
        let mut waiting: VecDeque<Bytes> = VecDeque::new();
        let mut gone = 0;
        while let Some(field) = fields.field()? {
            match field.tag {
                2 => written.form = Part::take(None, &field)?,
                3 => written.state = Part::take(None, &field)?,
                4 => written.flags = Flags::moved(Part::take(None, &field)?),
                5 => written.decoder = take_half(&field)?,
                6 => gone = Part::take(None, &field)?,
                7 => waiting.push_back(Bytes::copy_from_slice(field.bytes()?)),
                8 => {
                    let place = usize::take(None, &field)?;
                    let shared = frames.get(place);
                    waiting.push_back(
                        shared
                            .ok_or_else(|| field.corrupt("names frames that are not there"))?
                            .clone(),
                    );
                }
                9 => written.stash = Some(Box::new(field.bytes()?.to_vec())),
                10 => written.wake_s = Until::take(None, &field)?,
                11 => written.deadline_s = Until::take(None, &field)?,
                12 => written.address = Some(Address::take(None, &field)?),
                14 => written.framing = Wrapped::take(None, &field)?,
                DEFLATE => written.deflate = take_deflate(&field)?,
                SESSION => written.session = Some(field),
                _ => field.pass()?,
            }
        }
        if !waiting.is_empty() || gone > 0 {
            let outbox = Outbox::of(waiting, gone)
                .ok_or_else(|| fields.corrupt("an outbox that no socket was written from"))?;
            written.outbox = Some(Box::new(outbox));
        }
        let fits = match written.state {
            State::Open => written.session.is_some(),
            State::Closing => written.session.is_none(),
            State::Dead => false,
        };
        if !fits {
            return Err(fields.corrupt("its state and its session do not fit together"));
        }
        if written.deflate != Some(Window::Usual) && is_deflated(written.form) {
            return Err(fields.corrupt("it is sent what it cannot inflate"));
        }
        Ok(written)
    }

    /// Gives a link that waits for its state what was written. Returns its session.
    pub(super) fn fill(self, link: &mut Link, addresses: &Addresses) -> Option<Field<'a>> {
        let Self {
            form,
            framing,
            deflate,
            state,
            flags,
            decoder,
            outbox,
            stash,
            wake_s,
            deadline_s,
            address,
            session,
        } = self;
        let held = address.and_then(|address| addresses.take_over(address));
        let into = link;
        let Link {
            socket: _,
            form: into_form,
            framing: into_framing,
            deflate: into_deflate,
            state: into_state,
            flags: into_flags,
            number: _,
            decoder: into_decoder,
            outbox: into_outbox,
            stash: into_stash,
            wake_s: into_wake_s,
            deadline_s: into_deadline_s,
            accounted: _,
            _permit: _,
            _address: into_address,
        } = into;
        *into_form = form;
        *into_framing = framing;
        *into_deflate = deflate;
        *into_state = state;
        *into_flags = flags;
        *into_decoder = decoder;
        *into_outbox = outbox;
        *into_stash = stash;
        *into_wake_s = wake_s;
        *into_deadline_s = deadline_s;
        *into_address = held;
        session
    }
}

fn put_half(half: &Half<&[u8]>, out: &mut Writer) {
    let Half { header, frame, message, deflated, data, control } = half;
    out.bytes(1, header);
    if let Some(HalfFrame { opcode, fin, mask, left }) = frame {
        out.record(2, |out| {
            out.number(1, u64::from(opcode.bits()));
            fin.put(2, out);
            out.bytes(3, mask);
            left.put(4, out);
        });
    }
    if let Some(message) = message {
        out.number(3, u64::from(message.bits()));
    }
    out.bytes(4, data);
    out.bytes(5, control);
    if *deflated {
        deflated.put(6, out);
    }
}

fn take_half(field: &Field<'_>) -> Result<Decoder, Corrupt> {
    let mut fields = field.fields("what is half received")?;
    let mut half = Half::<Vec<u8>>::default();
    while let Some(field) = fields.field()? {
        match field.tag {
            1 => half.header = Raw::take(None, &field)?,
            2 => half.frame = Some(take_half_frame(&field)?),
            3 => half.message = Some(opcode(&field)?),
            4 => half.data = Raw::take(None, &field)?,
            5 => half.control = Raw::take(None, &field)?,
            6 => half.deflated = Part::take(None, &field)?,
            _ => field.pass()?,
        }
    }
    Decoder::resume(half, Role::Server).map_err(|senseless| fields.corrupt(senseless.0))
}

fn take_half_frame(field: &Field<'_>) -> Result<HalfFrame, Corrupt> {
    let mut fields = field.fields("a half frame")?;
    let (mut code, mut fin, mut mask, mut left) = (None, false, [0; 4], 0);
    while let Some(field) = fields.field()? {
        match field.tag {
            1 => code = Some(opcode(&field)?),
            2 => fin = Part::take(None, &field)?,
            3 => {
                mask = field
                    .bytes()?
                    .try_into()
                    .map_err(|_| field.corrupt("is a mask of other than four bytes"))?;
            }
            4 => left = Part::take(None, &field)?,
            _ => field.pass()?,
        }
    }
    let opcode = code.ok_or_else(|| fields.corrupt("a frame without an opcode"))?;
    Ok(HalfFrame { opcode, fin, mask, left })
}

fn opcode(field: &Field<'_>) -> Result<Opcode, Corrupt> {
    u8::try_from(field.number()?)
        .ok()
        .and_then(Opcode::from_bits)
        .ok_or_else(|| field.corrupt("is no opcode"))
}

fn take_deflate(field: &Field<'_>) -> Result<Option<Window>, Corrupt> {
    let mut fields = field.fields("how it is compressed")?;
    let mut window = None;
    while let Some(field) = fields.field()? {
        match field.tag {
            1 => window = Deflating::take(None, &field)?,
            _ => field.pass()?,
        }
    }
    Ok(window)
}

/// The window with which a connection is compressed, as a number; nothing where it is not.
#[derive(Debug)]
pub(crate) struct Deflating;

impl Through<Option<Window>> for Deflating {
    fn absent() -> Option<Option<Window>> {
        Some(None)
    }
    fn put(value: &Option<Window>, tag: u8, out: &mut Writer) {
        if let Some(window) = value {
            let number: u8 = match window {
                Window::Usual => 1,
                Window::Small => 2,
            };
            number.put(tag, out);
        }
    }
    fn take(_: Option<Option<Window>>, field: &Field<'_>) -> Result<Option<Window>, Corrupt> {
        match field.number()? {
            1 => Ok(Some(Window::Usual)),
            2 => Ok(Some(Window::Small)),
            other => Err(field.corrupt(format_args!("is {other}, which is no window"))),
        }
    }
}

/// What messages are wrapped in, as a number.
#[derive(Debug)]
pub(crate) struct Wrapped;

impl Through<Framing> for Wrapped {
    fn absent() -> Option<Framing> {
        // Before there were others.
        Some(Framing::WebSocket)
    }
    fn put(value: &Framing, tag: u8, out: &mut Writer) {
        let number: u8 = match value {
            Framing::WebSocket => 0,
            Framing::Sse => 1,
            Framing::Lines => 2,
            Framing::Binary => 3,
            Framing::Lengths => 4,
        };
        number.put(tag, out);
    }
    fn take(_: Option<Framing>, field: &Field<'_>) -> Result<Framing, Corrupt> {
        match field.number()? {
            0 => Ok(Framing::WebSocket),
            1 => Ok(Framing::Sse),
            2 => Ok(Framing::Lines),
            3 => Ok(Framing::Binary),
            4 => Ok(Framing::Lengths),
            other => Err(field.corrupt(format_args!("is {other}, which is no framing"))),
        }
    }
}

/// An address, as the sixteen bytes of IPv6.
#[derive(Debug)]
pub(crate) struct Address;

impl Through<IpAddr> for Address {
    fn absent() -> Option<IpAddr> {
        None
    }
    fn put(value: &IpAddr, tag: u8, out: &mut Writer) {
        let address = match value {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => *address,
        };
        <Self as Through<Ipv6Addr>>::put(&address, tag, out);
    }
    fn take(_: Option<IpAddr>, field: &Field<'_>) -> Result<IpAddr, Corrupt> {
        Ok(IpAddr::V6(<Self as Through<Ipv6Addr>>::take(None, field)?).to_canonical())
    }
}

impl Through<Ipv6Addr> for Address {
    fn absent() -> Option<Ipv6Addr> {
        None
    }
    fn put(value: &Ipv6Addr, tag: u8, out: &mut Writer) {
        out.bytes(tag, &value.octets());
    }
    fn take(_: Option<Ipv6Addr>, field: &Field<'_>) -> Result<Ipv6Addr, Corrupt> {
        let octets: [u8; 16] =
            field.bytes()?.try_into().map_err(|_| field.corrupt("is not an address"))?;
        Ok(octets.into())
    }
}

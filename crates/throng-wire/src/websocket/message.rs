//! The decoder: bytes as they arrive, into messages and control frames.

use std::ops::Range;

use super::close::{self, Violation};
use super::deflate::Inflater;
use super::header::{self, Deflate, HEADER_MAX, Header, Opcode};
use super::mask;

/// Which end of the connection decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What comes in is a client's, and must be masked.
    Server,
    /// What comes in is a server's, and must not be.
    Client,
}

/// What a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message in bytes, whatever its fragments.
    pub message_max: usize,
}

/// What becomes of compressed messages.
#[derive(Debug, Default)]
pub enum Deflated<'a> {
    /// permessage-deflate was not agreed on, so that they break the protocol.
    #[default]
    Refused,
    /// They are given as they are, to somebody who does not look at messages any more.
    Unread,
    /// They are inflated here, and lie there until it, or the decoder, is used again.
    Inflated(&'a mut Inflater),
}

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message in UTF-8.
    Text(&'a str),
    /// A whole message of any bytes.
    Binary(&'a [u8]),
    /// To be answered with a pong of the same bytes.
    Ping(&'a [u8]),
    /// The answer to a ping, or said unasked.
    Pong(&'a [u8]),
    /// The peer's last frame, with its code and reason if it gave any.
    Close(Option<(u16, &'a str)>),
}

/// One step through the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// How many bytes from the front of the input are done with.
    pub consumed: usize,
    /// What they made; `None` where all input was consumed and more is needed.
    pub event: Option<Event<'a>>,
    /// Whether that came compressed.
    pub deflated: bool,
}

/// What one connection's decoding keeps between reads: one pointer, and no heap unless a frame
/// or a message is half received.
#[derive(Debug, Default)]
pub struct Decoder {
    pub(super) partial: Option<Box<Partial>>,
}

// Every idle connection holds one.
const _: () = assert!(size_of::<Decoder>() == size_of::<usize>());

/// What is half received. Plain fields only, so that it can be written down and continued
/// (invariant MOVABLE).
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// The front of a header, `header_len` bytes of it.
    pub(super) header: [u8; HEADER_MAX],
    pub(super) header_len: u8,
    /// The frame whose payload is under way.
    pub(super) frame: Option<Frame>,
    /// The message under way: text or binary. Its frames so far are in `data`.
    pub(super) message: Option<Opcode>,
    /// Whether that is compressed.
    pub(super) deflated: bool,
    pub(super) data: Vec<u8>,
    /// How much of a text's `data` is known to be UTF-8, up to a character's end.
    pub(super) valid: usize,
    /// The payload of a control frame.
    pub(super) control: Vec<u8>,
    /// What the last event borrowed; freed when the decoder is called again.
    pub(super) given: Option<Given>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    /// Turned to the next byte to come.
    pub(super) mask: [u8; 4],
    /// How many bytes are still to come.
    pub(super) left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Message,
    Control,
}

/// Where the payload of an event lies.
enum Found {
    /// In the input, and whether it is compressed.
    Whole(Opcode, Range<usize>, bool),
    /// In the partial.
    Assembled(Opcode, Given),
}

impl Decoder {
    /// A decoder at the start of a frame.
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// Takes the next event out of `input`, unmasking in place what it consumes. What it does not
    /// consume is left as it was, to be given again, now or later, until the event is `None`.
    ///
    /// After [`Event::Close`] and after an error there is nothing more to decode.
    ///
    /// # Errors
    /// Where the peer broke the protocol.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        role: Role,
        limits: Limits,
    ) -> Result<Step<'a>, Violation> {
        self.next_with(input, role, limits, Deflated::Refused)
    }

    /// The same where permessage-deflate may have been agreed on. The limit counts for what
    /// travels; the inflater has one of its own.
    ///
    /// # Errors
    /// Where the peer broke the protocol.
    pub fn next_with<'a>(
        &'a mut self,
        input: &'a mut [u8],
        role: Role,
        limits: Limits,
        deflated: Deflated<'a>,
    ) -> Result<Step<'a>, Violation> {
        self.release();
        let deflate = match deflated {
            Deflated::Refused => Deflate::No,
            Deflated::Unread | Deflated::Inflated(_) => Deflate::Agreed,
        };
        let mut at = 0;
        let found = self.find(input, &mut at, (role, deflate), limits).inspect_err(|_| {
            // Nobody will ask for the rest.
            self.partial = None;
        })?;
        let (event, deflated) = match found {
            None => (None, false),
            Some(Found::Whole(opcode, range, is_deflated)) => {
                self.tidy();
                let payload = input.get(range).expect("a whole payload lies within the input");
                (Some(read(opcode, payload, (is_deflated, deflated))?), is_deflated)
            }
            Some(Found::Assembled(opcode, given)) => {
                let partial = self.partial.as_deref_mut().expect("what was assembled is held");
                partial.given = Some(given);
                let (payload, is_deflated) = match given {
                    Given::Message => (&partial.data, partial.deflated),
                    Given::Control => (&partial.control, false),
                };
                (Some(read(opcode, payload, (is_deflated, deflated))?), is_deflated)
            }
        };
        Ok(Step { consumed: at, event, deflated })
    }

    /// Whether a frame or a message is half received.
    pub fn is_partial(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.is_under_way())
    }

    /// How many bytes of heap are held, for the byte budget.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.data.capacity() + partial.control.capacity()
        })
    }

    /// Frees what the last event borrowed. [`next`](Self::next) does so too; this is for a caller
    /// that does not go on at once.
    pub fn release(&mut self) {
        let Some(partial) = self.partial.as_deref_mut() else { return };
        match partial.given.take() {
            None => {}
            Some(Given::Control) => {
                partial.control = Vec::new();
                self.tidy();
            }
            // Its last frame was the last thing taken, so nothing else is under way.
            Some(Given::Message) => self.partial = None,
        }
    }

    /// Gives the heap back where nothing is under way.
    fn tidy(&mut self) {
        if !self.is_partial() {
            self.partial = None;
        }
    }

    fn find(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        agreed: (Role, Deflate),
        limits: Limits,
    ) -> Result<Option<Found>, Violation> {
        loop {
            if let Some(partial) = self.partial.as_deref_mut()
                && let Some(frame) = partial.frame
            {
                let rest = input.get_mut(*at..).unwrap_or_default();
                let take = frame.left.min(rest.len());
                let (bytes, _) = rest.split_at_mut(take);
                *at += take;
                let found = partial.fill(frame, bytes, limits)?;
                if found.is_some() || take < frame.left {
                    return Ok(found);
                }
            }
            let Some(header) = self.header(input, at, agreed)? else { return Ok(None) };
            self.check(&header, limits)?;
            if let Some(found) = self.begin(header, input, at) {
                return Ok(Some(found));
            }
        }
    }

    /// The next header, put together from what was kept of it and what the input has.
    fn header(
        &mut self,
        input: &[u8],
        at: &mut usize,
        (role, deflate): (Role, Deflate),
    ) -> Result<Option<Header>, Violation> {
        let rest = input.get(*at..).unwrap_or_default();
        let held = self.partial.as_ref().map_or(0, |partial| usize::from(partial.header_len));
        if held == 0
            && let Some(header) = header::parse(rest, role, deflate)?
        {
            *at += header.size;
            return Ok(Some(header));
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let partial = self.partial.get_or_insert_default();
        let room = partial.header.iter_mut().skip(held);
        let added = room.zip(rest).map(|(to, from)| *to = *from).count();
        let seen = partial.header.get(..held + added).unwrap_or_default();
        let header = header::parse(seen, role, deflate)?;
        match header {
            Some(header) => {
                partial.header_len = 0;
                *at += header.size - held;
            }
            // All of the input went in: with 14 bytes every header is complete.
            None => {
                partial.header_len = u8::try_from(held + added).unwrap_or(0);
                *at += added;
            }
        }
        Ok(header)
    }

    /// Whether this frame may come now.
    fn check(&self, header: &Header, limits: Limits) -> Result<(), Violation> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let message = self.partial.as_ref().filter(|partial| partial.message.is_some());
        // RFC 6455 5.4: a continuation continues a message, and until its final frame nothing
        // else but control frames may come.
        match (header.opcode, message) {
            (Opcode::Continuation, None) => return Err(Violation::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::ExpectedContinuation);
            }
            _ => {}
        }
        // Invariant BOUNDED: refused by its header, before a byte of it is kept.
        let held = message.map_or(0, |partial| partial.data.len());
        if header.payload_len > limits.message_max.saturating_sub(held) {
            return Err(Violation::TooBig);
        }
        Ok(())
    }

    /// Finds the frame's payload in the input, or notes that it is under way.
    fn begin(&mut self, header: Header, input: &mut [u8], at: &mut usize) -> Option<Found> {
        let Header { fin, deflated, opcode, mask, payload_len, size: _ } = header;
        // A message of one frame, or a control frame, which is always final.
        let alone = fin && opcode != Opcode::Continuation;
        if alone && let Some(payload) = input.get_mut(*at..).and_then(|i| i.get_mut(..payload_len))
        {
            mask::apply(mask, payload);
            let start = *at;
            *at += payload_len;
            return Some(Found::Whole(opcode, start..*at, deflated));
        }
        let partial = self.partial.get_or_insert_default();
        partial.frame = Some(Frame { opcode, fin, mask, left: payload_len });
        if matches!(opcode, Opcode::Text | Opcode::Binary) {
            partial.message = Some(opcode);
            partial.deflated = deflated;
        }
        None
    }
}

impl Partial {
    pub(super) fn is_under_way(&self) -> bool {
        let message = self.message.is_some() && self.given != Some(Given::Message);
        self.header_len > 0 || self.frame.is_some() || message
    }

    /// Takes in more of the frame under way; finds something where it, or the message, is complete.
    fn fill(
        &mut self,
        mut frame: Frame,
        bytes: &mut [u8],
        limits: Limits,
    ) -> Result<Option<Found>, Violation> {
        frame.mask = mask::apply(frame.mask, bytes);
        frame.left -= bytes.len();
        self.frame = (frame.left > 0).then_some(frame);
        if frame.opcode.is_control() {
            append(&mut self.control, bytes, header::CONTROL_MAX);
            let found = Found::Assembled(frame.opcode, Given::Control);
            return Ok((frame.left == 0).then_some(found));
        }
        let end = self.data.len() + bytes.len() + frame.left;
        append(&mut self.data, bytes, if frame.fin { end } else { limits.message_max });
        let is_complete = frame.fin && frame.left == 0;
        self.check_text(is_complete)?;
        let found = self.message.map(|opcode| Found::Assembled(opcode, Given::Message));
        Ok(found.filter(|_| is_complete))
    }

    /// Fails on the first byte that no continuation could make UTF-8 (RFC 6455 8.1).
    pub(super) fn check_text(&mut self, is_complete: bool) -> Result<(), Violation> {
        // What is compressed is looked at when it is inflated.
        if self.message != Some(Opcode::Text) || self.deflated {
            return Ok(());
        }
        let new = self.data.get(self.valid..).unwrap_or_default();
        self.valid += match simdutf8::compat::from_utf8(new) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(Violation::InvalidUtf8),
        };
        if is_complete && self.valid < self.data.len() {
            return Err(Violation::InvalidUtf8);
        }
        Ok(())
    }
}

/// Appends, at least doubling the room where it is short, so that many small pieces cost no more
/// copying than one, but never making more than `most`.
fn append(to: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let needed = to.len() + bytes.len();
    if needed > to.capacity() {
        let room = to.capacity().saturating_mul(2).min(most).max(needed);
        to.reserve_exact(room - to.len());
    }
    to.extend_from_slice(bytes);
}

/// The event of a payload as it came.
fn read<'a>(
    opcode: Opcode,
    payload: &'a [u8],
    (is_deflated, deflated): (bool, Deflated<'a>),
) -> Result<Event<'a>, Violation> {
    match deflated {
        _ if !is_deflated => event(opcode, payload),
        Deflated::Inflated(inflater) => event(opcode, inflater.inflate(payload)?),
        Deflated::Unread => Ok(Event::Binary(payload)),
        Deflated::Refused => Err(Violation::ReservedBits),
    }
}

fn event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    Ok(match opcode {
        // RFC 6455 8.1: text that is not UTF-8 fails the connection.
        Opcode::Text => {
            Event::Text(simdutf8::basic::from_utf8(payload).or(Err(Violation::InvalidUtf8))?)
        }
        // A continuation goes by the opcode of its message's first frame.
        Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => Event::Close(close::parse(payload)?),
    })
}

//! What is half received, as plain data: another process may go on with it (invariant MOVABLE).

use super::header::{self, CONTROL_MAX, Deflate, HEADER_MAX, Opcode};
use super::message::{Decoder, Frame, Partial, Role};

/// What a decoder keeps between reads. `Vec<u8>` or what can be made one from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Half<B> {
    /// The front of a header.
    pub header: B,
    /// The frame whose payload is under way.
    pub frame: Option<HalfFrame>,
    /// The message under way, and its payload so far.
    pub message: Option<Opcode>,
    /// Whether that is compressed.
    pub deflated: bool,
    pub data: B,
    /// The payload so far of a control frame.
    pub control: B,
}

/// A frame of which some of the payload is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfFrame {
    pub opcode: Opcode,
    pub fin: bool,
    /// Turned to the next byte to come.
    pub mask: [u8; 4],
    /// Bytes still to come.
    pub left: usize,
}

/// No decoder can have been in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Senseless(pub &'static str);

/// Longer than any limit: what is still to come is counted without overflow below it.
const LEFT_MAX: usize = 1 << 40;

impl Decoder {
    /// What is half received; none where nothing is.
    pub fn half(&self) -> Option<Half<&[u8]>> {
        let Partial {
            header,
            header_len,
            frame,
            message,
            deflated,
            data,
            valid: _,
            control,
            given,
        } = self.partial.as_deref().filter(|partial| partial.is_under_way())?;
        debug_assert!(given.is_none(), "what an event borrowed was given back");
        let frame =
            frame.map(|Frame { opcode, fin, mask, left }| HalfFrame { opcode, fin, mask, left });
        let header = header.get(..usize::from(*header_len)).unwrap_or_default();
        let (message, deflated) = (*message, *deflated);
        Some(Half { header, frame, message, deflated, data, control })
    }

    /// A decoder that goes on with what is half received.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn resume(half: Half<Vec<u8>>, role: Role) -> Result<Self, Senseless> {
        let Half { header: seen, frame, message, deflated, data, control } = half;
        // Whether compressed messages are agreed on is known where it is read on.
        let begun = header::parse(&seen, role, Deflate::Agreed);
        if seen.len() >= HEADER_MAX || !matches!(begun, Ok(None)) {
            return Err(Senseless("the front of a header is none"));
        }
        match frame {
            Some(_) if !seen.is_empty() => {
                return Err(Senseless("a header begins within a frame"));
            }
            Some(frame) if frame.left == 0 || frame.left > LEFT_MAX => {
                return Err(Senseless("a frame is over, or has no end"));
            }
            Some(frame) if frame.opcode.is_control() => {
                if frame.left.saturating_add(control.len()) > CONTROL_MAX || !frame.fin {
                    return Err(Senseless("a control frame is too long"));
                }
            }
            Some(_) if message.is_none() => return Err(Senseless("a frame has no message")),
            Some(_) | None => {}
        }
        let in_control = frame.is_some_and(|frame| frame.opcode.is_control());
        if !control.is_empty() && !in_control {
            return Err(Senseless("a payload has no control frame"));
        }
        if !matches!(message, None | Some(Opcode::Text | Opcode::Binary))
            || (message.is_none() && (deflated || !data.is_empty()))
        {
            return Err(Senseless("a payload has no message"));
        }
        let frame =
            frame.map(|HalfFrame { opcode, fin, mask, left }| Frame { opcode, fin, mask, left });
        let mut header = [0; HEADER_MAX];
        let seen = header.iter_mut().zip(&seen).map(|(to, from)| *to = *from).count();
        let header_len = u8::try_from(seen).unwrap_or(0);
        let (valid, given) = (0, None);
        let mut partial =
            Partial { header, header_len, frame, message, deflated, data, valid, control, given };
        partial.check_text(false).map_err(|_| Senseless("a text is not UTF-8"))?;
        let partial = partial.is_under_way().then(|| Box::new(partial));
        Ok(Self { partial })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Deflated, Event, Inflater, Limits, put_client_frame};
    use super::*;

    const LIMITS: Limits = Limits { message_max: 1 << 20 };

    fn owned(half: Half<&[u8]>) -> Half<Vec<u8>> {
        let Half { header, frame, message, deflated, data, control } = half;
        let (header, data, control) = (header.to_vec(), data.to_vec(), control.to_vec());
        Half { header, frame, message, deflated, data, control }
    }

    /// What comes in, decoded in two pieces, by one decoder or by a second one that goes on.
    fn decoded(input: &[u8], cut: usize, moves: bool) -> Vec<String> {
        let mut decoder = Decoder::new();
        let mut inflater = Inflater::new(1 << 20);
        let mut events = Vec::new();
        for part in [&input[..cut], &input[cut..]] {
            let mut bytes = part.to_vec();
            let mut rest = bytes.as_mut_slice();
            loop {
                let deflated = Deflated::Inflated(&mut inflater);
                let step = decoder.next_with(rest, Role::Server, LIMITS, deflated).unwrap();
                let consumed = step.consumed;
                let Some(event) = step.event else { break };
                events.push(format!("{event:?}"));
                rest = &mut rest[consumed..];
            }
            decoder.release();
            if moves {
                let half = decoder.half().map(owned).unwrap_or_default();
                decoder = Decoder::resume(half, Role::Server).unwrap();
            }
        }
        events
    }

    #[test]
    fn a_decoder_goes_on_elsewhere_at_every_byte() {
        let mut input = Vec::new();
        put_client_frame(Opcode::Text, [1, 2, 3, 4], "ä€𝄞 text".as_bytes(), &mut input);
        put_client_frame(Opcode::Binary, [9, 0, 0, 7], &[7; 300], &mut input);
        // A text in two frames with a ping between them.
        let mut fragment = Vec::new();
        put_client_frame(Opcode::Text, [5, 6, 7, 8], "frä".as_bytes(), &mut fragment);
        fragment[0] &= 0x7f;
        input.extend(fragment);
        put_client_frame(Opcode::Ping, [1, 1, 1, 1], b"ping", &mut input);
        put_client_frame(Opcode::Continuation, [4, 3, 2, 1], "gmentiert".as_bytes(), &mut input);
        // A compressed "Hello" in two frames.
        let mut fragment = Vec::new();
        put_client_frame(Opcode::Text, [5, 6, 7, 8], &[0xf2, 0x48, 0xcd], &mut fragment);
        fragment[0] = 0x41;
        input.extend(fragment);
        put_client_frame(Opcode::Continuation, [4, 3, 2, 1], &[0xc9, 0xc9, 7, 0], &mut input);
        let expected = decoded(&input, 0, false);
        assert_eq!(expected.len(), 5);
        assert_eq!(expected[4], "Text(\"Hello\")");
        for cut in 0..=input.len() {
            assert_eq!(decoded(&input, cut, true), expected, "cut at {cut}");
        }
        assert!(matches!(Event::Ping(b"x"), Event::Ping(_)));
    }

    #[test]
    fn what_no_decoder_was_in_is_refused() {
        let frame = |opcode, fin, left| Some(HalfFrame { opcode, fin, mask: [0; 4], left });
        let text = Some(Opcode::Text);
        let half = Half::<Vec<u8>>::default;
        for senseless in [
            Half { header: vec![0x81, 0x80, 1, 2, 3, 4], ..half() },
            Half { header: vec![0xff; 14], ..half() },
            Half { header: vec![0x81], frame: frame(Opcode::Ping, true, 1), ..half() },
            Half { frame: frame(Opcode::Text, true, 1), ..half() },
            Half { frame: frame(Opcode::Text, true, 0), message: text, ..half() },
            Half { frame: frame(Opcode::Text, true, usize::MAX), message: text, ..half() },
            Half { frame: frame(Opcode::Ping, true, 126), ..half() },
            Half { control: vec![1], ..half() },
            Half { data: vec![1], ..half() },
            Half { message: Some(Opcode::Ping), ..half() },
            Half { deflated: true, ..half() },
            Half { message: text, data: vec![0xff, 0xff], ..half() },
        ] {
            assert!(Decoder::resume(senseless.clone(), Role::Server).is_err(), "{senseless:?}");
        }
        let empty = Decoder::resume(half(), Role::Server).unwrap();
        assert!(!empty.is_partial() && empty.held_bytes() == 0);
    }
}

//! What a client offers in `Sec-WebSocket-Extensions`, and what it is answered (RFC 6455 9.1,
//! RFC 7692 7.1).

use super::deflate::Window;

/// permessage-deflate, without context takeover in either direction, as it was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    pub window: Window,
    /// Whether the client asked for a window of at most so much, and so is told which.
    names_window: bool,
}

impl Agreed {
    /// The value of the answer's `Sec-WebSocket-Extensions`.
    pub const fn answer(self) -> &'static str {
        // RFC 7692 7.1.1.2: a client may be told to take nothing over without having offered it.
        match (self.names_window, self.window) {
            (false, _) => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            }
            (true, Window::Usual) => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=15"
            }
            (true, Window::Small) => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=9"
            }
        }
    }
}

/// The header is not what RFC 6455 9.1 says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Takes the first offer of permessage-deflate that can be accepted, of all lines of the header in
/// their order.
///
/// # Errors
/// Where a line breaks the grammar. RFC 6455 9.1: then the connection is to fail.
pub fn negotiate<'h>(lines: impl Iterator<Item = &'h [u8]>) -> Result<Option<Agreed>, Malformed> {
    let mut agreed = None;
    for line in lines {
        let mut rest = Rest(line);
        loop {
            // RFC 2616 2.1: a list may have empty elements.
            rest.skip_space();
            if rest.eat(b',') {
                continue;
            }
            if rest.0.is_empty() {
                break;
            }
            let offer = offer(&mut rest)?;
            // All of the header is read, so that what is malformed is found wherever it is.
            agreed = agreed.or(offer);
            rest.skip_space();
            if !rest.0.is_empty() && !rest.eat(b',') {
                return Err(Malformed);
            }
        }
    }
    Ok(agreed)
}

/// One extension with its parameters; `None` where it is another, or is to be declined.
fn offer(rest: &mut Rest<'_>) -> Result<Option<Agreed>, Malformed> {
    let mut offer = (rest.token()? == b"permessage-deflate").then(Offer::default);
    loop {
        rest.skip_space();
        if !rest.eat(b';') {
            return Ok(offer.and_then(Offer::accept));
        }
        rest.skip_space();
        let name = rest.token()?;
        rest.skip_space();
        let value = if rest.eat(b'=') {
            rest.skip_space();
            Some(rest.value()?)
        } else {
            None
        };
        if let Some(offer) = &mut offer {
            offer.parameter(name, value);
        }
    }
}

/// What is offered.
#[derive(Debug, Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    client_max_window_bits: bool,
    server_max_window_bits: Option<u8>,
    /// RFC 7692 7.1: a parameter that is unknown, has a value that it may not have, or is there
    /// twice.
    is_declined: bool,
}

impl Offer {
    fn parameter(&mut self, name: &[u8], value: Option<Value>) {
        let seen = match (name, value) {
            (b"server_no_context_takeover", None) => {
                std::mem::replace(&mut self.server_no_context_takeover, true)
            }
            (b"client_no_context_takeover", None) => {
                std::mem::replace(&mut self.client_no_context_takeover, true)
            }
            // Whatever a client's window is, it can be read here.
            (b"client_max_window_bits", None | Some(Value::Bits(8..=15))) => {
                std::mem::replace(&mut self.client_max_window_bits, true)
            }
            (b"server_max_window_bits", Some(Value::Bits(bits @ 8..=15))) => {
                self.server_max_window_bits.replace(bits).is_some()
            }
            _ => true,
        };
        self.is_declined |= seen;
    }

    fn accept(self) -> Option<Agreed> {
        let window = match self.server_max_window_bits {
            _ if self.is_declined => return None,
            None | Some(15..) => Window::Usual,
            Some(9..15) => Window::Small,
            // RFC 7692 7.1.2.1: what the server does not support it declines. No compressor here
            // has a window of 256 bytes.
            Some(_) => return None,
        };
        Some(Agreed { window, names_window: self.server_max_window_bits.is_some() })
    }
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// A number of one or two digits without leading zeros (RFC 7692 7.1.2).
    Bits(u8),
    Other,
}

/// What is still to be read of a line.
struct Rest<'h>(&'h [u8]);

impl<'h> Rest<'h> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn token(&mut self) -> Result<&'h [u8], Malformed> {
        let len = self.0.iter().take_while(|byte| is_token(**byte)).count();
        let (token, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, or one in quotes (RFC 6455 9.1: what is within them must be a token).
    fn value(&mut self) -> Result<Value, Malformed> {
        if !self.eat(b'"') {
            return Ok(bits(self.token()?.iter().copied()));
        }
        let mut unquoted = Vec::new();
        loop {
            let [byte, rest @ ..] = self.0 else { return Err(Malformed) };
            self.0 = rest;
            let byte = match (*byte, rest) {
                (b'"', _) if unquoted.is_empty() => return Err(Malformed),
                (b'"', _) => return Ok(bits(unquoted.into_iter())),
                (b'\\', [escaped, rest @ ..]) => {
                    self.0 = rest;
                    *escaped
                }
                (byte, _) => byte,
            };
            if !is_token(byte) {
                return Err(Malformed);
            }
            unquoted.push(byte);
        }
    }
}

fn bits(mut digits: impl Iterator<Item = u8>) -> Value {
    match (digits.next(), digits.next(), digits.next()) {
        (Some(one @ b'0'..=b'9'), None, None) => Value::Bits(one - b'0'),
        (Some(ten @ b'1'..=b'9'), Some(one @ b'0'..=b'9'), None) => {
            Value::Bits((ten - b'0') * 10 + (one - b'0'))
        }
        _ => Value::Other,
    }
}

/// RFC 2616 2.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'(' | b')'
                | b'<'
                | b'>'
                | b'@'
                | b','
                | b';'
                | b':'
                | b'\\'
                | b'"'
                | b'/'
                | b'['
                | b']'
                | b'?'
                | b'='
                | b'{'
                | b'}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answered(lines: &[&str]) -> Result<Option<&'static str>, Malformed> {
        let lines = lines.iter().map(|line| line.as_bytes());
        negotiate(lines).map(|agreed| agreed.map(Agreed::answer))
    }

    #[test]
    fn what_can_be_agreed_on_is_answered() {
        let with = |bits: u8| format!("{PLAIN}; server_max_window_bits={bits}");
        let (usual, small) = (with(15), with(9));
        for (offer, answer) in [
            ("permessage-deflate", PLAIN),
            // What browsers send.
            ("permessage-deflate; client_max_window_bits", PLAIN),
            ("permessage-deflate;client_no_context_takeover;server_no_context_takeover", PLAIN),
            ("permessage-deflate ; client_no_context_takeover\t;server_no_context_takeover", PLAIN),
            ("permessage-deflate; client_max_window_bits=8", PLAIN),
            ("permessage-deflate; client_max_window_bits=15", PLAIN),
            ("permessage-deflate; client_max_window_bits=\"10\"", PLAIN),
            ("permessage-deflate; server_max_window_bits=12; client_max_window_bits=12", &small),
            ("permessage-deflate; server_max_window_bits=15", &usual),
            ("permessage-deflate; server_max_window_bits=14", &small),
            ("permessage-deflate; server_max_window_bits=11", &small),
            ("permessage-deflate; server_max_window_bits=9", &small),
            ("permessage-deflate; server_max_window_bits = \"1\\0\"", &small),
            // The first that can be accepted counts, whatever else is offered.
            ("x-webkit-deflate-frame, permessage-deflate", PLAIN),
            ("bzip; level=9, permessage-deflate; client_max_window_bits, mux", PLAIN),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", &small),
            ("permessage-deflate; server_max_window_bits=8, permessage-deflate", PLAIN),
            ("permessage-deflate; what=ever, permessage-deflate", PLAIN),
            (", ,permessage-deflate,,", PLAIN),
        ] {
            assert_eq!(answered(&[offer]), Ok(Some(answer)), "{offer}");
        }
        assert_eq!(answered(&["other", "permessage-deflate"]), Ok(Some(PLAIN)));
    }

    #[test]
    fn what_cannot_is_declined() {
        for offer in [
            "",
            " ",
            ",",
            "x-webkit-deflate-frame",
            "Permessage-Deflate",
            "permessage-deflate-2",
            "permessage-deflate; unknown",
            "permessage-deflate; unknown=1",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=0",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=120",
            "permessage-deflate; server_max_window_bits=a",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=010",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
        ] {
            assert_eq!(answered(&[offer]), Ok(None), "{offer}");
        }
        assert_eq!(answered(&[]), Ok(None));
    }

    #[test]
    fn what_breaks_the_grammar_fails() {
        for offer in [
            ";",
            "permessage-deflate;",
            "permessage-deflate;;client_no_context_takeover",
            "permessage-deflate; =1",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"",
            "permessage-deflate; client_max_window_bits=\"10",
            "permessage-deflate; client_max_window_bits=\"10\\",
            "permessage-deflate; client_max_window_bits=\"\"",
            "permessage-deflate; client_max_window_bits=\"1 0\"",
            "permessage-deflate client_max_window_bits",
            "permessage-deflate, (",
            "a=1",
            "permessage-deflate; x=1 2",
            "\u{e4}",
        ] {
            assert_eq!(answered(&[offer]), Err(Malformed), "{offer}");
        }
        // Behind an offer that was accepted, too.
        assert_eq!(answered(&["permessage-deflate", "=\u{0}"]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_header_is_survived(lines in vec(vec(any::<u8>(), 0..80), 0..4)) {
            negotiate(lines.iter().map(Vec::as_slice)).ok(); // whatever it is
        }

        #[test]
        fn any_offers_are_read_as_their_parts_say(
            offers in vec(vec((0_usize..6, proptest::option::of(0_u8..20)), 0..4), 0..4),
        ) {
            const NAMES: [&str; 6] = [
                "server_no_context_takeover", "client_no_context_takeover",
                "client_max_window_bits", "server_max_window_bits", "other", "mux",
            ];
            let mut line = Vec::new();
            let mut expected = None;
            for parameters in &offers {
                let mut offer = "permessage-deflate".to_owned();
                let mut names: Vec<_> = parameters.iter().map(|(at, _)| at).collect();
                names.sort_unstable();
                names.dedup();
                let mut fits = names.len() == parameters.len();
                let mut window = None;
                for (at, value) in parameters {
                    offer += "; ";
                    offer += NAMES[*at];
                    value.iter().for_each(|value| offer += &format!("={value}"));
                    fits &= match (at, value) {
                        (0 | 1, None) | (2, None | Some(8..=15)) => true,
                        (3, Some(bits @ 9..=15)) => {
                            window = Some(*bits);
                            true
                        }
                        _ => false,
                    };
                }
                if fits {
                    expected = expected.or(Some(window));
                }
                line.push(offer);
            }
            let agreed = answered(&[&line.join(", ")]).unwrap();
            prop_assert_eq!(agreed.is_some(), expected.is_some());
            if let (Some(answer), Some(window)) = (agreed, expected) {
                let told = answer.split_once("server_max_window_bits=");
                let told = told.map(|(_, bits)| bits.parse::<u8>().unwrap());
                prop_assert_eq!(told.is_some(), window.is_some());
                prop_assert!(told.is_none_or(|bits| bits <= window.unwrap()));
            }
        }
    }
}

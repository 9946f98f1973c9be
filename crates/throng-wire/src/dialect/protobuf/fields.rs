//! Fields of messages, out of bytes and into them: varints, texts, bytes and nested messages
//! (protobuf.dev, "Encoding").

use std::borrow::Cow;

use crate::dialect::Malformed;
use crate::dialect::payload;

/// The longest varint: ten groups of seven bits hold 64.
const VARINT_BYTES_MAX: usize = 10;

/// A field's value as it stands in the message. Which kind of number it is only its reader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Numbers of a fixed width: no field of this protocol is one.
    Fixed,
}

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// From 1.
    pub number: u32,
    pub value: Value<'a>,
    /// Where its value begins, in bytes from the start of what was read.
    at: usize,
}

/// The fields of a message, in the order in which they were written.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    read: usize,
    /// Where the message begins, for errors.
    base: usize,
}

impl<'a> Fields<'a> {
    /// Those of a message; `base` is added to the places that errors name.
    pub fn of(message: &'a [u8], base: usize) -> Self {
        Self { message, read: 0, base }
    }

    /// The next field; `None` at the end of the message.
    ///
    /// # Errors
    /// Where the message is broken.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would have to remember its error"
    )]
    pub fn next(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.read == self.message.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let at = self.base + self.read;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let Some(number) = number else { return Err(self.wrong("is no number of a field")) };
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            1 => self.take(8).map(|_| Value::Fixed)?,
            5 => self.take(4).map(|_| Value::Fixed)?,
            // 3 and 4 bracket groups, which proto3 has no more.
            _ => return Err(self.wrong("is of a kind that proto3 does not have")),
        };
        Ok(Some(Field { number, value, at }))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.read.checked_add(len);
        match end.and_then(|end| self.message.get(self.read..end)) {
            Some(bytes) => {
                self.read += len;
                Ok(bytes)
            }
            None => Err(self.wrong("the message ends within a field")),
        }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let rest = self.message.get(self.read..).unwrap_or_default();
        match varint(rest) {
            Some((number, size)) => {
                self.read += size;
                Ok(number)
            }
            None if rest.len() < VARINT_BYTES_MAX => {
                Err(self.wrong("the message ends in a number"))
            }
            None => Err(self.wrong("a number is longer than 64 bits")),
        }
    }

    fn wrong(&self, reason: &str) -> Malformed {
        Malformed { at: self.base + self.read, reason: reason.to_owned() }
    }
}

impl<'a> Field<'a> {
    /// The bytes of a nested message, to read its fields from.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn message(&self) -> Result<Fields<'a>, Malformed> {
        Ok(Fields::of(self.bytes()?, self.inner_at()))
    }

    /// Its bytes.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Fixed => Err(self.wrong("is a number, where bytes belong")),
        }
    }

    /// Its bytes as a text.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn text(&self) -> Result<Cow<'a, str>, Malformed> {
        match simdutf8::basic::from_utf8(self.bytes()?) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => Err(self.wrong("is a text that is not UTF-8")),
        }
    }

    /// A payload, in the form in which it travels through the server.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn payload(&self) -> Result<Cow<'a, [u8]>, Malformed> {
        self.bytes().map(payload::sealed)
    }

    /// Its value as a number.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn number(&self) -> Result<u64, Malformed> {
        match self.value {
            Value::Varint(number) => Ok(number),
            Value::Bytes(_) | Value::Fixed => Err(self.wrong("is no number, where one belongs")),
        }
    }

    /// A number of 32 bits; of a longer one the low bits count, as in every proto3 reader.
    ///
    /// # Errors
    /// Where it is of another kind.
    #[expect(clippy::cast_possible_truncation, reason = "that is how proto3 reads it")]
    pub fn short(&self) -> Result<u32, Malformed> {
        self.number().map(|number| number as u32)
    }

    /// Its value as a yes or no.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn flag(&self) -> Result<bool, Malformed> {
        self.number().map(|number| number != 0)
    }

    /// Where the value's bytes begin. The size of their length is what a varint of it takes, or
    /// more where it was padded; near enough to point at.
    fn inner_at(&self) -> usize {
        match self.value {
            Value::Bytes(bytes) => self.at + varint_size(bytes.len() as u64),
            Value::Varint(_) | Value::Fixed => self.at,
        }
    }

    fn wrong(&self, reason: &str) -> Malformed {
        Malformed { at: self.at, reason: format!("field {} {reason}", self.number) }
    }
}

/// A varint from the front of `bytes`, and its size; `None` where it does not end or is too long.
pub fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let group = u64::from(byte & 0x7f);
        // The tenth byte holds the 64th bit alone.
        if index == VARINT_BYTES_MAX - 1 && group > 1 {
            return None;
        }
        number |= group << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, index + 1));
        }
    }
    None
}

/// How many bytes a varint of this number takes.
pub fn varint_size(number: u64) -> usize {
    let bits = u64::BITS - number.leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(VARINT_BYTES_MAX).max(1)
}

/// Appends a varint.
pub fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while let Ok(low) = u8::try_from(number & 0x7f)
        && number > 0x7f
    {
        out.push(low | 0x80);
        number >>= 7;
    }
    out.extend(u8::try_from(number));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_written() {
        for number in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(number, &mut out);
            assert_eq!(varint(&out), Some((number, out.len())));
            assert_eq!(varint_size(number), out.len());
        }
        assert_eq!(varint(&[0x80; 9]), None);
        assert_eq!(varint(&[0xff; 10]), None);
        // The 65th bit.
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None);
    }
}

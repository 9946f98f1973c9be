//! Fields read, with every length checked.

use std::fmt;

use super::{BYTES, NEEDED, NUMBER, second_of};
#[cfg(debug_assertions)]
use super::{RECORD, TAG_MAX, Writer};
use crate::request::Now;

/// Bytes that are not what was written, or written by what cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt {
    /// Where, counted from the beginning of all.
    pub at: usize,
    /// In which record.
    pub what: &'static str,
    pub why: String,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}, in {}: {}", self.at, self.what, self.why)
    }
}

impl std::error::Error for Corrupt {}

/// Reads the fields of a record.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// Where `rest` begins.
    at: usize,
    what: &'static str,
    now: Now,
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub tag: u8,
    value: Value<'a>,
    /// Where its value begins.
    at: usize,
    what: &'static str,
    now: Now,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Record(&'a [u8]),
    Needed(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// The fields of `bytes`, which are called `what` in errors and begin `at` so many bytes from
    /// the beginning of all. Times count from `now`.
    pub fn new(bytes: &'a [u8], at: usize, what: &'static str, now: Now) -> Self {
        Self { rest: bytes, at, what, now }
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next field; none at the end.
    ///
    /// # Errors
    /// When it is none, or ends beyond its record.
    pub fn field(&mut self) -> Result<Option<Field<'a>>, Corrupt> {
        let Some((&key, rest)) = self.rest.split_first() else { return Ok(None) };
        self.skip_to(rest);
        let tag = key >> 2;
        if tag == 0 {
            return Err(self.corrupt("a field without a tag"));
        }
        let (at, value) = match key & 3 {
            NUMBER => (self.at, Value::Number(self.varint()?)),
            BYTES => {
                let len = self.varint()?;
                let at = self.at;
                (at, Value::Bytes(self.take(len, tag)?))
            }
            kind => {
                let Some((len, rest)) = self.rest.split_first_chunk::<4>() else {
                    return Err(self.corrupt("it ends within a length"));
                };
                self.skip_to(rest);
                let at = self.at;
                let bytes = self.take(u64::from(u32::from_le_bytes(*len)), tag)?;
                (at, if kind == NEEDED { Value::Needed(bytes) } else { Value::Record(bytes) })
            }
        };
        Ok(Some(Field { tag, value, at, what: self.what, now: self.now }))
    }

    /// An error at this place.
    pub fn corrupt(&self, why: impl Into<String>) -> Corrupt {
        Corrupt { at: self.at, what: self.what, why: why.into() }
    }

    /// Writes these fields again, and beside them, in every record, a number, bytes and a record that
    /// nobody knows: as a later minor version might have written them. For tests of whole programs.
    ///
    /// # Errors
    /// When they cannot be read.
    #[cfg(debug_assertions)]
    pub fn put_grown(mut self, out: &mut Writer) -> Result<(), Corrupt> {
        while let Some(Field { tag, value, at, what, now }) = self.field()? {
            let mut grown = Ok(());
            match value {
                Value::Number(number) => out.number(tag, number),
                Value::Bytes(bytes) => out.bytes(tag, bytes),
                Value::Record(bytes) | Value::Needed(bytes) => {
                    let fields = Self { rest: bytes, at, what, now };
                    let kind = if matches!(value, Value::Needed(_)) { NEEDED } else { RECORD };
                    out.behind_length(tag, kind, |out| grown = fields.put_grown(out));
                }
            }
            grown?;
        }
        out.number(TAG_MAX - 2, 7);
        out.bytes(TAG_MAX - 1, b"later");
        out.record(TAG_MAX, |out| out.number(1, 7));
        Ok(())
    }

    fn take(&mut self, len: u64, tag: u8) -> Result<&'a [u8], Corrupt> {
        let split = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let Some((taken, rest)) = split else {
            let left = self.rest.len();
            let why = format!("field {tag} says that it has {len} bytes, and {left} are left");
            return Err(self.corrupt(why));
        };
        self.skip_to(rest);
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0_u64;
        for (count, byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if count == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * count);
            if byte & 0x80 == 0 {
                let rest = self.rest.get(count + 1..).unwrap_or_default();
                self.skip_to(rest);
                return Ok(value);
            }
        }
        Err(self.corrupt("a number that does not end"))
    }

    fn skip_to(&mut self, rest: &'a [u8]) {
        self.at += self.rest.len() - rest.len();
        self.rest = rest;
    }
}

impl<'a> Field<'a> {
    pub fn now(&self) -> Now {
        self.now
    }

    pub fn second(&self) -> u32 {
        second_of(self.now)
    }

    /// Its number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self) -> Result<u64, Corrupt> {
        match self.value {
            Value::Number(number) => Ok(number),
            _ => Err(self.corrupt("is no number")),
        }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// When it has none.
    pub fn bytes(&self) -> Result<&'a [u8], Corrupt> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.corrupt("is not bytes")),
        }
    }

    /// Its bytes as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, Corrupt> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.corrupt("is not UTF-8"))
    }

    /// Its fields, where it is a record.
    ///
    /// # Errors
    /// When it is none.
    pub fn fields(&self, what: &'static str) -> Result<Fields<'a>, Corrupt> {
        match self.value {
            Value::Record(bytes) | Value::Needed(bytes) => {
                Ok(Fields { rest: bytes, at: self.at, what, now: self.now })
            }
            _ => Err(self.corrupt("is no record")),
        }
    }

    /// Where its bytes are, counted from the beginning of all.
    pub fn range(&self) -> std::ops::Range<usize> {
        let len = match self.value {
            Value::Number(_) => 0,
            Value::Bytes(bytes) | Value::Record(bytes) | Value::Needed(bytes) => bytes.len(),
        };
        self.at..self.at + len
    }

    /// Passes over a field that is not known here.
    ///
    /// # Errors
    /// When it must be known.
    pub fn pass(&self) -> Result<(), Corrupt> {
        match self.value {
            Value::Needed(_) => Err(self.corrupt("is not known here, and must be")),
            Value::Number(_) | Value::Bytes(_) | Value::Record(_) => Ok(()),
        }
    }

    /// An error about this field.
    pub fn corrupt(&self, why: impl fmt::Display) -> Corrupt {
        let why = format!("field {} {why}", self.tag);
        Corrupt { at: self.at, what: self.what, why }
    }
}

//! Bytes of state: tagged fields one after the other, in records within records.
//!
//! A field is one byte, its tag and its kind, and a value: a number in groups of seven bits, or
//! bytes behind their length. What has its ordinary value is left out. A reader passes over fields
//! that it does not know, unless their kind says that it must know them; it checks every length,
//! and says where what it cannot read stands.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::publication::Epoch;
use crate::request::Now;

/// The largest tag: six bits beside the kind.
const TAG_MAX: u8 = 63;

const NUMBER: u8 = 0;
const BYTES: u8 = 1;
/// Behind a length of four bytes, which is known only when the record is through.
const RECORD: u8 = 2;
/// A record that a reader must know: without it the rest would mean something else.
const NEEDED: u8 = 3;

/// Writes fields.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    now: Now,
}

impl Writer {
    /// A writer that starts with `bytes`. Times are written as what is left, or has passed, at `now`.
    pub fn new(bytes: Vec<u8>, now: Now) -> Self {
        Self { bytes, now }
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// The whole second of the clock.
    pub fn second(&self) -> u32 {
        second_of(self.now)
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn number(&mut self, tag: u8, value: u64) {
        self.key(tag, NUMBER);
        self.varint(value);
    }

    pub fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.key(tag, BYTES);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// A record of what `fields` writes.
    pub fn record(&mut self, tag: u8, fields: impl FnOnce(&mut Self)) {
        self.behind_length(tag, RECORD, fields);
    }

    /// A record that a reader who does not know it must refuse.
    pub fn needed(&mut self, tag: u8, fields: impl FnOnce(&mut Self)) {
        self.behind_length(tag, NEEDED, fields);
    }

    fn behind_length(&mut self, tag: u8, kind: u8, fields: impl FnOnce(&mut Self)) {
        self.key(tag, kind);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fields(self);
        let len = self.bytes.len() - at - 4;
        // What is larger is cut in pieces by who writes it; a length that does not fit is read as
        // one that ends elsewhere, and refused.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&len.to_le_bytes());
        }
    }

    fn key(&mut self, tag: u8, kind: u8) {
        debug_assert!((1..=TAG_MAX).contains(&tag), "a tag has six bits and is not 0");
        self.bytes.push(tag << 2 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push((value & 0x7f) as u8);
    }
}

/// The second that a clock's time is in.
fn second_of(now: Now) -> u32 {
    u32::try_from(now.mono_ms / 1000).unwrap_or(u32::MAX - 1)
}

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

/// Something that stands in one field, or in several of one tag.
pub trait Part: Sized {
    /// What it is when no field is there; none: then the record is broken.
    fn absent() -> Option<Self>;

    fn put(&self, tag: u8, out: &mut Writer);

    /// Reads it, where earlier fields of the tag gave `old`.
    ///
    /// # Errors
    /// When the field cannot be this.
    fn take(old: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt>;
}

/// Another way to write a `T` than its own.
pub trait Through<T> {
    /// See [`Part::absent`].
    fn absent() -> Option<T>;
    fn put(value: &T, tag: u8, out: &mut Writer);
    /// See [`Part::take`].
    ///
    /// # Errors
    /// When the field cannot be this.
    fn take(old: Option<T>, field: &Field<'_>) -> Result<T, Corrupt>;
}

/// A thing's own way.
#[derive(Debug)]
pub struct Plain;

impl<T: Part> Through<T> for Plain {
    fn absent() -> Option<T> {
        T::absent()
    }
    fn put(value: &T, tag: u8, out: &mut Writer) {
        value.put(tag, out);
    }
    fn take(old: Option<T>, field: &Field<'_>) -> Result<T, Corrupt> {
        T::take(old, field)
    }
}

/// Seconds of the clock until which something lasts; the largest number is never.
#[derive(Debug)]
pub struct Until;

impl Through<u32> for Until {
    fn absent() -> Option<u32> {
        Some(u32::MAX)
    }
    fn put(value: &u32, tag: u8, out: &mut Writer) {
        if *value != u32::MAX {
            out.number(tag, u64::from(value.saturating_sub(out.second())));
        }
    }
    fn take(_: Option<u32>, field: &Field<'_>) -> Result<u32, Corrupt> {
        let left = u32::try_from(field.number()?).unwrap_or(u32::MAX);
        Ok(field.second().saturating_add(left).min(u32::MAX - 1))
    }
}

/// Seconds of the clock until which something lasts; 0 is never.
#[derive(Debug)]
pub struct UntilUnlessZero;

impl Through<u32> for UntilUnlessZero {
    fn absent() -> Option<u32> {
        Some(0)
    }
    fn put(value: &u32, tag: u8, out: &mut Writer) {
        if *value != 0 {
            out.number(tag, u64::from(value.saturating_sub(out.second())));
        }
    }
    fn take(_: Option<u32>, field: &Field<'_>) -> Result<u32, Corrupt> {
        let left = u32::try_from(field.number()?).unwrap_or(u32::MAX);
        Ok(field.second().saturating_add(left).clamp(1, u32::MAX - 1))
    }
}

/// The second of the clock when something happened.
#[derive(Debug)]
pub struct Since;

impl Through<u32> for Since {
    fn absent() -> Option<u32> {
        None
    }
    fn put(value: &u32, tag: u8, out: &mut Writer) {
        out.number(tag, u64::from(out.second().saturating_sub(*value)));
    }
    fn take(_: Option<u32>, field: &Field<'_>) -> Result<u32, Corrupt> {
        let age = u32::try_from(field.number()?).unwrap_or(u32::MAX);
        Ok(field.second().saturating_sub(age))
    }
}

/// Milliseconds of the clock until which something lasts.
#[derive(Debug)]
pub struct UntilMs;

impl Through<u64> for UntilMs {
    fn absent() -> Option<u64> {
        None
    }
    fn put(value: &u64, tag: u8, out: &mut Writer) {
        out.number(tag, value.saturating_sub(out.now().mono_ms));
    }
    fn take(_: Option<u64>, field: &Field<'_>) -> Result<u64, Corrupt> {
        Ok(field.now().mono_ms.saturating_add(field.number()?))
    }
}

/// The millisecond of the clock when something happened.
#[derive(Debug)]
pub struct SinceMs;

impl Through<u64> for SinceMs {
    fn absent() -> Option<u64> {
        None
    }
    fn put(value: &u64, tag: u8, out: &mut Writer) {
        out.number(tag, out.now().mono_ms.saturating_sub(*value));
    }
    fn take(_: Option<u64>, field: &Field<'_>) -> Result<u64, Corrupt> {
        Ok(field.now().mono_ms.saturating_sub(field.number()?))
    }
}

macro_rules! number_part {
    ($($number:ty),*) => {$(
        impl Part for $number {
            fn absent() -> Option<Self> {
                Some(0)
            }
            fn put(&self, tag: u8, out: &mut Writer) {
                if *self != 0 {
                    out.number(tag, *self as u64);
                }
            }
            fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
                let number = field.number()?;
                Self::try_from(number)
                    .map_err(|_| field.corrupt(format_args!("is {number}, which is too large")))
            }
        }
    )*};
}
number_part!(u8, u16, u32, u64, usize);

impl Part for i32 {
    fn absent() -> Option<Self> {
        Some(0)
    }
    fn put(&self, tag: u8, out: &mut Writer) {
        Part::put(&i64::from(*self), tag, out);
    }
    fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
        let number = <i64 as Part>::take(None, field)?;
        Self::try_from(number).map_err(|_| field.corrupt("is too large a number"))
    }
}

impl Part for i64 {
    fn absent() -> Option<Self> {
        Some(0)
    }
    fn put(&self, tag: u8, out: &mut Writer) {
        if *self != 0 {
            out.number(tag, self.cast_unsigned());
        }
    }
    fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
        Ok(field.number()?.cast_signed())
    }
}

impl Part for f64 {
    fn absent() -> Option<Self> {
        Some(0.0)
    }
    fn put(&self, tag: u8, out: &mut Writer) {
        if *self != 0.0 {
            out.bytes(tag, &self.to_le_bytes());
        }
    }
    fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
        let bytes: [u8; 8] =
            field.bytes()?.try_into().map_err(|_| field.corrupt("has not eight bytes"))?;
        Some(Self::from_le_bytes(bytes))
            .filter(|number| number.is_finite())
            .ok_or_else(|| field.corrupt("is not a number"))
    }
}

impl Part for bool {
    fn absent() -> Option<Self> {
        Some(false)
    }
    fn put(&self, tag: u8, out: &mut Writer) {
        if *self {
            out.number(tag, 1);
        }
    }
    fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
        match field.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(field.corrupt("is neither yes nor no")),
        }
    }
}

macro_rules! text_part {
    ($($text:ty),*) => {$(
        impl Part for $text {
            fn absent() -> Option<Self> {
                Some(Self::default())
            }
            fn put(&self, tag: u8, out: &mut Writer) {
                if !self.is_empty() {
                    out.bytes(tag, self.as_bytes());
                }
            }
            fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
                Ok(field.text()?.into())
            }
        }
    )*};
}
text_part!(String, Box<str>, Arc<str>);

impl Part for Bytes {
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
    fn put(&self, tag: u8, out: &mut Writer) {
        if !self.is_empty() {
            out.bytes(tag, self);
        }
    }
    fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
        Ok(Self::copy_from_slice(field.bytes()?))
    }
}

impl Part for Uuid {
    fn absent() -> Option<Self> {
        None
    }
    fn put(&self, tag: u8, out: &mut Writer) {
        out.bytes(tag, self.as_bytes());
    }
    fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
        Self::from_slice(field.bytes()?).map_err(|_| field.corrupt("has not sixteen bytes"))
    }
}

impl Part for Epoch {
    fn absent() -> Option<Self> {
        None
    }
    fn put(&self, tag: u8, out: &mut Writer) {
        out.bytes(tag, &self.0);
    }
    fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
        field
            .bytes()?
            .try_into()
            .ok()
            .filter(|letters: &[u8; 8]| letters.iter().all(u8::is_ascii_alphabetic))
            .map(Self)
            .ok_or_else(|| field.corrupt("is not eight letters"))
    }
}

/// What is there is always written, so that it is not taken for what is not.
macro_rules! optional_part {
    ($($inner:ty),*) => {$(
        impl Part for Option<$inner> {
            fn absent() -> Option<Self> {
                Some(None)
            }
            fn put(&self, tag: u8, out: &mut Writer) {
                if let Some(inner) = self {
                    AlwaysPut::put(inner, tag, out);
                }
            }
            fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
                <$inner as Part>::take(None, field).map(Some)
            }
        }
    )*};
}
optional_part!(u64, u32, i64, bool, usize, Box<str>, Arc<str>, Bytes, Uuid, Epoch);

/// Writes also what has its ordinary value.
pub trait AlwaysPut {
    fn put(&self, tag: u8, out: &mut Writer);
}

macro_rules! always_number {
    ($($number:ty),*) => {$(
        impl AlwaysPut for $number {
            fn put(&self, tag: u8, out: &mut Writer) {
                out.number(tag, *self as u64);
            }
        }
    )*};
}
always_number!(u64, u32, usize, bool);

impl AlwaysPut for i64 {
    fn put(&self, tag: u8, out: &mut Writer) {
        out.number(tag, self.cast_unsigned());
    }
}

macro_rules! always_bytes {
    ($($bytes:ty),*) => {$(
        impl AlwaysPut for $bytes {
            fn put(&self, tag: u8, out: &mut Writer) {
                out.bytes(tag, self.as_ref());
            }
        }
    )*};
}
always_bytes!(Bytes, Vec<u8>);

macro_rules! always_text {
    ($($text:ty),*) => {$(
        impl AlwaysPut for $text {
            fn put(&self, tag: u8, out: &mut Writer) {
                out.bytes(tag, self.as_bytes());
            }
        }
    )*};
}
always_text!(String, Box<str>, Arc<str>, Uuid);

impl AlwaysPut for Epoch {
    fn put(&self, tag: u8, out: &mut Writer) {
        out.bytes(tag, &self.0);
    }
}

/// A list of what stands in a field each.
#[derive(Debug)]
pub struct Each;

impl<T: Part + AlwaysPut> Through<Vec<T>> for Each {
    fn absent() -> Option<Vec<T>> {
        Some(Vec::new())
    }
    fn put(value: &Vec<T>, tag: u8, out: &mut Writer) {
        for each in value {
            AlwaysPut::put(each, tag, out);
        }
    }
    fn take(old: Option<Vec<T>>, field: &Field<'_>) -> Result<Vec<T>, Corrupt> {
        let mut list = old.unwrap_or_default();
        list.push(T::take(None, field)?);
        Ok(list)
    }
}

/// Bytes as they are.
#[derive(Debug)]
pub struct Raw;

impl Through<Vec<u8>> for Raw {
    fn absent() -> Option<Vec<u8>> {
        Some(Vec::new())
    }
    fn put(value: &Vec<u8>, tag: u8, out: &mut Writer) {
        if !value.is_empty() {
            out.bytes(tag, value);
        }
    }
    fn take(_: Option<Vec<u8>>, field: &Field<'_>) -> Result<Vec<u8>, Corrupt> {
        Ok(field.bytes()?.to_vec())
    }
}

/// Something that is a record; [`record!`](crate::record) makes it one.
pub trait Record: Sized {
    /// As it is called in errors.
    const WHAT: &'static str;

    fn put_fields(&self, out: &mut Writer);

    /// Reads all fields.
    ///
    /// # Errors
    /// When one is broken, or missing.
    fn take_fields(fields: Fields<'_>) -> Result<Self, Corrupt>;
}

/// A record in one field, whatever holds it.
#[derive(Debug)]
pub struct Within;

impl<T: Record> Through<T> for Within {
    fn absent() -> Option<T> {
        None
    }
    fn put(value: &T, tag: u8, out: &mut Writer) {
        out.record(tag, |out| value.put_fields(out));
    }
    fn take(_: Option<T>, field: &Field<'_>) -> Result<T, Corrupt> {
        T::take_fields(field.fields(T::WHAT)?)
    }
}

macro_rules! within_holder {
    ($($holder:ty: $make:expr),*) => {$(
        impl<T: Record> Through<$holder> for Within {
            fn absent() -> Option<$holder> {
                Some(Default::default())
            }
            fn put(value: &$holder, tag: u8, out: &mut Writer) {
                if let Some(value) = value {
                    out.record(tag, |out| value.put_fields(out));
                }
            }
            fn take(_: Option<$holder>, field: &Field<'_>) -> Result<$holder, Corrupt> {
                T::take_fields(field.fields(T::WHAT)?).map($make)
            }
        }
    )*};
}
within_holder!(
    Option<T>: Some,
    Option<Arc<T>>: |value| Some(Arc::new(value))
);

impl<T: Record> Record for Box<T> {
    const WHAT: &'static str = T::WHAT;

    fn put_fields(&self, out: &mut Writer) {
        (**self).put_fields(out);
    }

    fn take_fields(fields: Fields<'_>) -> Result<Self, Corrupt> {
        T::take_fields(fields).map(Self::new)
    }
}

impl<T: Record> Through<Vec<T>> for Within {
    fn absent() -> Option<Vec<T>> {
        Some(Vec::new())
    }
    fn put(value: &Vec<T>, tag: u8, out: &mut Writer) {
        for each in value {
            out.record(tag, |out| each.put_fields(out));
        }
    }
    fn take(old: Option<Vec<T>>, field: &Field<'_>) -> Result<Vec<T>, Corrupt> {
        let mut list = old.unwrap_or_default();
        list.push(T::take_fields(field.fields(T::WHAT)?)?);
        Ok(list)
    }
}

/// Says which fields of a struct move, each with its tag and, where it has none of its own, the way
/// in which it is written; and which do not, each with what it is at the other end. The struct is
/// taken apart without `..`: a field that is added has no rule, and does not compile.
///
/// ```text
/// record!("a plan", Plan { 1 channel, 2 expires_s as Until } without { drawn: None });
/// ```
///
/// A tag is never given to something else: readers of other versions would misunderstand it.
#[macro_export]
macro_rules! record {
    (
        $what:literal, $name:ty { $($tag:literal $field:ident $(as $how:ty)?),* $(,)? }
        $(without { $($left:ident : $there:expr),* $(,)? })?
    ) => {
        impl $crate::state::Record for $name {
            const WHAT: &'static str = $what;

            fn put_fields(&self, out: &mut $crate::state::Writer) {
                let Self { $($field,)* $($($left: _,)*)? } = self;
                $(<$crate::record!(@how $($how)?) as $crate::state::Through<_>>::put(
                    $field, $tag, out,
                );)*
            }

            fn take_fields(
                mut fields: $crate::state::Fields<'_>,
            ) -> Result<Self, $crate::state::Corrupt> {
                $(let mut $field = None;)*
                while let Some(field) = fields.field()? {
                    match field.tag {
                        $($tag => $field = Some(
                            <$crate::record!(@how $($how)?) as $crate::state::Through<_>>::take(
                                $field.take(),
                                &field,
                            )?
                        ),)*
                        _ => field.pass()?,
                    }
                }
                Ok(Self {
                    $($field: match $field.or_else(
                        <$crate::record!(@how $($how)?) as $crate::state::Through<_>>::absent,
                    ) {
                        Some(value) => value,
                        None => return Err(fields.corrupt(concat!(
                            "field ", stringify!($tag), " (", stringify!($field), ") is missing"
                        ))),
                    },)*
                    $($($left: $there,)*)?
                })
            }
        }
    };
    (@how $how:ty) => { $how };
    (@how) => { $crate::state::Plain };
}

/// Says which number stands for which value of an enumeration.
#[macro_export]
macro_rules! numbered {
    ($name:ty { $($number:literal $value:pat => $make:expr),* $(,)? }) => {
        impl $crate::state::Part for $name {
            fn absent() -> Option<Self> {
                None
            }

            fn put(&self, tag: u8, out: &mut $crate::state::Writer) {
                let number: u64 = match self {
                    $($value => $number,)*
                };
                out.number(tag, number);
            }

            fn take(
                _: Option<Self>,
                field: &$crate::state::Field<'_>,
            ) -> Result<Self, $crate::state::Corrupt> {
                Ok(match field.number()? {
                    $($number => $make,)*
                    other => return Err(field.corrupt(format_args!("is {other}, which means nothing"))),
                })
            }
        }
    };
}

#[cfg(test)]
mod tests;

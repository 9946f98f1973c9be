//! What stands in a field, and the ways in which it is written.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::{Corrupt, Field, Writer};
use crate::publication::Epoch;

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

//! Bytes of state: tagged fields one after the other, in records within records.
//!
//! A field is one byte, its tag and its kind, and a value: a number in groups of seven bits, or
//! bytes behind their length. What has its ordinary value is left out. A reader passes over fields
//! that it does not know, unless their kind says that it must know them; it checks every length,
//! and says where what it cannot read stands.

mod parts;
mod reader;
mod writer;

use std::sync::Arc;

use crate::request::Now;

pub use parts::{
    AlwaysPut, Each, Part, Plain, Raw, Since, SinceMs, Through, Until, UntilMs, UntilUnlessZero,
};
pub use reader::{Corrupt, Field, Fields};
pub use writer::Writer;

/// The largest tag: six bits beside the kind.
const TAG_MAX: u8 = 63;

const NUMBER: u8 = 0;
const BYTES: u8 = 1;
/// Behind a length of four bytes, which is known only when the record is through.
const RECORD: u8 = 2;
/// A record that a reader must know: without it the rest would mean something else.
const NEEDED: u8 = 3;

/// The second that a clock's time is in.
fn second_of(now: Now) -> u32 {
    u32::try_from(now.mono_ms / 1000).unwrap_or(u32::MAX - 1)
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

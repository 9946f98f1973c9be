//! What sessions are made of that others defined, written down.

use http::{HeaderName, HeaderValue};
use throng_hub::state::{Corrupt, Each, Field, Part, Record, Through, Within, Writer};

use crate::backend::{Answer, Headers, Said, SaidMode, SaidSub};
use crate::codes::Disconnect;
use crate::config::DataFormat;
use crate::front::address::ToldBy;
use crate::token::{Grant, Override};

throng_hub::record!("an override of options", Override {
    1 presence,
    2 join_leave,
    3 force_push_join_leave,
    4 force_positioning,
    5 force_recovery,
});

throng_hub::record!("a grant", Grant { 1 info, 2 data, 3 overrides as WithinUnlessEmpty });

throng_hub::numbered!(DataFormat {
    1 Self::NotEmpty => Self::NotEmpty,
    2 Self::Json => Self::Json,
    3 Self::JsonObject => Self::JsonObject,
    4 Self::Binary => Self::Binary,
});

throng_hub::numbered!(ToldBy {
    1 Self::Socket => Self::Socket,
    2 Self::ProxyProtocol => Self::ProxyProtocol,
    3 Self::Header => Self::Header,
});

/// Left out where it is the usual one.
#[derive(Debug)]
struct WordIfAny;

impl Through<SaidMode> for WordIfAny {
    fn absent() -> Option<SaidMode> {
        Some(SaidMode::Always)
    }
    fn put(value: &SaidMode, tag: u8, out: &mut Writer) {
        let number = match value {
            SaidMode::Always => return,
            SaidMode::IfNew => 1,
            SaidMode::IfExists => 2,
        };
        out.number(tag, number);
    }
    fn take(_: Option<SaidMode>, field: &Field<'_>) -> Result<SaidMode, Corrupt> {
        match field.number()? {
            1 => Ok(SaidMode::IfNew),
            2 => Ok(SaidMode::IfExists),
            other => Err(field.corrupt(format_args!("is {other}, which means nothing"))),
        }
    }
}

/// A record that is left out where nothing is in it.
#[derive(Debug)]
pub(crate) struct WithinUnlessEmpty;

impl<T: Record + Default + PartialEq> Through<T> for WithinUnlessEmpty {
    fn absent() -> Option<T> {
        Some(T::default())
    }
    fn put(value: &T, tag: u8, out: &mut Writer) {
        if *value != T::default() {
            out.record(tag, |out| value.put_fields(out));
        }
    }
    fn take(_: Option<T>, field: &Field<'_>) -> Result<T, Corrupt> {
        T::take_fields(field.fields(T::WHAT)?)
    }
}

/// Headers, each a record of name and value.
#[derive(Debug)]
pub(crate) struct HeaderList;

impl Through<Headers> for HeaderList {
    fn absent() -> Option<Headers> {
        Some(Headers::default())
    }
    fn put(value: &Headers, tag: u8, out: &mut Writer) {
        for (name, value) in value {
            out.record(tag, |out| {
                out.bytes(1, name.as_str().as_bytes());
                out.bytes(2, value.as_bytes());
            });
        }
    }
    fn take(old: Option<Headers>, field: &Field<'_>) -> Result<Headers, Corrupt> {
        let mut list = old.unwrap_or_default().into_vec();
        let mut fields = field.fields("a header")?;
        let (mut name, mut value) = (None, None);
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => {
                    let read = HeaderName::from_bytes(field.bytes()?);
                    name = Some(read.map_err(|_| field.corrupt("is no name of a header"))?);
                }
                2 => {
                    let read = HeaderValue::from_bytes(field.bytes()?);
                    value = Some(read.map_err(|_| field.corrupt("is no value of a header"))?);
                }
                _ => field.pass()?,
            }
        }
        list.push(name.zip(value).ok_or_else(|| fields.corrupt("half of it is missing"))?);
        Ok(list.into())
    }
}

/// A pair of two numbered fields of one record.
#[derive(Debug)]
pub(crate) struct Pair;

impl<A: Part, B: Part> Through<Option<(A, B)>> for Pair {
    fn absent() -> Option<Option<(A, B)>> {
        Some(None)
    }
    fn put(value: &Option<(A, B)>, tag: u8, out: &mut Writer) {
        if let Some((one, other)) = value {
            out.record(tag, |out| {
                one.put(1, out);
                other.put(2, out);
            });
        }
    }
    fn take(_: Option<Option<(A, B)>>, field: &Field<'_>) -> Result<Option<(A, B)>, Corrupt> {
        let mut fields = field.fields("a pair")?;
        let (mut one, mut other) = (A::absent(), B::absent());
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => one = Some(A::take(None, &field)?),
                2 => other = Some(B::take(None, &field)?),
                _ => field.pass()?,
            }
        }
        let pair = one.zip(other).ok_or_else(|| fields.corrupt("half of it is missing"))?;
        Ok(Some(pair))
    }
}

/// Pairs of a name and something, each a record.
#[derive(Debug)]
pub(crate) struct Named;

impl<N: Part, T: Record> Through<Vec<(N, T)>> for Named {
    fn absent() -> Option<Vec<(N, T)>> {
        Some(Vec::new())
    }
    fn put(value: &Vec<(N, T)>, tag: u8, out: &mut Writer) {
        for (name, thing) in value {
            out.record(tag, |out| {
                name.put(1, out);
                out.record(2, |out| thing.put_fields(out));
            });
        }
    }
    fn take(old: Option<Vec<(N, T)>>, field: &Field<'_>) -> Result<Vec<(N, T)>, Corrupt> {
        let mut list = old.unwrap_or_default();
        let mut fields = field.fields("something named")?;
        let (mut name, mut thing) = (N::absent(), None);
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => name = Some(N::take(None, &field)?),
                2 => thing = Some(T::take_fields(field.fields(T::WHAT)?)?),
                _ => field.pass()?,
            }
        }
        list.push(name.zip(thing).ok_or_else(|| fields.corrupt("half of it is missing"))?);
        Ok(list)
    }
}

/// Pairs of texts, each a record.
#[derive(Debug)]
pub(crate) struct Texts;

impl Through<Vec<(String, String)>> for Texts {
    fn absent() -> Option<Vec<(String, String)>> {
        Some(Vec::new())
    }
    fn put(value: &Vec<(String, String)>, tag: u8, out: &mut Writer) {
        for (key, value) in value {
            out.record(tag, |out| {
                key.put(1, out);
                value.put(2, out);
            });
        }
    }
    fn take(
        old: Option<Vec<(String, String)>>,
        field: &Field<'_>,
    ) -> Result<Vec<(String, String)>, Corrupt> {
        let mut list = old.unwrap_or_default();
        list.extend(<Pair as Through<Option<(String, String)>>>::take(None, field)?);
        Ok(list)
    }
}

throng_hub::record!("a subscription of an answer", SaidSub {
    1 grant as WithinUnlessEmpty,
    2 expire_at,
});

throng_hub::record!("what a backend said", Said {
    1 user,
    2 expire_at,
    3 expired,
    4 grant as WithinUnlessEmpty,
    5 channels as Each,
    6 subs as Named,
    7 meta,
    8 skip_history,
    9 tags as Texts,
    10 idempotency_key,
    11 version,
    12 version_epoch,
    13 delta,
    14 key,
    15 score,
    16 mode as WordIfAny,
} without {
    // Who asks for keys asks again in the other process.
    items: Vec::new(),
    epoch: String::new(),
});

/// A close, its reason as it is.
#[derive(Debug)]
pub(crate) struct Why;

impl Through<Disconnect> for Why {
    fn absent() -> Option<Disconnect> {
        None
    }
    fn put(value: &Disconnect, tag: u8, out: &mut Writer) {
        let Disconnect { code, reason } = value;
        out.record(tag, |out| {
            code.put(1, out);
            out.bytes(2, reason.as_bytes());
        });
    }
    fn take(_: Option<Disconnect>, field: &Field<'_>) -> Result<Disconnect, Corrupt> {
        let mut fields = field.fields("a close")?;
        let (mut code, mut reason) = (0, "");
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => code = u16::take(None, &field)?,
                2 => reason = field.text()?,
                _ => field.pass()?,
            }
        }
        Ok(Disconnect::custom(code, reason))
    }
}

/// An error that a backend has answered.
#[derive(Debug)]
struct Refusal {
    code: u32,
    message: Box<str>,
    temporary: bool,
}
throng_hub::record!("a backend's error", Refusal { 1 code, 2 message, 3 temporary });

impl Record for Answer {
    const WHAT: &'static str = "a backend's answer";

    fn put_fields(&self, out: &mut Writer) {
        match self {
            Self::Said(said) => Within::put(said, 1, out),
            Self::Nothing => out.number(2, 1),
            Self::Error { code, message, temporary } => {
                let (code, message, temporary) = (*code, message.clone(), *temporary);
                Within::put(&Refusal { code, message, temporary }, 3, out);
            }
            Self::Disconnect(why) => Why::put(why, 4, out),
            Self::Failed => out.number(5, 1),
        }
    }

    fn take_fields(mut fields: throng_hub::state::Fields<'_>) -> Result<Self, Corrupt> {
        let mut answer = None;
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => answer = Some(Self::Said(Within::take(None, &field)?)),
                2 => answer = Some(Self::Nothing),
                3 => {
                    let Refusal { code, message, temporary } = Within::take(None, &field)?;
                    answer = Some(Self::Error { code, message, temporary });
                }
                4 => answer = Some(Self::Disconnect(Why::take(None, &field)?)),
                5 => answer = Some(Self::Failed),
                _ => field.pass()?,
            }
        }
        answer.ok_or_else(|| fields.corrupt("it says nothing that is known here"))
    }
}

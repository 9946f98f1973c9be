//! The values within a command: strings, payloads and maps, borrowed where they can be.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::dialect::Payload;
use crate::dialect::payload::is_too_deep;

pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

pub(super) fn payload<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Payload<'de>, D::Error> {
    maybe_payload(deserializer).map(Option::unwrap_or_default)
}

pub(super) fn maybe_payload<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Payload<'de>>, D::Error> {
    let raw = Option::<&'de RawValue>::deserialize(deserializer)?;
    let Some(payload) = raw.map(|raw| raw.get().as_bytes()) else { return Ok(None) };
    if is_too_deep(payload) {
        return Err(D::Error::custom("payload nests too deep"));
    }
    Ok(Some(payload))
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    Text::deserialize(deserializer).map(|Text(text)| text)
}

/// A string, borrowed where it can be.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }
}

/// The entries of an object used as a map, sorted by key; of equal keys the last counts.
pub(super) fn entries<'de, D, T>(deserializer: D) -> Result<Vec<(Cow<'de, str>, T)>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Entries<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
        type Value = Vec<(Cow<'de, str>, T)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some((Text(key), value)) = map.next_entry::<Text<'de>, Option<T>>()? {
                if let Some(value) = value {
                    entries.push((key, value));
                }
            }
            entries.reverse();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            entries.dedup_by(|(later, _), (kept, _)| later == kept);
            Ok(entries)
        }
    }

    deserializer.deserialize_any(Entries(PhantomData))
}

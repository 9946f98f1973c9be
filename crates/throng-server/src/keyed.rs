//! Objects that are written as objects.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

/// A struct that is read from an object only. On its own a struct is read from a list of its
/// fields, too, which nobody means who writes one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Keyed<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Keyed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::deserialize(Within(from)).map(Self)
    }
}

/// Passes on what a struct asks for, without an ear for lists.
struct Within<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Within<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Mapped(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Mapped(visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Mapped<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Mapped<V> {
    type Value = V::Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Pair {
        left: u8,
        right: u8,
    }

    #[test]
    fn an_object_is_read_and_a_list_is_not() {
        let Keyed(Pair { left, right }) = serde_json::from_str(r#"{"left":1,"right":2}"#).unwrap();
        assert_eq!((left, right), (1, 2));
        assert!(serde_json::from_str::<Pair>("[1,2]").is_ok(), "then this is not needed");
        let error = serde_json::from_str::<Keyed<Pair>>("[1,2]").unwrap_err().to_string();
        assert!(error.contains("expected an object"), "{error}");
    }
}

//! What a request looks like, as a JSON Schema, found out from the code that reads it.
//!
//! A type's own `Deserialize` is run over a reader that has a value for whatever it is asked for,
//! and notes what that was. What the server reads and what is said of it cannot part ways so.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Error, Value, json};

/// The JSON Schema of what a `T` is read from.
///
/// # Errors
/// When `T` has a field of a kind that no request has had so far.
pub(super) fn of<T: Deserialize<'static>>() -> Result<Value, Error> {
    let mut noted = Value::Null;
    T::deserialize(Reader { noted: &mut noted })?;
    Ok(noted)
}

/// Reads one value, and notes of what kind it is.
struct Reader<'n> {
    noted: &'n mut Value,
}

macro_rules! integers {
    ($($read:ident $visit:ident $type:ident;)*) => {
        $(fn $read<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
            *self.noted = json!({"type": "integer", "minimum": $type::MIN, "maximum": $type::MAX});
            visitor.$visit(0)
        })*
    };
}

impl Deserializer<'static> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'static>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("a request has a field of a kind that shape.rs has no words for"))
    }

    fn deserialize_bool<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.noted = json!({"type": "boolean"});
        visitor.visit_bool(false)
    }

    integers! {
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_str<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.noted = json!({"type": "string"});
        visitor.visit_borrowed_str("")
    }

    fn deserialize_string<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = visitor.visit_some(Reader { noted: &mut *self.noted })?;
        // What may be anything may be null as it is.
        if let Some(kind) = self.noted.get("type").cloned() {
            self.noted["type"] = json!([kind, "null"]);
        }
        Ok(value)
    }

    /// A [`RawValue`](serde_json::value::RawValue), which is anything; only serde_json makes one.
    fn deserialize_newtype_struct<V: Visitor<'static>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.noted = json!({});
        serde_json::Deserializer::from_str("0").deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_seq<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.noted = json!({"type": "array", "items": null});
        visitor.visit_seq(One { noted: Some(&mut self.noted["items"]) })
    }

    fn deserialize_map<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.noted = json!({"type": "object", "additionalProperties": null});
        visitor.visit_map(One { noted: Some(&mut self.noted["additionalProperties"]) })
    }

    fn deserialize_struct<V: Visitor<'static>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.noted = json!({"type": "object", "properties": {}});
        let noted = &mut self.noted["properties"];
        visitor.visit_map(Fields { noted, left: fields.iter(), field: "" })
    }

    forward_to_deserialize_any! {
        <V: Visitor<'static>>
        i8 i16 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

/// A list or a map with one value in it.
struct One<'n> {
    noted: Option<&'n mut Value>,
}

impl SeqAccess<'static> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'static>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.noted.take().map(|noted| seed.deserialize(Reader { noted })).transpose()
    }
}

impl MapAccess<'static> for One<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'static>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        if self.noted.is_none() {
            return Ok(None);
        }
        // A key of JSON is a text whatever it is read as.
        seed.deserialize(Reader { noted: &mut Value::Null }).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'static>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let noted = self.noted.take().ok_or_else(|| Error::custom("a value without a key"))?;
        seed.deserialize(Reader { noted })
    }
}

/// An object that has every field there is.
struct Fields<'n> {
    noted: &'n mut Value,
    left: std::slice::Iter<'static, &'static str>,
    field: &'static str,
}

impl MapAccess<'static> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'static>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(field) = self.left.next() else { return Ok(None) };
        self.field = field;
        seed.deserialize(StrDeserializer::new(field)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'static>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Reader { noted: &mut self.noted[self.field] })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Known {
        #[serde(rename = "called")]
        name: String,
        any: Option<Box<RawValue>>,
        number: Option<u16>,
        list: Vec<BTreeMap<String, bool>>,
    }

    #[test]
    fn a_struct_is_an_object_with_its_fields_as_they_are_read() {
        assert_eq!(
            of::<Known>().unwrap(),
            json!({"type": "object", "properties": {
                "called": {"type": "string"},
                "any": {},
                "number": {"type": ["integer", "null"], "minimum": 0, "maximum": 65535},
                "list": {
                    "type": "array",
                    "items": {"type": "object", "additionalProperties": {"type": "boolean"}},
                },
            }})
        );
    }

    #[test]
    fn a_kind_without_words_is_an_error() {
        assert!(of::<Vec<f64>>().is_err());
    }
}

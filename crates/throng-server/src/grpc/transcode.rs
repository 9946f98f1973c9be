//! Between the two forms of a message: Protobuf on the wire of gRPC, JSON in the server.
//!
//! Payloads are `bytes` there. In JSON they are JSON where they are that, and otherwise base64 in
//! the field beside that has `b64` before its name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use serde_json::value::RawValue;
use throng_wire::dialect::fields::{Field as Read, Fields, put_varint};
use throng_wire::dialect::payload;

use super::schema::{Field, Kind, Schema, Shape, Type};
use crate::token::BASE64;

/// Values of one message: the API bounds its lists at 10,000, and a message has few fields. Without
/// a bound, many empty values would make much of a few bytes.
const VALUES_MAX: usize = 100_000;
/// Messages within messages: no schema of ours comes near it.
const DEPTH_MAX: usize = 16;

/// Why a message cannot be read; a sentence without its subject.
pub(crate) type Wrong = String;

impl Schema {
    /// A message in Protobuf as a JSON object.
    ///
    /// # Errors
    /// Where it is not what the schema says.
    pub(crate) fn to_json(&self, of: Type, message: &[u8]) -> Result<Vec<u8>, Wrong> {
        let mut out = Vec::with_capacity(message.len() + message.len() / 2 + 16);
        let mut json = ToJson { schema: self, values: 0, out: &mut out };
        json.message(of, message, 0)?;
        Ok(out)
    }

    /// A JSON object as a message in Protobuf. What the schema does not have is left out.
    ///
    /// # Errors
    /// Where it is not what the schema says.
    pub(crate) fn to_protobuf(&self, of: Type, json: &[u8]) -> Result<Vec<u8>, Wrong> {
        let mut out = Vec::with_capacity(json.len());
        let json: &RawValue =
            serde_json::from_slice(json).map_err(|e| format!("is no JSON: {e}"))?;
        put_message(self, of, json, &mut out)?;
        Ok(out)
    }

    /// Appends a field of bytes to a message in Protobuf.
    pub(crate) fn put_bytes(&self, of: Type, name: &str, bytes: &[u8], out: &mut Vec<u8>) {
        if let Some(field) = self.field(of, name) {
            put_bytes(field.number, bytes, out);
        }
    }
}

struct ToJson<'s, 'o> {
    schema: &'s Schema,
    values: usize,
    out: &'o mut Vec<u8>,
}

impl<'s> ToJson<'s, '_> {
    fn message(&mut self, of: Type, message: &[u8], depth: usize) -> Result<(), Wrong> {
        if depth > DEPTH_MAX {
            return Err("nests too deep".to_owned());
        }
        let known = self.schema.fields(of);
        // By their places in the schema, so that what is said comes in a fixed order.
        let mut found: BTreeMap<usize, Vec<Read<'_>>> = BTreeMap::new();
        let mut fields = Fields::of(message, 0);
        while let Some(read) = fields.next().map_err(|malformed| malformed.to_string())? {
            self.values += 1;
            if self.values > VALUES_MAX {
                return Err(format!("has more than {VALUES_MAX} values"));
            }
            if let Some(at) = known.iter().position(|field| field.number == read.number) {
                found.entry(at).or_default().push(read);
            }
        }
        self.out.push(b'{');
        for (at, values) in found {
            self.field(&known[at], known, &values, depth)?;
        }
        if self.out.last() == Some(&b',') {
            self.out.pop();
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Writes a field and a comma, or nothing.
    fn field(
        &mut self,
        field: &'s Field,
        siblings: &[Field],
        values: &[Read<'_>],
        depth: usize,
    ) -> Result<(), Wrong> {
        let Some(last) = values.last() else { return Ok(()) };
        if field.kind == Kind::Bytes {
            return self.payload(field.name, siblings, last.bytes().map_err(|e| e.to_string())?);
        }
        self.key(field.name);
        match (field.shape, field.kind) {
            // What is sent in parts is one (protobuf.dev, "Encoding": Last One Wins).
            (Shape::One, Kind::Message(of)) if values.len() > 1 => {
                let parts: Result<Vec<&[u8]>, _> = values.iter().map(Read::bytes).collect();
                let whole = parts.map_err(|e| e.to_string())?.concat();
                self.message(of, &whole, depth + 1)?;
            }
            (Shape::One, _) => self.value(field, last, depth)?,
            (Shape::Many, _) => {
                self.out.push(b'[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        self.out.push(b',');
                    }
                    self.value(field, value, depth)?;
                }
                self.out.push(b']');
            }
            (Shape::Map, _) => self.map(field, values, depth)?,
        }
        self.out.push(b',');
        Ok(())
    }

    fn map(&mut self, field: &Field, values: &[Read<'_>], depth: usize) -> Result<(), Wrong> {
        let mut entries: BTreeMap<Cow<'_, str>, Option<Read<'_>>> = BTreeMap::new();
        for entry in values {
            let (mut key, mut value) = (Cow::Borrowed(""), None);
            let mut fields = entry.message().map_err(|e| e.to_string())?;
            while let Some(read) = fields.next().map_err(|e| e.to_string())? {
                match read.number {
                    1 => key = read.text().map_err(|e| e.to_string())?,
                    2 => value = Some(read),
                    _ => {}
                }
            }
            entries.insert(key, value);
        }
        self.out.push(b'{');
        for (at, (key, value)) in entries.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.key(key);
            match (value, field.kind) {
                (Some(value), _) => self.value(field, value, depth)?,
                (None, Kind::Text) => self.out.extend_from_slice(b"\"\""),
                (None, Kind::Message(_)) => self.out.extend_from_slice(b"{}"),
                (None, _) => self.out.push(b'0'),
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn value(&mut self, field: &Field, value: &Read<'_>, depth: usize) -> Result<(), Wrong> {
        let wrong = |malformed: throng_wire::dialect::Malformed| malformed.to_string();
        match field.kind {
            Kind::Message(of) => self.message(of, value.bytes().map_err(wrong)?, depth + 1)?,
            Kind::Text => {
                let text = value.text().map_err(wrong)?;
                self.text(&text);
            }
            Kind::Bool => {
                let text: &[u8] = if value.flag().map_err(wrong)? { b"true" } else { b"false" };
                self.out.extend_from_slice(text);
            }
            Kind::Int => {
                let number = value.number().map_err(wrong)?.cast_signed();
                self.out.extend_from_slice(number.to_string().as_bytes());
            }
            Kind::Uint => {
                let number = value.number().map_err(wrong)?;
                self.out.extend_from_slice(number.to_string().as_bytes());
            }
            // No message that comes in has one, and there is no list of payloads.
            Kind::Double | Kind::Bytes => return Err(format!("has a {} of numbers", field.name)),
        }
        Ok(())
    }

    /// A field that is JSON where it can be.
    fn payload(&mut self, name: &str, siblings: &[Field], bytes: &[u8]) -> Result<(), Wrong> {
        let sealed = payload::sealed(bytes);
        match payload::binary(&sealed) {
            _ if bytes.is_empty() => return Ok(()),
            None => {
                self.key(name);
                self.out.extend_from_slice(bytes);
            }
            Some(bytes) => {
                let beside = format!("b64{name}");
                if !siblings.iter().any(|field| field.name == beside) {
                    return Err(format!("has a {name} that is no JSON"));
                }
                self.key(&beside);
                self.text(&BASE64.encode(bytes));
            }
        }
        self.out.push(b',');
        Ok(())
    }

    fn key(&mut self, name: &str) {
        self.text(name);
        self.out.push(b':');
    }

    fn text(&mut self, text: &str) {
        serde_json::to_writer(&mut *self.out, text).expect("a text is written to memory");
    }
}

fn put_message(schema: &Schema, of: Type, json: &RawValue, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let object: BTreeMap<Cow<'_, str>, &RawValue> = parse(json, "an object")?;
    for (name, value) in object {
        if value.get() == "null" {
            continue;
        }
        match schema.field(of, &name) {
            Some(field) => put_field(schema, field, value, out)?,
            None => {
                let bytes = name.strip_prefix("b64").and_then(|name| schema.field(of, name));
                if let Some(field) = bytes.filter(|field| field.kind == Kind::Bytes) {
                    put_bytes(field.number, &of_base64(&name, value)?, out);
                }
            }
        }
    }
    Ok(())
}

fn of_base64(name: &str, value: &RawValue) -> Result<Vec<u8>, Wrong> {
    let text: Cow<'_, str> = parse(value, "a text")?;
    BASE64.decode(text.as_bytes()).map_err(|_| format!("has a {name} that is not base64"))
}

fn parse<'v, T: serde::Deserialize<'v>>(value: &'v RawValue, what: &str) -> Result<T, Wrong> {
    serde_json::from_str(value.get()).map_err(|_| format!("has something else than {what}"))
}

fn put_field(
    schema: &Schema,
    field: &Field,
    value: &RawValue,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    match field.shape {
        Shape::One => put_value(schema, field, value, Zero::LeftOut, out),
        Shape::Many => {
            let list: Vec<&RawValue> = parse(value, "a list")?;
            list.into_iter().try_for_each(|each| put_value(schema, field, each, Zero::Written, out))
        }
        Shape::Map => {
            let entries: BTreeMap<Cow<'_, str>, &RawValue> = parse(value, "an object")?;
            for (key, value) in entries {
                let mut entry = Vec::new();
                put_bytes(1, key.as_bytes(), &mut entry);
                let of_entry = Field { name: field.name, number: 2, ..*field };
                put_value(schema, &of_entry, value, Zero::Written, &mut entry)?;
                put_bytes(field.number, &entry, out);
            }
            Ok(())
        }
    }
}

/// What becomes of a zero, a false and an empty text: alone they are not written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zero {
    Written,
    LeftOut,
}

fn put_value(
    schema: &Schema,
    field: &Field,
    value: &RawValue,
    zero: Zero,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let number = field.number;
    let mut put_number = |value: u64| {
        if value != 0 || zero == Zero::Written {
            put_tag(number, 0, out);
            put_varint(value, out);
        }
    };
    match field.kind {
        Kind::Bool => put_number(parse::<bool>(value, "true or false")?.into()),
        Kind::Int => put_number(whole::<i64>(field, value)?.cast_unsigned()),
        Kind::Uint => put_number(whole::<u64>(field, value)?),
        Kind::Double => {
            let double: f64 = parse(value, "a number")?;
            if double != 0.0 || zero == Zero::Written {
                put_tag(number, 1, out);
                out.extend_from_slice(&double.to_le_bytes());
            }
        }
        Kind::Text => {
            let text: Cow<'_, str> = parse(value, "a text")?;
            if !text.is_empty() || zero == Zero::Written {
                put_bytes(number, text.as_bytes(), out);
            }
        }
        Kind::Bytes => put_bytes(number, value.get().as_bytes(), out),
        Kind::Message(of) => {
            let mut inner = Vec::new();
            put_message(schema, of, value, &mut inner)?;
            put_bytes(number, &inner, out);
        }
    }
    Ok(())
}

fn whole<T: TryFrom<i128>>(field: &Field, value: &RawValue) -> Result<T, Wrong> {
    let number = value.get().parse::<i128>().ok().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("has a {} that is no number of its range", field.name))
}

fn put_tag(number: u32, kind: u32, out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | kind), out);
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_tag(number, 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::{api, proxy};

    /// There and back again, as texts.
    fn there_and_back(schema: &Schema, name: &str, json: &str) -> String {
        let of = schema.message(name).unwrap();
        let message = schema.to_protobuf(of, json.as_bytes()).unwrap();
        String::from_utf8(schema.to_json(of, &message).unwrap()).unwrap()
    }

    #[test]
    fn a_request_is_the_same_in_both_forms() {
        for (name, json) in [
            (
                "PublishRequest",
                r#"{"channel":"ж\n\"","data":{"a": [1, 2.50]},"skip_history":true,"tags":{"":"","k":"v"},"version":18446744073709551615}"#,
            ),
            ("BroadcastRequest", r#"{"channels":["a","","b"],"b64data":"AAE="}"#),
            ("SubscribeRequest", r#"{"expire_at":-1,"override":{"presence":{}}}"#),
            ("DisconnectRequest", r#"{"disconnect":{"code":4501,"reason":"x"},"whitelist":[]}"#),
            ("BatchRequest", r#"{"commands":[{"publish":{"channel":"a"}},{"info":{}}]}"#),
            ("InfoRequest", "{}"),
        ] {
            let expected = json.replace(",\"whitelist\":[]", "");
            assert_eq!(there_and_back(api(), name, json), expected, "{name}");
        }
    }

    #[test]
    fn a_batch_answers_with_results_of_every_kind() {
        let json = r#"{"replies":[{"error":{"code":102,"message":"unknown channel"}},{"publish":{}},{"presence":{"presence":{"c":{"user":"u","client":"c"}}}},{"history":{"publications":[{"data":1,"offset":7}],"epoch":"x","offset":7}}]}"#;
        assert_eq!(there_and_back(api(), "BatchResponse", json), json);
    }

    #[test]
    fn payloads_are_bytes_and_what_is_no_json_is_base64() {
        let of = api().message("PublishRequest").unwrap();
        let mut message = Vec::new();
        for (data, said) in [
            (&b"{\"a\":1}"[..], r#"{"data":{"a":1}}"#),
            (b"\x00\x01", r#"{"b64data":"AAE="}"#),
            (b"{", r#"{"b64data":"ew=="}"#),
            (b"", "{}"),
        ] {
            message.clear();
            api().put_bytes(of, "data", data, &mut message);
            assert_eq!(String::from_utf8(api().to_json(of, &message).unwrap()).unwrap(), said);
        }
        // In an answer base64 becomes the bytes, where there is no field for it.
        let of = api().message("Publication").unwrap();
        let message = api().to_protobuf(of, br#"{"b64data":"AAE="}"#).unwrap();
        assert_eq!(message, [0x12, 2, 0, 1]);
        let of = proxy().message("RPCRequest").unwrap();
        let message = proxy().to_protobuf(of, br#"{"b64data":"AAE="}"#).unwrap();
        assert_eq!(message, b"\x6a\x04AAE=");
        // What can only be JSON must be.
        let of = api().message("RefreshRequest").unwrap();
        assert!(api().to_json(of, b"\x2a\x01{").unwrap_err().contains("info"));
    }

    #[test]
    fn the_last_of_two_counts_and_parts_of_a_message_are_one() {
        let of = api().message("HistoryRequest").unwrap();
        let message = b"\x0a\x01a\x0a\x01b\x1a\x02\x08\x07\x1a\x03\x12\x01e\xf8\x01\x01";
        let json = api().to_json(of, message).unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"channel":"b","since":{"offset":7,"epoch":"e"}}"#
        );
    }

    #[test]
    fn what_is_broken_or_too_much_is_an_error() {
        let of = api().message("BroadcastRequest").unwrap();
        for bad in
            [&b"\x0a\x05a"[..], b"\x0a\x01\xff", b"\x08\x01", b"\x0b", b"\x2a\x01\x0a", b"\x80"]
        {
            assert!(api().to_json(of, bad).is_err(), "{bad:?}");
        }
        let many = b"\x0a\x00".repeat(VALUES_MAX + 1);
        assert!(api().to_json(of, &many).unwrap_err().contains("values"));
        for bad in ["[]", "{\"channels\":1}", "{\"version\":0.5}", "{\"skip_history\":1}", ""] {
            assert!(api().to_protobuf(of, bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            for name in ["BatchRequest", "PublishRequest", "SubscribeRequest"] {
                let of = api().message(name).unwrap();
                if let Ok(json) = api().to_json(of, &bytes) {
                    serde_json::from_slice::<serde_json::Value>(&json).unwrap();
                    api().to_protobuf(of, &json).unwrap();
                }
            }
        }
    }
}

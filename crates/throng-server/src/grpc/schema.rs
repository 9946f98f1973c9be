//! What a .proto text says: messages with their fields, and the calls of a service. The texts are
//! our own, so only what they use of the language is read; a test reads them all.

use std::collections::HashMap;

/// The messages and calls of one text.
#[derive(Debug)]
pub(crate) struct Schema {
    messages: Vec<Message>,
    calls: Vec<Rpc>,
    /// With its package, as paths of requests begin.
    service: String,
}

#[derive(Debug)]
struct Message {
    #[cfg_attr(not(test), expect(dead_code, reason = "tests name them, and so does Debug"))]
    name: &'static str,
    fields: Vec<Field>,
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) number: u32,
    pub(crate) shape: Shape,
    pub(crate) kind: Kind,
}

/// How many values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    Many,
    /// By texts; the field's kind is that of the values.
    Map,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Bytes,
    Bool,
    /// `int32` and `int64`.
    Int,
    /// `uint32` and `uint64`.
    Uint,
    Double,
    Message(Type),
}

/// A message of the schema it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type(usize);

/// A call of the service.
#[derive(Debug)]
pub(crate) struct Rpc {
    pub(crate) name: &'static str,
    /// As HTTP paths and log lines name it.
    pub(crate) snake: String,
    pub(crate) request: Type,
    pub(crate) response: Type,
}

impl Schema {
    /// Reads a text of ours.
    pub(crate) fn read(text: &'static str) -> Self {
        let words = words(text);
        // A field may be called so, too.
        let begins = |three: &&[&str]| three[0] == "message" && three[2] == "{";
        let names = words.windows(3).filter(begins).map(|three| three[1]);
        let types: HashMap<&str, Type> =
            names.enumerate().map(|(i, name)| (name, Type(i))).collect();
        let mut reader = Words { words: words.into_iter(), types };
        let (mut package, mut messages, mut calls, mut service) = ("", Vec::new(), Vec::new(), "");
        while let Some(word) = reader.words.next() {
            match word {
                "package" => package = reader.word(),
                "service" => {
                    service = reader.word();
                    calls = reader.calls();
                }
                "message" => messages.push(reader.message()),
                _ => {}
            }
        }
        Self { messages, calls, service: format!("{package}.{service}") }
    }

    /// The service's name with its package.
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// The call that the path of a request names.
    pub(crate) fn called(&self, path: &str) -> Option<&Rpc> {
        let name =
            path.strip_prefix('/')?.strip_prefix(self.service.as_str())?.strip_prefix('/')?;
        self.calls.iter().find(|call| call.name == name)
    }

    /// The call of this name, as HTTP has it.
    pub(crate) fn call(&self, snake: &str) -> Option<&Rpc> {
        self.calls.iter().find(|call| call.snake == snake)
    }

    /// The message of this name.
    #[cfg(test)]
    pub(crate) fn message(&self, name: &str) -> Option<Type> {
        self.messages.iter().position(|message| message.name == name).map(Type)
    }

    /// A message's fields.
    pub(crate) fn fields(&self, of: Type) -> &[Field] {
        self.messages.get(of.0).map_or(&[], |message| &message.fields)
    }

    /// The field of this name.
    pub(crate) fn field(&self, of: Type, name: &str) -> Option<&Field> {
        self.fields(of).iter().find(|field| field.name == name)
    }
}

/// The words of a text, and its marks, each for itself.
fn words(text: &'static str) -> Vec<&'static str> {
    let mut words = Vec::new();
    for line in text.lines() {
        let mut rest = line.split("//").next().unwrap_or_default();
        while let Some(first) = rest.chars().next() {
            let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '/');
            let len = match rest.find(|c| !is_part(c)) {
                Some(0) => first.len_utf8(),
                Some(len) => len,
                None => rest.len(),
            };
            if !first.is_whitespace() {
                words.push(&rest[..len]);
            }
            rest = &rest[len..];
        }
    }
    words
}

struct Words {
    words: std::vec::IntoIter<&'static str>,
    types: HashMap<&'static str, Type>,
}

impl Words {
    fn word(&mut self) -> &'static str {
        self.words.next().unwrap_or_default()
    }

    /// The next word that is none of these marks.
    fn past(&mut self, marks: &[&str]) -> &'static str {
        loop {
            let word = self.word();
            if !marks.contains(&word) {
                return word;
            }
        }
    }

    fn type_of(&self, name: &str) -> Type {
        self.types.get(name).copied().unwrap_or(Type(usize::MAX))
    }

    fn kind(&self, name: &str) -> Kind {
        match name {
            "string" => Kind::Text,
            "bytes" => Kind::Bytes,
            "bool" => Kind::Bool,
            "int32" | "int64" => Kind::Int,
            "uint32" | "uint64" => Kind::Uint,
            "double" => Kind::Double,
            name => Kind::Message(self.type_of(name)),
        }
    }

    /// `NAME { rpc NAME(stream REQUEST) returns (stream RESPONSE); … }`, from the brace on.
    fn calls(&mut self) -> Vec<Rpc> {
        let mut calls = Vec::new();
        while self.past(&["{", ";"]) == "rpc" {
            let name = self.word();
            let request = self.past(&["(", "stream"]);
            let response = self.past(&[")", "returns", "(", "stream"]);
            let (request, response) = (self.type_of(request), self.type_of(response));
            self.word(); // the closing parenthesis
            calls.push(Rpc { name, snake: snake(name), request, response });
        }
        calls
    }

    /// `NAME { [repeated] TYPE NAME = NUMBER; map<string, TYPE> NAME = NUMBER; … }`.
    fn message(&mut self) -> Message {
        let name = self.word();
        let mut fields = Vec::new();
        loop {
            let (shape, kind) = match self.past(&["{", ";"]) {
                "}" | "" => return Message { name, fields },
                "repeated" => (Shape::Many, self.word()),
                "map" => {
                    let kind = self.past(&["<", "string", ","]);
                    // Where the values are texts, too.
                    let kind = if kind == ">" { "string" } else { kind };
                    (Shape::Map, kind)
                }
                kind => (Shape::One, kind),
            };
            let (kind, name) = (self.kind(kind), self.past(&[">"]));
            let number = self.past(&["="]).parse().unwrap_or(0);
            fields.push(Field { name, number, shape, kind });
        }
    }
}

/// `PresenceStats` as `presence_stats`, and `RPC` as `rpc`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut after_small = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_small {
            out.push('_');
        }
        after_small = c.is_ascii_lowercase();
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc;

    #[test]
    fn the_texts_are_read_whole() {
        for (schema, service, calls, messages) in [
            (grpc::api(), "centrifugal.centrifugo.api.CentrifugoApi", 21, 76),
            (grpc::proxy(), "centrifugal.centrifugo.proxy.CentrifugoProxy", 11, 37),
            (grpc::unistream(), "centrifugal.centrifugo.unistream.CentrifugoUniStream", 1, 14),
        ] {
            assert_eq!(schema.service(), service);
            assert_eq!((schema.calls.len(), schema.messages.len()), (calls, messages));
            let known = |kind| !matches!(kind, Kind::Message(Type(at)) if at >= messages);
            for message in &schema.messages {
                let mut numbers: Vec<u32> = message.fields.iter().map(|f| f.number).collect();
                numbers.sort_unstable();
                numbers.dedup();
                assert_eq!(numbers.len(), message.fields.len(), "{}", message.name);
                assert!(!numbers.contains(&0), "{}", message.name);
                assert!(message.fields.iter().all(|f| known(f.kind)), "{}", message.name);
            }
            for call in &schema.calls {
                assert!(known(Kind::Message(call.request)), "{}", call.name);
                assert!(known(Kind::Message(call.response)), "{}", call.name);
            }
        }
    }

    #[test]
    fn fields_have_their_shapes_and_kinds() {
        let api = grpc::api();
        let field = |of, name| {
            let field = api.field(api.message(of).unwrap(), name).unwrap();
            (field.number, field.shape, field.kind)
        };
        assert_eq!(field("PublishRequest", "data"), (2, Shape::One, Kind::Bytes));
        assert_eq!(field("PublishRequest", "tags"), (5, Shape::Map, Kind::Text));
        assert_eq!(field("BroadcastRequest", "channels"), (1, Shape::Many, Kind::Text));
        assert_eq!(field("Metrics", "items"), (2, Shape::Map, Kind::Double));
        let info = Kind::Message(api.message("ClientInfo").unwrap());
        assert_eq!(field("PresenceResult", "presence"), (1, Shape::Map, info));
    }

    /// A field that the HTTP API reads and gRPC has no number for would be lost.
    #[test]
    fn every_method_and_field_of_the_http_api_is_there() {
        let (api, document) = (grpc::api(), crate::front::openapi().unwrap());
        let mut fields = 0;
        for (path, operation) in document["paths"].as_object().unwrap() {
            let call = api.call(path.trim_start_matches('/')).unwrap_or_else(|| panic!("{path}"));
            let body = &operation["post"]["requestBody"]["content"]["application/json"]["schema"];
            for name in body["properties"].as_object().into_iter().flat_map(|all| all.keys()) {
                fields += 1;
                assert!(api.field(call.request, name).is_some(), "{path} {name}");
            }
        }
        assert!(fields > 40, "{fields}");
    }

    #[test]
    fn calls_are_found_by_path_and_by_name() {
        let api = grpc::api();
        let called = api.called("/centrifugal.centrifugo.api.CentrifugoApi/PresenceStats").unwrap();
        assert_eq!(called.snake, "presence_stats");
        assert_eq!(api.call("rpc").unwrap().name, "RPC");
        assert!(api.called("/centrifugal.centrifugo.api.CentrifugoApi/presence_stats").is_none());
        assert!(api.called("/other.Service/Publish").is_none());
    }
}

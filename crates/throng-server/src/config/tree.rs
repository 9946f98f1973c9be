//! A configuration file as written: values with the lines they stand on, whatever the syntax.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Counted from 1; 0 where it is not known.
    pub line: usize,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key may be there twice.
    Table(Vec<(String, Node)>),
}

/// The three ways to write a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Toml,
    Yaml,
    Json,
}

/// What is wrong with a file's syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub line: usize,
    pub what: String,
}

impl Node {
    /// A value that stands in no file.
    pub(super) fn text(text: &str) -> Self {
        Self { line: 0, value: Value::Text(text.to_owned()) }
    }
}

/// As a message shows it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::List(values) => {
                f.write_str("[")?;
                for (place, node) in values.iter().take(3).enumerate() {
                    write!(f, "{}{}", if place > 0 { ", " } else { "" }, node.value)?;
                }
                f.write_str(if values.len() > 3 { ", …]" } else { "]" })
            }
            Self::Table(_) => f.write_str("{…}"),
        }
    }
}

impl Syntax {
    pub(super) fn parse(self, text: &str) -> Result<Node, Vec<SyntaxError>> {
        match self {
            Self::Toml => toml(text),
            Self::Yaml => yaml(text).map_err(|error| vec![error]),
            Self::Json => json(text).map_err(|error| vec![error]),
        }
    }
}

fn toml(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let line_at = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let said = |error: toml::de::Error| SyntaxError {
            line: error.span().map_or(0, |span| line_at(span.start)),
            what: error.message().to_owned(),
        };
        return Err(errors.into_iter().map(said).collect());
    }
    let lines = LineStarts::of(text);
    Ok(Node { line: 1, value: toml_table(table.into_inner(), &lines) })
}

fn toml_table(table: DeTable<'_>, lines: &LineStarts) -> Value {
    let mut rows = Vec::with_capacity(table.len());
    for (key, value) in table {
        let at = key.span().start;
        rows.push((at, key.into_inner().into_owned(), toml_value(value, lines)));
    }
    // The map is sorted by name; messages should come in the order of the file.
    rows.sort_by_key(|(at, ..)| *at);
    Value::Table(rows.into_iter().map(|(_, key, node)| (key, node)).collect())
}

fn toml_value(value: toml::Spanned<DeValue<'_>>, lines: &LineStarts) -> Node {
    let line = lines.line(value.span().start);
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| Value::Text(integer.to_string()), Value::Int),
        DeValue::Float(float) => float
            .as_str()
            .parse()
            .map_or_else(|_| Value::Text(float.as_str().to_owned()), Value::Float),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(array) => {
            Value::List(array.into_iter().map(|node| toml_value(node, lines)).collect())
        }
        DeValue::Table(table) => toml_table(table, lines),
    };
    Node { line, value }
}

/// Where each line begins.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at) + 1
    }
}

fn yaml(text: &str) -> Result<Node, SyntaxError> {
    // `y`, `no` and `on` are names like any other; only true and false are not.
    let options = serde_saphyr::options! { strict_booleans: true };
    match serde_saphyr::from_str_with_options::<Option<Spanned<Value>>>(text, options) {
        Ok(Some(root)) => Ok(Node { line: 1, value: root.value }),
        Ok(None) => Ok(Node { line: 1, value: Value::Table(Vec::new()) }),
        Err(error) => {
            let line = error.location().and_then(|at| usize::try_from(at.line()).ok());
            let full = error.to_string();
            // The library says the place again, in front.
            let first = full.lines().next().unwrap_or_default();
            let what = first.strip_prefix("error: ").unwrap_or(first);
            let what = match what.split_once(": ") {
                Some((place, rest)) if place.starts_with("line ") => rest,
                _ => what,
            };
            Err(SyntaxError { line: line.unwrap_or(0), what: what.to_owned() })
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
                Value::deserialize(inner)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Int))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut nodes = Vec::new();
                while let Some(spanned) = list.next_element::<Spanned<Value>>()? {
                    nodes.push(node(spanned));
                }
                Ok(Value::List(nodes))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut rows = Vec::new();
                while let Some((key, spanned)) = map.next_entry::<String, Spanned<Value>>()? {
                    rows.push((key, node(spanned)));
                }
                Ok(Value::Table(rows))
            }
        }
        fn node(spanned: Spanned<Value>) -> Node {
            let line = usize::try_from(spanned.referenced.line()).unwrap_or(0);
            Node { line, value: spanned.value }
        }
        deserializer.deserialize_any(Any)
    }
}

fn json(text: &str) -> Result<Node, SyntaxError> {
    // The library says whether it is JSON and where not, and how deep it may be; what follows may
    // trust the text.
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        let full = error.to_string();
        let what = full.split(" at line ").next().unwrap_or_default().to_owned();
        return Err(SyntaxError { line: error.line(), what });
    }
    let mut scan = Scan { text, at: 0, line: 1 };
    Ok(scan.node())
}

/// Walks over a text that is known to be JSON, counting lines.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Scan<'_> {
    fn node(&mut self) -> Node {
        let first = self.peek();
        let line = self.line;
        let value = match first {
            b'{' => Value::Table(self.items(b'}', |scan| {
                let key = scan.string();
                scan.peek(); // the colon
                scan.at += 1;
                (key, scan.node())
            })),
            b'[' => Value::List(self.items(b']', Self::node)),
            b'"' => Value::Text(self.string()),
            _ => self.word(),
        };
        Node { line, value }
    }

    fn items<T>(&mut self, end: u8, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek() != end && self.at < self.text.len() {
            items.push(item(self));
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        items
    }

    /// The next byte that is not white space; 0 at the end.
    fn peek(&mut self) -> u8 {
        while let Some(&byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                other => return other,
            }
            self.at += 1;
        }
        0
    }

    fn string(&mut self) -> String {
        self.peek();
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at += 1;
        while bytes.get(self.at).is_some_and(|byte| *byte != b'"') {
            self.at += if bytes[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        serde_json::from_str(self.text.get(start..self.at).unwrap_or("\"\"")).unwrap_or_default()
    }

    fn word(&mut self) -> Value {
        let rest = &self.text[self.at..];
        let end = rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
        self.at += end;
        match &rest[..end] {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => match (number.parse(), number.parse()) {
                (Ok(int), _) => Value::Int(int),
                (_, Ok(float)) => Value::Float(float),
                _ => Value::Text(number.to_owned()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of a file as `path = value @ line`.
    fn flat(syntax: Syntax, text: &str) -> Vec<String> {
        fn walk(path: &str, node: &Node, out: &mut Vec<String>) {
            match &node.value {
                Value::Table(rows) => {
                    rows.iter().for_each(|(key, node)| walk(&format!("{path}.{key}"), node, out));
                }
                Value::List(list) if list.iter().any(|n| matches!(n.value, Value::Table(_))) => {
                    list.iter().for_each(|node| walk(&format!("{path}[]"), node, out));
                }
                value => out.push(format!("{path} = {value} @ {}", node.line)),
            }
        }
        let mut out = Vec::new();
        walk("", &syntax.parse(text).unwrap(), &mut out);
        out
    }

    #[test]
    fn the_three_syntaxes_say_the_same_with_lines() {
        let expected = [".a.b = 1 @ 3", ".a.c = \"x\" @ 4", ".n[].name = \"y\" @ 7"];
        let toml = "\n[a]\nb = 1\nc = \"x\"\n\n[[n]]\nname = \"y\"\n";
        let yaml = "\na:\n  b: 1\n  c: x\n\nn:\n- name: y\n";
        let json = "{\n\"a\": {\n\"b\": 1,\n\"c\": \"x\"},\n\n\"n\": [\n{\"name\": \"y\"}]}";
        assert_eq!(flat(Syntax::Toml, toml), expected);
        assert_eq!(flat(Syntax::Yaml, yaml), expected);
        assert_eq!(flat(Syntax::Json, json), expected);
    }

    #[test]
    fn json_is_walked_whatever_is_in_it() {
        let json = "{\"a\\\"]\": [[], {}, -1.5e3, null, true, \"\\u00e4,\"], \"b\":\r\n99999999999999999999}";
        let root = Syntax::Json.parse(json).unwrap();
        let Value::Table(rows) = root.value else { panic!("a table") };
        assert_eq!(rows[0].0, "a\"]");
        let Value::List(list) = &rows[0].1.value else { panic!("a list") };
        let shown: Vec<String> = list.iter().map(|node| node.value.to_string()).collect();
        assert_eq!(shown, ["[]", "{…}", "-1500", "null", "true", "\"ä,\""]);
        assert_eq!(rows[1].1.line, 2);
        assert_eq!(rows[1].1.value.to_string(), "100000000000000000000");
    }

    #[test]
    fn bad_syntax_has_a_line() {
        let error = |syntax: Syntax, text: &str| syntax.parse(text).unwrap_err()[0].line;
        assert_eq!(error(Syntax::Toml, "a = 1\nb = \n"), 2);
        assert_eq!(error(Syntax::Json, "{\n\"a\": 1,\n}"), 3);
        assert_eq!(error(Syntax::Yaml, "a: 1\nb: [1\nc: 2\n"), 3);
    }

    #[test]
    fn toml_reports_every_bad_line() {
        assert_eq!(Syntax::Toml.parse("a = \nb = 1\nc = x y\n").unwrap_err().len(), 2);
    }
}

//! A tags filter as a client wrote it, made into one that the hub asks.

use std::borrow::Cow;
use std::sync::Arc;

use throng_hub::filter::{Filter, NODES_MAX, Node, Test, Unfit};
use throng_wire::dialect::{self, Encoding, FilterNode};

/// Bytes of a filter as it is written: what it may hold, and room for names and quotes around it.
const WRITTEN_MAX: usize = 16 * 1024;

/// Makes a filter of what came as `tf`.
///
/// # Errors
/// When it is none, with a sentence for the log.
pub(super) fn compile(encoding: Encoding, raw: &[u8]) -> Result<Arc<Filter>, String> {
    if raw.len() > WRITTEN_MAX {
        return Err(format!("it has {} bytes, and may have {WRITTEN_MAX}", raw.len()));
    }
    let written = dialect::filter(encoding, raw).map_err(|malformed| malformed.to_string())?;
    let mut nodes = Vec::new();
    put(&written, &mut nodes)?;
    Filter::new(nodes).map(Arc::new).map_err(|Unfit(why)| why)
}

fn put(written: &FilterNode<'_>, nodes: &mut Vec<Node>) -> Result<(), String> {
    let FilterNode { op, key, cmp, val: _, vals: _, nodes: below } = written;
    // Told by the filter itself; more need not be looked at.
    if nodes.len() > NODES_MAX {
        return Ok(());
    }
    let count = || u16::try_from(below.len()).unwrap_or(u16::MAX);
    match &**op {
        "" => {
            let test = test(written)?;
            if key.is_empty() && !matches!(test, Test::Exists | Test::Absent) {
                return Err(format!("\"{cmp}\" needs a key"));
            }
            nodes.push(Node::Test { key: (&**key).into(), test });
            return Ok(());
        }
        "and" => nodes.push(Node::All(count())),
        "or" => nodes.push(Node::Any(count())),
        "not" if below.len() == 1 => nodes.push(Node::Not),
        "not" => return Err(format!("\"not\" has {} nodes, and must have one", below.len())),
        _ => return Err("its op is none of \"and\", \"or\" and \"not\"".to_owned()),
    }
    below.iter().try_for_each(|node| put(node, nodes))
}

fn test(written: &FilterNode<'_>) -> Result<Test, String> {
    let FilterNode { cmp, val, vals, .. } = written;
    let one: fn(Box<str>) -> Test = match &**cmp {
        "eq" => Test::Is,
        "neq" => Test::IsNot,
        "sw" => Test::Begins,
        "ew" => Test::Ends,
        "ct" => Test::Contains,
        "lt" => Test::Less,
        "lte" => Test::AtMost,
        "gt" => Test::More,
        "gte" => Test::AtLeast,
        "ex" | "nex" if val.is_empty() && vals.is_empty() => {
            return Ok(if cmp == "ex" { Test::Exists } else { Test::Absent });
        }
        "ex" | "nex" => return Err(format!("\"{cmp}\" takes neither val nor vals")),
        "in" | "nin" if !vals.is_empty() && val.is_empty() => {
            let boxed = |text: &Cow<'_, str>| Box::<str>::from(&**text);
            let list = vals.iter().map(boxed).collect();
            return Ok(if cmp == "in" { Test::In(list) } else { Test::NotIn(list) });
        }
        "in" | "nin" => return Err(format!("\"{cmp}\" needs vals, and takes no val")),
        "" => return Err("a test has no cmp".to_owned()),
        _ => return Err("a cmp is not known".to_owned()),
    };
    if val.is_empty() || !vals.is_empty() {
        return Err(format!("\"{cmp}\" needs a val, and takes no vals"));
    }
    Ok(one((&**val).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Arc<Filter>, String> {
        compile(Encoding::Json, text.as_bytes())
    }

    #[test]
    fn a_tree_is_read_in_both_encodings() {
        let filter = json(
            r#"{"op":"and","nodes":[{"key":"a","cmp":"in","vals":["1","2"]},
               {"op":"not","nodes":[{"key":"b","cmp":"ex","vals":null}]}]}"#,
        )
        .unwrap();
        let tags = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert!(filter.passes(&tags(&[("a", "2")])));
        assert!(!filter.passes(&tags(&[("a", "2"), ("b", "")])));
        // The same by hand: op 1, key 2, cmp 3, vals 5, nodes 6.
        let written = b"\x0a\x03and\x32\x0d\x12\x01a\x1a\x02in\x2a\x011\x2a\x012\
                        \x32\x0e\x0a\x03not\x32\x07\x12\x01b\x1a\x02ex";
        assert_eq!(compile(Encoding::Protobuf, written).unwrap(), filter);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let why = |text: &str| json(text).unwrap_err();
        assert_eq!(why("{}"), "a test has no cmp");
        assert!(why("[]").contains("an object"), "{}", why("[]"));
        assert_eq!(why(r#"{"cmp":"eq","val":"x"}"#), "\"eq\" needs a key");
        assert_eq!(why(r#"{"key":"k","cmp":"eq"}"#), "\"eq\" needs a val, and takes no vals");
        assert_eq!(
            why(r#"{"key":"k","cmp":"in","val":"x"}"#),
            "\"in\" needs vals, and takes no val"
        );
        assert_eq!(why(r#"{"key":"k","cmp":"ex","val":"x"}"#), "\"ex\" takes neither val nor vals");
        assert_eq!(why(r#"{"key":"k","cmp":"like","val":"x"}"#), "a cmp is not known");
        assert!(why(r#"{"op":"xor"}"#).starts_with("its op is none of"));
        assert_eq!(why(r#"{"op":"not"}"#), "\"not\" has 0 nodes, and must have one");
        assert_eq!(why(r#"{"op":"or"}"#), "\"and\" and \"or\" need nodes");
        assert_eq!(why(r#"{"key":"k","cmp":"lt","val":"x"}"#), "\"x\" is not a decimal number");
        let leaves = vec![r#"{"key":"k","cmp":"ex"}"#; 500].join(",");
        let wide = why(&format!(r#"{{"op":"or","nodes":[{leaves}]}}"#));
        assert!(wide.ends_with("and may have 64"), "{wide}");
        let long = why(&format!(r#"{{"key":"k","cmp":"eq","val":"{}"}}"#, "x".repeat(20_000)));
        assert!(long.ends_with("and may have 16384"), "{long}");
        let deep = |depth: usize| {
            let (open, close) = (r#"{"op":"not","nodes":["#.repeat(depth), "]}".repeat(depth));
            format!(r#"{open}{{"key":"k","cmp":"ex"}}{close}"#)
        };
        assert_eq!(why(&deep(16)), "it nests deeper than 16");
        json(&deep(15)).unwrap();
        assert!(why(&deep(120)).contains("recursion"), "{}", why(&deep(120)));
        let nested = (0..100).fold(Vec::new(), |inner: Vec<u8>, _| {
            let byte = |bits: usize| u8::try_from(bits).unwrap();
            let mut out = vec![0x32, byte(0x80 | inner.len() & 0x7f), byte(inner.len() >> 7)];
            out.extend(inner);
            out
        });
        assert!(compile(Encoding::Protobuf, &nested).unwrap_err().contains("too deep"));
    }
}

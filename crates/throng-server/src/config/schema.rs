//! The table of options as a JSON Schema, for editors and other tools.

use serde_json::{Map, Value, json};

use super::options::{Kind, Spec, Status, options};
use super::verdict::{Verdict, verdict};
use super::written::{NAMESPACES, PROXIES, RPC_NAMESPACES};

/// A JSON Schema (draft 2020-12) of a configuration file in JSON or YAML. What it does not know,
/// `throng config check` does not know either.
pub fn schema() -> Value {
    let mut root = object();
    for (path, spec) in &options().all {
        let (path, schema) = match path.as_str() {
            NAMESPACES => (NAMESPACES, named_list(&options().channel)),
            PROXIES => (PROXIES, named_list(&options().proxy)),
            RPC_NAMESPACES => (RPC_NAMESPACES, named_list(&options().rpc)),
            path => (path, of(spec)),
        };
        put(&mut root, path, schema);
    }
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "throng's configuration",
    });
    let (Value::Object(mut head), Value::Object(root)) = (head, root) else { return Value::Null };
    head.extend(root);
    Value::Object(head)
}

fn object() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

/// A list of tables that have names and these options.
fn named_list(of_each: &std::collections::BTreeMap<String, Spec>) -> Value {
    let mut item = object();
    put(
        &mut item,
        "name",
        json!({ "type": "string", "description": "By which it is referred to" }),
    );
    for (path, spec) in of_each {
        put(&mut item, path, of(spec));
    }
    item["required"] = json!(["name"]);
    // As an environment variable would hold it, a file may hold a list as a text of JSON too.
    json!({ "anyOf": [{ "type": "array", "items": item }, { "type": "string" }] })
}

/// Puts an option's schema where its path says.
fn put(root: &mut Value, path: &str, schema: Value) {
    let mut at = root;
    let (groups, name) = path.rsplit_once('.').unwrap_or(("", path));
    for group in groups.split('.').filter(|group| !group.is_empty()) {
        let Some(properties) = at["properties"].as_object_mut() else { return };
        at = properties.entry(group).or_insert_with(object);
    }
    if let Some(properties) = at["properties"].as_object_mut() {
        properties.insert(name.to_owned(), schema);
    }
}

fn of(spec: &Spec) -> Value {
    let mut schema = Map::new();
    match spec.kind {
        Kind::Text => {
            // Keys and passwords may be all digits.
            schema.insert("type".into(), json!(["string", "integer", "null"]));
        }
        Kind::Int => {
            schema.insert("type".into(), json!(["integer", "string", "null"]));
        }
        Kind::Bool => {
            schema.insert("type".into(), json!(["boolean", "string", "null"]));
        }
        Kind::Duration => {
            schema.insert("type".into(), json!(["string", "integer", "null"]));
            schema.insert("examples".into(), json!(["25s", "1h30m", "100ms"]));
        }
        Kind::Bytes => {
            schema.insert("type".into(), json!(["string", "integer", "null"]));
            schema.insert("examples".into(), json!(["256MB", "1GiB"]));
        }
        Kind::Texts => {
            schema.insert("type".into(), json!(["array", "string", "null"]));
            schema.insert("items".into(), json!({ "type": "string" }));
        }
        Kind::Map => {
            schema.insert("type".into(), json!(["object", "string", "null"]));
        }
        Kind::List | Kind::Namespaces => {
            schema.insert("type".into(), json!(["array", "string", "null"]));
        }
    }
    if let Some(default) = default(spec) {
        schema.insert("default".into(), default);
    }
    let mut doc = spec.doc.to_owned();
    if let Status::Judged(name) = spec.status
        && let Some(Verdict::Stops(what) | Verdict::Warns(what)) = verdict(name)
    {
        doc = what.to_owned();
        schema.insert("deprecated".into(), json!(true));
    }
    if !doc.is_empty() {
        schema.insert("description".into(), json!(doc));
    }
    Value::Object(schema)
}

fn default(spec: &Spec) -> Option<Value> {
    match spec.kind {
        Kind::Bool => Some(json!(spec.default == "true")),
        Kind::Int => Some(json!(spec.default.parse::<i64>().unwrap_or(0))),
        Kind::Text | Kind::Duration | Kind::Bytes if !spec.default.is_empty() => {
            Some(json!(spec.default))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_its_place() {
        let schema = schema();
        let at =
            |path: &str| path.split('.').fold(&schema, |at, name| &at["properties"][name]).clone();
        for (path, spec) in &options().all {
            let found = at(path);
            assert!(found["type"].is_array() || found["anyOf"].is_array(), "{path}: {found}");
            if spec.status == Status::Supported
                && !spec.doc.is_empty()
                && spec.kind != Kind::Namespaces
            {
                assert!(found["description"].is_string() || found["anyOf"].is_array(), "{path}");
            }
        }
        assert_eq!(at("client.ping_interval")["default"], "25s");
        assert_eq!(at("http_server.tls.enabled")["deprecated"], true);
        let namespace = &at("channel.namespaces")["anyOf"][0]["items"];
        assert_eq!(namespace["required"][0], "name");
        assert_eq!(namespace["properties"]["presence"]["default"], false);
    }
}

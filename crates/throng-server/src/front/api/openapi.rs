//! The server API as an OpenAPI document. What a request has comes from the structs that read it
//! (`shape`), what it means and what comes back from the table below.

use serde::Deserialize;
use serde_json::{Error, Value, json};

use super::call::{
    Batch, Channel, Channels, Disconnect, History, MapPublish, MapReadState, MapReadStream,
    MapRemove, Publish, Refresh, SharedPollPublish, Subscribe, Unsubscribe,
};
use super::{STATUSES, methods, shape};

/// One method of the API.
struct Operation {
    method: &'static str,
    summary: &'static str,
    /// What the code reads.
    request: fn() -> Result<Value, Error>,
    /// Fields of the struct that are another method's.
    leaves_out: &'static [&'static str],
    /// What is to be said of the request beside its shape and [`words`]: laid over it.
    said: fn() -> Value,
    result: fn() -> Value,
}

/// For a method that reads nothing: an object of anything.
#[derive(Deserialize)]
struct Nothing {}

const OPERATIONS: [Operation; methods::METHODS.len()] = [
    Operation {
        method: "publish",
        summary: "Publish to a channel",
        request: shape::of::<Publish>,
        leaves_out: &["channels"],
        said: || laid(with_data(json!({"required": ["channel"]})), in_a_channel()),
        result: position,
    },
    Operation {
        method: "broadcast",
        summary: "Publish the same to several channels",
        request: shape::of::<Publish>,
        leaves_out: &["channel"],
        said: || {
            with_data(json!({
                "required": ["channels"],
                "properties": {"channels": {
                    "type": "array", "minItems": 1, "maxItems": methods::MANY_MAX,
                    "items": {"type": "string"},
                }},
                "examples": [{"channels": ["chat", "news"], "data": {"text": "hello"}}],
            }))
        },
        result: responses,
    },
    Operation {
        method: "subscribe",
        summary: "Subscribe a user's connections to a channel",
        request: shape::of::<Subscribe>,
        leaves_out: &[],
        said: subscribing,
        result: nothing,
    },
    Operation {
        method: "unsubscribe",
        summary: "Unsubscribe a user's connections from a channel",
        request: shape::of::<Unsubscribe>,
        leaves_out: &[],
        said: || {
            json!({"properties": {"channel": {
                "description": "Without one: from all of them.", "pattern": NO_STAR,
            }}})
        },
        result: nothing,
    },
    Operation {
        method: "disconnect",
        summary: "Disconnect a user",
        request: shape::of::<Disconnect>,
        leaves_out: &[],
        said: || {
            json!({"properties": {"disconnect": {
                "required": ["code"],
                "properties": {"code": {"type": "integer", "minimum": 3000, "maximum": 4999}},
            }}})
        },
        result: nothing,
    },
    Operation {
        method: "refresh",
        summary: "Prolong or end a user's connections",
        request: shape::of::<Refresh>,
        leaves_out: &[],
        said: || {
            json!({"properties": {"expire_at": {
                "description": "When the connections expire: seconds since 1970. 0: never.",
            }}})
        },
        result: nothing,
    },
    Operation {
        method: "presence",
        summary: "Who is in a channel",
        request: shape::of::<Channel>,
        leaves_out: &[],
        said: in_a_channel,
        result: || {
            object(json!({"presence": {
                "description": "By the ids of the clients.",
                "type": "object", "additionalProperties": client_info(),
            }}))
        },
    },
    Operation {
        method: "presence_stats",
        summary: "How many are in a channel",
        request: shape::of::<Channel>,
        leaves_out: &[],
        said: in_a_channel,
        result: || object(json!({"num_clients": count(), "num_users": count()})),
    },
    Operation {
        method: "history",
        summary: "What a channel keeps",
        request: shape::of::<History>,
        leaves_out: &[],
        said: || {
            let since = json!({"properties": {"since": {
                "description": "Only what came behind this place; before it in a reverse read, \
                    which is answered with 100 where the offset is 0.",
            }}});
            laid(since, in_a_channel())
        },
        result: page,
    },
    Operation {
        method: "history_remove",
        summary: "Forget what a channel keeps",
        request: shape::of::<Channel>,
        leaves_out: &[],
        said: in_a_channel,
        result: nothing,
    },
    Operation {
        method: "channels",
        summary: "Channels that have subscribers",
        request: shape::of::<Channels>,
        leaves_out: &[],
        said: || json!({}),
        result: || {
            let each = object(json!({"num_clients": count()}));
            object(json!({"channels": {"type": "object", "additionalProperties": each}}))
        },
    },
    Operation {
        method: "info",
        summary: "The node: clients, channels, memory",
        request: shape::of::<Nothing>,
        leaves_out: &[],
        said: || json!({}),
        result: nodes,
    },
    Operation {
        method: "rpc",
        summary: "A remote call; there is none to call yet, so the answer is always 104",
        request: shape::of::<Nothing>,
        leaves_out: &[],
        said: || json!({}),
        result: nothing,
    },
    Operation {
        method: "batch",
        summary: "Several calls, one after the other",
        request: shape::of::<Batch<'static>>,
        leaves_out: &[],
        said: || {
            json!({
                "properties": {"commands": {"maxItems": methods::MANY_MAX}},
                "examples": [{"commands": [
                    {"publish": {"channel": "chat", "data": "hello"}},
                    {"presence_stats": {"channel": "chat"}},
                ]}],
            })
        },
        result: replies,
    },
    Operation {
        method: "map_publish",
        summary: "Write a key of a map",
        request: shape::of::<MapPublish>,
        leaves_out: &[],
        said: || {
            let said = json!({"properties": {
                "b64data": {"pattern": BASE64},
                "b64stream_data": {"description": "Accepted, and not used."},
                "data": {"description": "The key's value: any JSON."},
                "key_mode": {"enum": ["", "if_new", "if_exists", null]},
            }});
            laid(said, with_a_key())
        },
        result: written,
    },
    Operation {
        method: "map_remove",
        summary: "Remove a key of a map",
        request: shape::of::<MapRemove>,
        leaves_out: &[],
        said: with_a_key,
        result: written,
    },
    Operation {
        method: "map_read_state",
        summary: "The keys of a map and their values",
        request: shape::of::<MapReadState>,
        leaves_out: &[],
        said: || {
            let said = json!({"properties": {
                "key": {"description": "This key alone. Without one: all of them."},
                "limit": {
                    "description": "So many keys at most. 0: only where the map stands. -1: all.",
                },
            }});
            laid(said, in_a_channel())
        },
        result: entries,
    },
    Operation {
        method: "map_read_stream",
        summary: "The last changes of a map",
        request: shape::of::<MapReadStream>,
        leaves_out: &[],
        said: || {
            let said = json!({"properties": {"limit": {
                "description": "So many changes at most. 0: only where the map stands. -1: all.",
            }}});
            laid(said, in_a_channel())
        },
        result: entries,
    },
    Operation {
        method: "map_stats",
        summary: "How many keys a map has",
        request: shape::of::<Channel>,
        leaves_out: &[],
        said: in_a_channel,
        result: || object(json!({"num_keys": count()})),
    },
    Operation {
        method: "map_clear",
        summary: "Forget a map; who follows it reads it anew",
        request: shape::of::<Channel>,
        leaves_out: &[],
        said: in_a_channel,
        result: nothing,
    },
    Operation {
        method: "shared_poll_publish",
        summary: "Say what is new for a key of a shared poll, without waiting to be asked",
        request: shape::of::<SharedPollPublish>,
        leaves_out: &[],
        said: || laid(with_data(keyed()), in_a_channel()),
        result: nothing,
    },
];

/// `*` is kept for patterns.
const NO_STAR: &str = "^[^*]*$";
/// Base64 with padding, and without bits that say nothing.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*\
    ([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// What the fields are, wherever they occur.
fn words(field: &str) -> Option<&'static str> {
    Some(match field {
        "b64data" => "The data as base64, for bytes that are not JSON; it counts before `data`.",
        "asc" => "Accepted: the order is that of the keys.",
        "b64info" => "The info as base64, for bytes that are not JSON; it counts before `info`.",
        "channel" => {
            "The channel. Unless configured otherwise it is of ASCII characters without `*`, of \
             255 bytes at most, and what is before a `:` is its namespace."
        }
        "channels" => "The channels. An error of one does not hold up the others.",
        "client" => "Only the connection with this id.",
        "code" => "The close code: up to 3499 and from 4000 to 4499 the client comes back.",
        "commands" => {
            "Each is an object with the method's name and under it the method's request. What is \
             wrong with one is said in its reply, and the others are done."
        }
        "cursor" => "Behind this key; the answer to the last call says which.",
        "data" => "Any JSON but null.",
        "disconnect" => "What the client is told; 3503 without it, and it does not come back.",
        "epoch" => "Which life of the channel's history the offset is of.",
        "expire_at" => "When the subscription expires: seconds since 1970. 0: never.",
        "delta" => "Subscribers that take deltas get what differs from the publication before it.",
        "expired" => "Ends the connections as expired.",
        "force_positioning" => "Whether lost publications are noticed.",
        "force_push_join_leave" => "Whether the client hears who comes and goes without asking.",
        "force_recovery" => "Whether missed publications are caught up with.",
        "idempotency_key" => {
            "A publication with the same key in the same channel within 5 minutes is not made \
             again, and gets the first one's answer."
        }
        "info" => "About the user, for those who see it in presence and publications. Any JSON.",
        "key" => "The key: up to 1024 characters.",
        "key_mode" => "`if_new`: only where the key is not there. `if_exists`: only where it is.",
        "join_leave" => "Whether others hear the client come and go.",
        "limit" => "So many publications at most. 0: only where the channel stands. -1: all.",
        "offset" => "The number of a publication.",
        "override" => "Options of the channel that are otherwise for this subscription.",
        "parallel" => "Accepted; the calls are made one after the other all the same.",
        "pattern" => "Only channels like this, where `*` is for any characters.",
        "presence" => "Whether the client shows in presence.",
        "reason" => "The reason that the client is told.",
        "recover_since" => "The place in the channel's history behind which to catch up.",
        "reverse" => "The newest first.",
        "revision_epoch" => "The epoch of the first page: one of another is answered with 112.",
        "revision_offset" => "The offset of the first page: what changed since is left out.",
        "score" => "Told with the value; the order of the keys does not depend on it.",
        "session" => "Only the connection with this session id.",
        "since" => "A place in the channel's history.",
        "since_epoch" => "The epoch that the offset is of; of another it is answered with 112.",
        "since_offset" => "Only changes behind this one; before it in a reverse read.",
        "stream_data" => "Accepted, and not used: subscribers get the value.",
        "skip_history" => "Delivers without keeping.",
        "tags" => "For clients and filters.",
        "user" => "The user's id in your application. The empty one is whoever has none.",
        "value" => "The option.",
        "version" => {
            "A publication whose version is not above that of the last one is not delivered. 0: \
             without versions."
        }
        "version_epoch" => "Versions are compared within the same epoch.",
        "whitelist" => "Ids of connections that stay.",
        _ => return None,
    })
}

/// `over` laid over `under`: objects within each other, everything else in place of it.
fn laid(over: Value, mut under: Value) -> Value {
    lay(&mut under, over);
    under
}

fn lay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

fn in_a_channel() -> Value {
    json!({
        "required": ["channel"],
        "properties": {"channel": {"type": "string", "minLength": 1, "pattern": NO_STAR}},
    })
}

/// A key and the number of its state.
fn keyed() -> Value {
    json!({
        "required": ["channel", "key", "version"],
        "properties": {
            "key": {
                "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[^\\u0000]*$",
                "description": "Which of the channel's keys, of 255 bytes at most.",
            },
            "version": {
                "type": "integer", "minimum": 1,
                "description": "The number of this state of the key, from the same numbers as what \
                    your application answers when it is asked. One that is not above the last is \
                    not delivered.",
            },
            "epoch": {
                "description": "Which life of these numbers it is: with another one than before, \
                    clients ask for everything anew. Empty: it says nothing of it.",
            },
        },
        "examples": [{
            "channel": "votes:feed", "key": "post-1", "version": 7, "data": {"votes": 43},
        }],
    })
}

/// A request with a payload, which comes in one of two forms.
fn with_data(said: Value) -> Value {
    let form = json!({
        "properties": {"b64data": {"pattern": BASE64}},
        "anyOf": [
            {"required": ["data"], "properties": {"data": {
                "type": ["object", "array", "string", "number", "boolean"],
            }}},
            {"required": ["b64data"], "properties": {"b64data": {
                "type": "string", "minLength": 1,
            }}},
        ],
    });
    laid(said, form)
}

fn subscribing() -> Value {
    let base64 = json!({"pattern": BASE64});
    let said = json!({"properties": {
        "b64data": base64,
        "b64info": base64,
        "data": {"description": "What the client is told with the subscription. Any JSON."},
    }});
    laid(said, in_a_channel())
}

/// An object of these properties, which are always there.
fn object(properties: Value) -> Value {
    let required: Vec<_> = properties.as_object().into_iter().flat_map(|all| all.keys()).collect();
    json!({"type": "object", "required": required, "properties": properties})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn nothing() -> Value {
    json!({"type": "object", "properties": {}})
}

fn position() -> Value {
    json!({
        "description": "Empty where the channel keeps nothing.",
        "type": "object",
        "properties": {"offset": count(), "epoch": text()},
    })
}

fn responses() -> Value {
    let each = json!({"type": "object", "properties": {
        "result": position(),
        "error": reference("schemas/Error"),
        "audience": reference("schemas/Audience"),
    }});
    object(json!({"responses": {
        "description": "One for each channel, in their order: a result or an error.",
        "type": "array", "items": each,
    }}))
}

fn client_info() -> Value {
    let payload = |whose: &str| json!({"description": format!("Any JSON; what {whose}.")});
    laid(
        json!({"properties": {
            "conn_info": payload("the connection's token or your application says of the user"),
            "chan_info": payload("is said of the user in this channel"),
        }}),
        object(json!({"user": text(), "client": text()})),
    )
}

fn with_a_key() -> Value {
    let key = json!({
        "required": ["key"],
        "properties": {"key": {"type": "string", "minLength": 1, "maxLength": 1024}},
    });
    let mut said = laid(key, in_a_channel());
    said["required"] = json!(["channel", "key"]);
    said
}

fn written() -> Value {
    json!({
        "type": "object",
        "required": ["epoch"],
        "properties": {
            "offset": count(),
            "epoch": text(),
            "suppressed": {"type": "boolean"},
            "suppress_reason": {
                "description": "Why nothing was changed.",
                "enum": ["idempotency", "version", "key_exists", "key_not_found"],
            },
        },
    })
}

fn entries() -> Value {
    let entry = json!({
        "type": "object",
        "required": ["key"],
        "properties": {
            "key": text(),
            "data": {"description": "Any JSON; base64 of what is not JSON."},
            "tags": {"type": "object", "additionalProperties": {"type": "string"}},
            "offset": count(),
            "score": {"type": "integer"},
            "removed": {"type": "boolean"},
            "time": {"description": "Milliseconds since 1970.", "type": "integer"},
        },
    });
    json!({
        "type": "object",
        "required": ["entries", "epoch"],
        "properties": {
            "entries": {"type": "array", "items": entry},
            "offset": count(),
            "epoch": text(),
            "cursor": text(),
        },
    })
}

fn page() -> Value {
    let publication = laid(
        json!({"properties": {
            "info": client_info(),
            "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        }}),
        object(json!({
            "data": {"description": "Any JSON; base64 of what is not JSON."},
            "offset": count(),
        })),
    );
    object(json!({
        "publications": {"type": "array", "items": publication},
        "offset": count(),
        "epoch": text(),
    }))
}

fn nodes() -> Value {
    let node = object(json!({
        "uid": text(),
        "name": text(),
        "version": text(),
        "num_clients": count(),
        "num_users": count(),
        "num_subs": count(),
        "num_channels": count(),
        "uptime": {"description": "Seconds.", "type": "integer", "minimum": 0},
        "process": object(json!({
            "cpu": {"description": "Seconds of processor time.", "type": "number", "minimum": 0},
            "rss": {"description": "Bytes of memory.", "type": "integer", "minimum": 0},
        })),
    }));
    object(json!({"nodes": {"type": "array", "items": node}}))
}

/// What a batch is answered with; its calls may be any of the other methods.
fn replies() -> Value {
    let mut each = serde_json::Map::new();
    each.insert("error".to_owned(), reference("schemas/Error"));
    for operation in OPERATIONS.iter().filter(|operation| operation.method != "batch") {
        each.insert(operation.method.to_owned(), (operation.result)());
    }
    object(json!({"replies": {
        "description": "One for each command, in their order: under the method's name its result, \
            or an error.",
        "type": "array", "items": {"type": "object", "properties": each},
    }}))
}

fn reference(to: &str) -> Value {
    json!({"$ref": format!("#/components/{to}")})
}

/// An OpenAPI 3.1 document of the server API over HTTP.
///
/// # Errors
/// When the code reads a request in a way that there are no words for.
pub fn openapi() -> Result<Value, Error> {
    let mut paths = serde_json::Map::new();
    for operation in &OPERATIONS {
        paths.insert(format!("/{}", operation.method), path(operation)?);
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "throng's server API",
            "version": crate::version::said(),
            "description": ABOUT,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{
            "url": "http://127.0.0.1:8000/api",
            "description": "As it is unless http_server.port and http_api.handler_prefix are set.",
        }],
        "security": [{"header": []}, {"authorization": []}, {"query": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "authorization": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "`apikey`, a space, and the key.",
                },
                "query": {"type": "apiKey", "in": "query", "name": "api_key"},
            },
            "parameters": parameters(),
            "schemas": {"Error": error(), "Audience": audience()},
            "responses": refusals(),
        },
    }))
}

const ABOUT: &str = "Every call is a POST request with a JSON object, whatever its Content-Type. \
    Fields that are not known are passed over, and where null may be, it is as good as absent. What goes wrong in \
    a call is answered with the status 200 and an `error`, unless the request has the header \
    `X-Centrifugo-Error-Mode: transport` or the server `http_api.error_mode = \"transport\"`: then \
    the status says it too, and the body is the error alone.";

fn path(operation: &Operation) -> Result<Value, Error> {
    let method = operation.method;
    let mut request = (operation.request)()?;
    if let Some(properties) = request["properties"].as_object_mut() {
        properties.retain(|name, _| !operation.leaves_out.contains(&name.as_str()));
    }
    describe(&mut request);
    lay(&mut request, (operation.said)());
    let mut responses = json!({
        "200": {
            "description": "It was done; or an error, unless these are asked for as statuses.",
            "content": {"application/json": {"schema": answer(operation)}},
        },
    });
    for status in refusals().as_object().into_iter().flat_map(|all| all.keys()) {
        responses[status] = reference(&format!("responses/{status}"));
    }
    let mut parameters = vec![reference("parameters/ErrorMode")];
    if matches!(method, "publish" | "broadcast") {
        parameters.push(reference("parameters/Audience"));
    }
    Ok(json!({"post": {
        "operationId": method,
        "summary": operation.summary,
        "parameters": parameters,
        "requestBody": {
            "required": true,
            "content": {"application/json": {"schema": request}},
        },
        "responses": responses,
    }}))
}

/// Gives every property its words.
fn describe(schema: &mut Value) {
    let Value::Object(parts) = schema else { return };
    for (name, part) in parts {
        if name == "properties" {
            let Value::Object(properties) = part else { continue };
            for (field, property) in properties {
                describe(property);
                if let Some(words) = words(field) {
                    property["description"] = words.into();
                }
            }
        } else {
            describe(part);
        }
    }
}

/// What comes with the status 200.
fn answer(operation: &Operation) -> Value {
    let result = (operation.result)();
    let done = match operation.method {
        "batch" => result,
        "publish" => laid(
            json!({"properties": {"audience": reference("schemas/Audience")}}),
            object(json!({"result": result})),
        ),
        _ => object(json!({"result": result})),
    };
    json!({"oneOf": [done, object(json!({"error": reference("schemas/Error")}))]})
}

fn parameters() -> Value {
    let header = |name: &str, description: &str| {
        json!({
            "name": name, "in": "header", "description": description,
            "schema": {"type": "string"},
        })
    };
    json!({
        "ErrorMode": header(
            "X-Centrifugo-Error-Mode",
            "`transport`: errors are HTTP statuses. Anything else is passed over.",
        ),
        "Audience": header(
            "X-Throng-Audience",
            "`true`: the answer says whom the publication reached. Anything else is passed over.",
        ),
    })
}

fn error() -> Value {
    let codes: Vec<String> =
        STATUSES.iter().map(|(error, _)| format!("{} {}", error.code, error.message)).collect();
    object(json!({
        "code": {
            "description": format!("{}. `throng explain CODE` says more.", codes.join(", ")),
            "type": "integer",
            "enum": STATUSES.iter().map(|(error, _)| error.code).collect::<Vec<_>>(),
        },
        "message": {"type": "string"},
    }))
}

fn audience() -> Value {
    let near = object(json!({"channel": text(), "subscribers": count()}));
    object(json!({
        "subscribers": count(),
        "users": count(),
        "near": {
            "description": "Where nobody was reached: channels of similar names that have \
                subscribers.",
            "type": "array", "items": near,
        },
    }))
}

/// What a call is answered with that was not done, by status.
fn refusals() -> Value {
    let plain = |why: &str| {
        json!({
            "description": why,
            "content": {"text/plain": {"schema": {"type": "string"}}},
        })
    };
    let mut all = json!({
        "400": plain("The body is not a JSON object"),
        "401": {"description": "There is no key, or a wrong one; the log says which. No body."},
        "404": plain("There is no such method"),
        "405": plain("Only POST will do"),
        "408": plain("The body took over 30 s"),
        "413": plain("The body is over 16 MiB"),
        "502": plain("The server is being restarted, and this call may or may not have been done"),
    });
    all["405"]["headers"] =
        json!({"Allow": {"required": true, "schema": {"type": "string", "const": "POST"}}});
    for (error, status) in STATUSES {
        let response = &mut all[status.as_str()];
        let before = response["description"].as_str().map(|before| format!("{before}; or "));
        response["description"] =
            format!("{}{} {}", before.unwrap_or_default(), error.code, error.message).into();
        response["content"]["application/json"]["schema"] = reference("schemas/Error");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<(&'static str, Value)> {
        let all = openapi().unwrap();
        let of = |method| {
            let post = &all["paths"][format!("/{method}")]["post"];
            post["requestBody"]["content"]["application/json"]["schema"].clone()
        };
        methods::METHODS.iter().map(|method| (*method, of(method))).collect()
    }

    /// Calls back with the path and the schema of every property.
    fn properties(at: &str, schema: &Value, seen: &mut dyn FnMut(&str, &Value)) {
        let inner = [("[]", &schema["items"]), ("{}", &schema["additionalProperties"])];
        for (name, schema) in inner {
            if schema.is_object() {
                properties(&format!("{at}{name}"), schema, seen);
            }
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            seen(&at, schema);
            properties(&at, schema, seen);
        }
    }

    #[test]
    fn every_method_is_there_in_its_place() {
        let named: Vec<_> = OPERATIONS.iter().map(|operation| operation.method).collect();
        assert_eq!(named, methods::METHODS);
    }

    #[test]
    fn every_field_that_the_code_reads_has_words() {
        let mut count = 0;
        for (method, request) in requests() {
            properties(method, &request, &mut |at, schema| {
                count += 1;
                assert!(schema["description"].is_string(), "{at} needs words in openapi.rs");
            });
        }
        assert!(count > 50, "{count}");
    }

    /// Else the table would tell of fields that are not read.
    #[test]
    fn what_the_table_says_is_said_of_fields_that_the_code_reads() {
        for operation in &OPERATIONS {
            let request = (operation.request)().unwrap();
            let mut read = Vec::new();
            properties("", &request, &mut |at, _| read.push(at.to_owned()));
            let said = (operation.said)();
            properties("", &said, &mut |at, _| {
                assert!(read.iter().any(|known| known == at), "{}{at}", operation.method);
            });
            for field in operation.leaves_out {
                assert!(request["properties"][field].is_object(), "{} {field}", operation.method);
            }
            for field in said["required"].as_array().into_iter().flatten() {
                let field = field.as_str().unwrap();
                assert!(request["properties"][field].is_object(), "{} {field}", operation.method);
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let all = openapi().unwrap();
        let mut stack = vec![&all];
        let mut count = 0;
        while let Some(value) = stack.pop() {
            if let Some(to) = value.get("$ref").and_then(Value::as_str) {
                count += 1;
                assert!(all.pointer(to.strip_prefix('#').unwrap()).is_some(), "{to}");
            }
            match value {
                Value::Object(parts) => stack.extend(parts.values()),
                Value::Array(parts) => stack.extend(parts),
                _ => {}
            }
        }
        assert!(count > 100, "{count}");
    }

    #[test]
    fn a_request_is_described_from_its_code_and_from_the_table() {
        let (_, publish) = requests().swap_remove(0);
        assert_eq!(publish["required"], json!(["channel"]));
        assert_eq!(publish["properties"]["channel"]["type"], "string");
        assert_eq!(publish["properties"]["channel"]["minLength"], 1);
        assert_eq!(publish["properties"]["version"]["type"], json!(["integer", "null"]));
        assert_eq!(publish["properties"]["version"]["maximum"], u64::MAX);
        assert!(publish["properties"].get("channels").is_none());
    }
}

//! `throng publish` and `throng broadcast`: says something, and tells whom it reached.

use std::io::Write;

use serde_json::{Value, json};

use crate::api;
use crate::args::{BroadcastArgs, PublishArgs};
use crate::failure::Failure;
use crate::place::{Door, Place};
use crate::text::{count, thousands, visible};

pub(crate) fn publish(args: &PublishArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let data = payload(&args.data)?;
    let place = Place::find(&args.place, Door::Api)?;
    let params = json!({"channel": args.channel, "data": data});
    let answer = api::call(&place, "publish", &params)?;
    if args.place.json {
        writeln!(out, "{answer}")?;
    } else {
        writeln!(out, "{}", reached(&args.channel, &answer["audience"]))?;
    }
    Ok(())
}

pub(crate) fn broadcast(args: &BroadcastArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let data = payload(&args.data)?;
    let place = Place::find(&args.place, Door::Api)?;
    let params = json!({"channels": args.channels, "data": data});
    let answer = api::call(&place, "broadcast", &params)?;
    let none = Vec::new();
    let responses = answer["result"]["responses"].as_array().unwrap_or(&none);
    let failed = responses.iter().filter(|response| response.get("error").is_some()).count();
    if args.place.json {
        writeln!(out, "{answer}")?;
    } else {
        for (channel, response) in args.channels.iter().zip(responses) {
            match response.get("error") {
                Some(error) => writeln!(out, "{}: {}", visible(channel), api::said(error))?,
                None => writeln!(out, "{}", reached(channel, &response["audience"]))?,
            }
        }
    }
    if failed > 0 {
        let of = count(args.channels.len() as u64, "channel");
        return Err(Failure::found(format!("{failed} of {of} refused it")));
    }
    Ok(())
}

/// The data, when it is JSON; else how to write it so that it is.
fn payload(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| {
        let quoted = Value::from(text).to_string();
        Failure::could_not_run(format!(
            "the data is not JSON: {error}\nif it is meant as a text, write {}",
            shell_quoted(&quoted)
        ))
    })
}

/// As a shell takes it for one word.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Whom a publication reached, and what might have been meant if it was nobody.
fn reached(channel: &str, audience: &Value) -> String {
    let channel = visible(channel);
    let (Some(subscribers), users) = (audience["subscribers"].as_u64(), audience["users"].as_u64())
    else {
        // Another server, or an older one: it does not tell.
        return format!("published to {channel}");
    };
    if subscribers > 0 {
        let users = users.map(|users| format!(" ({})", count(users, "user")));
        let subscribers = count(subscribers, "subscriber");
        return format!("published to {channel}: {subscribers}{}", users.unwrap_or_default());
    }
    let near: Vec<String> =
        audience["near"].as_array().into_iter().flatten().map(one_near).collect();
    let near = match near.as_slice() {
        [] => String::new(),
        near => format!("; close to it: {}", near.join(", ")),
    };
    format!("published to {channel}: nobody is subscribed{near}")
}

fn one_near(near: &Value) -> String {
    let channel = visible(near["channel"].as_str().unwrap_or_default());
    format!("{channel} ({})", thousands(near["subscribers"].as_u64().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_says_whom_it_reached() {
        let audience = json!({"subscribers": 3, "users": 2, "near": []});
        assert_eq!(reached("news", &audience), "published to news: 3 subscribers (2 users)");
        let audience = json!({"subscribers": 0, "near": [{"channel": "news", "subscribers": 3}]});
        assert_eq!(
            reached("nwes", &audience),
            "published to nwes: nobody is subscribed; close to it: news (3)"
        );
        assert_eq!(
            reached("x", &json!({"subscribers": 0})),
            "published to x: nobody is subscribed"
        );
        assert_eq!(reached("news", &Value::Null), "published to news");
    }

    #[test]
    fn data_that_is_not_json_shows_how_to_quote_it() {
        assert_eq!(payload("{\"a\": 1}").unwrap(), json!({"a": 1}));
        let message = payload("it's").unwrap_err().message;
        assert!(message.ends_with(r#"write '"it'\''s"'"#), "{message}");
        assert!(payload("hello").unwrap_err().message.ends_with("write '\"hello\"'"));
    }
}

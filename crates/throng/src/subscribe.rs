//! `throng subscribe`: listens to a channel and prints what arrives.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};
use throng_load::Target;
use throng_load::client::{Client, ClientError, Manner};

use crate::api;
use crate::args::SubscribeArgs;
use crate::failure::Failure;
use crate::inspect::shown_publication;
use crate::place::{Door, Place};
use crate::text::visible;
use crate::token;

/// Who listens, where the configuration's key makes a token.
const USER: &str = "throng-cli";
/// A day of listening; nobody renews it.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
/// One stretch of listening; another follows.
const LISTENING: Duration = Duration::from_secs(3600);

pub(crate) fn run(args: &SubscribeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let place = Place::find(&args.place, Door::Clients)?;
    let path = match &place.settings {
        Some(settings) => settings.websocket.path.clone(),
        None => "/connection/websocket".to_owned(),
    };
    let mut client = connect(&place, &path)?;
    let mut listener = Listener { args, out, left: args.count, subscribed: false };
    client.send(&commands(args, &place)).map_err(lost)?;
    loop {
        if let Some(line) = client.next_line(LISTENING).map_err(lost)?
            && listener.hear(&line)? == Heard::Enough
        {
            return Ok(());
        }
    }
}

fn connect(place: &Place, path: &str) -> Result<Client, Failure> {
    let stream = api::connect(place)?;
    let name = place.name();
    let silent = |why: &dyn std::fmt::Display| {
        Failure::could_not_run(format!("{name} did not answer: {why}"))
    };
    let target = Target {
        host: place.host.clone(),
        port: place.port,
        path: format!("{}{path}", place.prefix),
        address: stream.peer_addr().map_err(|error| silent(&error))?,
    };
    Client::over(Box::new(stream), &target, &Manner::default()).map_err(|error| match error.code {
        Some(status) => Failure::could_not_run(format!(
            "{name} refused the WebSocket with HTTP {status} (throng explain {status})"
        )),
        None => silent(&visible(&error.why)),
    })
}

fn lost(error: ClientError) -> Failure {
    let why = visible(&error.why);
    Failure::found(match error.code {
        Some(code) => format!("{why} (throng explain {code})"),
        None => format!("the connection broke: {why}"),
    })
}

/// Connect and subscribe in one frame, with tokens where there are any.
fn commands(args: &SubscribeArgs, place: &Place) -> String {
    let make = |channel: Option<&str>| {
        let settings = place.settings.as_ref()?;
        token::make(settings, USER, channel, Some(TOKEN_TTL), token::unix_s()).ok()
    };
    let mut connect = json!({"name": "throng-cli"});
    let mut subscribe = json!({"channel": args.channel});
    match &args.token {
        Some(token) => connect["token"] = json!(token),
        // With a key at hand nothing is closed to who has it.
        None => {
            if let (Some(own), Some(channel)) = (make(None), make(Some(&args.channel))) {
                connect["token"] = json!(own);
                subscribe["token"] = json!(channel);
            }
        }
    }
    format!(
        "{}\n{}",
        json!({"id": 1, "connect": connect}),
        json!({"id": 2, "subscribe": subscribe})
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    More,
    Enough,
}

struct Listener<'a> {
    args: &'a SubscribeArgs,
    out: &'a mut dyn Write,
    /// Publications still wanted; none: all.
    left: Option<u64>,
    subscribed: bool,
}

impl Listener<'_> {
    fn hear(&mut self, line: &str) -> Result<Heard, Failure> {
        let reply: Value = serde_json::from_str(line)
            .map_err(|_| Failure::found("the server sent something that is not JSON"))?;
        if let Some(error) = reply.get("error") {
            let doing = if reply["id"] == 1 { "connect" } else { "subscribe" };
            return Err(Failure::found(format!("cannot {doing}: {}", api::said(error))));
        }
        if reply["id"] == 2 {
            self.subscribed = true;
            let channel = visible(&self.args.channel);
            // For the person, not for whoever reads the output.
            writeln!(io::stderr(), "subscribed to {channel}; ctrl-c ends it").ok();
        }
        match reply.get("push") {
            Some(push) => self.push(push),
            None => Ok(Heard::More),
        }
    }

    fn push(&mut self, push: &Value) -> Result<Heard, Failure> {
        if push["channel"] != self.args.channel.as_str() {
            return Ok(Heard::More);
        }
        if let Some(end) = push.get("unsubscribe") {
            return Err(Failure::found(format!(
                "the server ended the subscription: {} {} (throng explain {})",
                end["code"],
                visible(end["reason"].as_str().unwrap_or_default()),
                end["code"],
            )));
        }
        // As JSON only publications, so that every line has the same form.
        let wanted = !self.args.place.json || push.get("pub").is_some();
        if let Some(line) = shown(push, self.args.place.json).filter(|_| wanted) {
            writeln!(self.out, "{line}")?;
            self.out.flush()?;
        }
        if push.get("pub").is_some()
            && let Some(left) = &mut self.left
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Ok(Heard::Enough);
            }
        }
        Ok(Heard::More)
    }
}

/// A push on one line.
fn shown(push: &Value, as_json: bool) -> Option<String> {
    if let Some(publication) = push.get("pub") {
        return Some(if as_json {
            publication.to_string()
        } else {
            shown_publication(publication)
        });
    }
    for (key, word) in [("join", "joined"), ("leave", "left")] {
        if let Some(event) = push.get(key) {
            let user = event["info"]["user"].as_str().unwrap_or_default();
            let user = if user.is_empty() { "(anonymous)".to_owned() } else { visible(user) };
            return Some(format!("{user} {word}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_one_line() {
        let push = json!({"channel": "news", "pub": {"data": {"a": 1}, "offset": 3}});
        assert_eq!(shown(&push, false).unwrap(), "#3 {\"a\":1}");
        assert_eq!(shown(&push, true).unwrap(), "{\"data\":{\"a\":1},\"offset\":3}");
        let join = json!({"channel": "news", "join": {"info": {"user": "42", "client": "c"}}});
        assert_eq!(shown(&join, false).unwrap(), "42 joined");
    }
}

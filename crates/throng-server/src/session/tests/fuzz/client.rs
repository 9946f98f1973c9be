//! What one random client may hear, by what it has said: the rules of the protocol.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use throng_wire::dialect::{self, Encoding, Request};

/// Results, by the command that they answer.
const RESULTS: [&str; 11] = [
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "rpc",
    "refresh",
    "sub_refresh",
    "error",
];

/// A command that is to be answered.
#[derive(Debug)]
struct Asked {
    id: u64,
    result: &'static str,
    channel: String,
}

/// Where a subscriber stands that was told an offset.
#[derive(Debug, Clone, Copy, Default)]
struct Stand {
    offset: u64,
    positioned: bool,
    /// The latest publication is still to come, wherever it stands.
    latest: bool,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    is_uni: bool,
    is_connected: bool,
    /// Commands not answered yet, in their order.
    asked: VecDeque<Asked>,
    stands: BTreeMap<String, Stand>,
    /// Publications may be lost on their way to those who follow no position.
    is_lossy: bool,
    /// Epochs that it was told of.
    pub(super) epochs: Vec<String>,
}

impl Client {
    pub(super) fn new(is_uni: bool, is_lossy: bool) -> Self {
        Self { is_uni, is_lossy, ..Self::default() }
    }

    pub(super) fn is_uni(&self) -> bool {
        self.is_uni
    }

    /// It says this.
    pub(super) fn says(&mut self, encoding: Encoding, frame: &[u8]) {
        if self.is_uni {
            return;
        }
        for command in dialect::commands(encoding, frame) {
            // What is malformed, or has no id, ends the connection.
            let Ok(command) = command else { return };
            let (result, channel) = match &command.request {
                Request::Send { .. } | Request::Pong | Request::Unknown => continue,
                Request::Connect(_) => ("connect", ""),
                Request::Subscribe(request) => ("subscribe", &*request.channel),
                Request::Unsubscribe { channel } => ("unsubscribe", &**channel),
                Request::Publish { channel, .. } => ("publish", &**channel),
                Request::PublishKey(request) => ("publish", &*request.channel),
                Request::Presence { channel } => ("presence", &**channel),
                Request::PresenceStats { channel } => ("presence_stats", &**channel),
                Request::History(request) => ("history", &*request.channel),
                Request::Rpc { .. } => ("rpc", ""),
                Request::Refresh { .. } => ("refresh", ""),
                Request::SubRefresh(request) => ("sub_refresh", &*request.channel),
            };
            let (id, channel) = (u64::from(command.id), channel.to_owned());
            self.asked.push_back(Asked { id, result, channel });
        }
    }

    /// Whether it waits for answers.
    pub(super) fn waits(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// It hears this.
    pub(super) fn hears(&mut self, message: &Value) {
        let all = message.as_object().unwrap();
        if all.is_empty() {
            assert!(self.is_connected, "a ping before the connect reply");
            return;
        }
        let push = if self.is_uni { Some(message) } else { message.get("push") };
        if let Some(push) = push {
            assert!(self.is_uni || all.len() == 1, "a push is alone: {message}");
            return self.is_pushed(push);
        }
        let asked = self.asked.pop_front();
        let asked = asked.unwrap_or_else(|| panic!("an answer that nobody asked for: {message}"));
        assert_eq!(message["id"], asked.id, "answers come in order: {message} for {asked:?}");
        let results: Vec<&str> =
            RESULTS.into_iter().filter(|result| message.get(result).is_some()).collect();
        assert_eq!((results.len(), all.len()), (1, 2), "one result: {message}");
        if results[0] == "error" {
            let error = &message["error"];
            let code = error["code"].as_u64().unwrap();
            assert!((100..=113).contains(&code) || (400..2000).contains(&code), "{message}");
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{message}");
            return;
        }
        assert_eq!(results[0], asked.result, "{message} for {asked:?}");
        let result = &message[asked.result];
        match asked.result {
            "connect" => self.is_let_in(result),
            _ if !self.is_connected => panic!("before the connect reply: {message}"),
            "subscribe" => self.enters(&asked.channel, result),
            "unsubscribe" => drop(self.stands.remove(&asked.channel)),
            _ => {}
        }
    }

    fn is_let_in(&mut self, result: &Value) {
        assert!(!self.is_connected, "connected twice");
        self.is_connected = true;
        assert_eq!(result["client"].as_str().unwrap().len(), 36);
        for (channel, sub) in result.get("subs").and_then(Value::as_object).into_iter().flatten() {
            self.enters(channel, sub);
        }
    }

    fn is_pushed(&mut self, push: &Value) {
        if let Some(result) = push.get("connect") {
            assert!(self.is_uni);
            return self.is_let_in(result);
        }
        assert!(self.is_connected, "before the connect reply: {push}");
        if push.get("refresh").is_some() {
            return;
        }
        let channel = push["channel"].as_str().unwrap();
        if let Some(result) = push.get("subscribe") {
            self.enters(channel, result);
            // What is kept of a cache follows, since the push has no place for it.
            self.stands.get_mut(channel).unwrap().latest = channel.starts_with("cache:");
            return;
        }
        let is_lossy = self.is_lossy;
        let stand = self.stands.get_mut(channel);
        let stand = stand.unwrap_or_else(|| panic!("a push without a subscription: {push}"));
        if let Some(publication) = push.get("pub") {
            stand.takes(publication, is_lossy);
        } else if let Some(off) = push.get("unsubscribe") {
            let code = off["code"].as_u64().unwrap();
            assert!([2000, 2500, 2501, 2502].contains(&code), "{push}");
            self.stands.remove(channel);
        } else {
            let change = push.get("join").or_else(|| push.get("leave"));
            assert!(change.is_some_and(|change| change["info"]["client"].is_string()), "{push}");
        }
    }

    fn enters(&mut self, channel: &str, result: &Value) {
        let number = |name: &str| result.get(name).and_then(Value::as_u64).unwrap_or(0);
        let says = |name: &str| {
            result.get(name).is_some_and(|value| *value == Value::Bool(true) || *value == 1)
        };
        let offset = number("offset");
        let mut stand = Stand { offset, positioned: says("positioned"), latest: false };
        if stand.positioned {
            let epoch = result["epoch"].as_str().unwrap();
            assert_eq!(epoch.len(), 8, "{result}");
            self.epochs.push(epoch.to_owned());
        }
        assert!(says("positioned") || !says("recoverable"), "{result}");
        assert!(says("recoverable") || !says("recovered"), "{result}");
        let list = result.get("publications").and_then(Value::as_array);
        let list = list.map_or(&[][..], Vec::as_slice);
        assert!(list.is_empty() || says("recovered"), "{result}");
        if channel.starts_with("cache:") {
            // Only the latest one, wherever the client stood.
            assert!(list.len() <= 1, "{result}");
            for publication in list {
                stand.offset = publication["offset"].as_u64().unwrap();
            }
        } else {
            for publication in list {
                stand.takes(publication, false);
            }
        }
        let known = self.stands.insert(channel.to_owned(), stand);
        assert!(known.is_none(), "subscribed twice to {channel}");
    }
}

impl Stand {
    fn takes(&mut self, publication: &Value, is_lossy: bool) {
        // What is kept in no stream has no place in it.
        let Some(offset) = publication.get("offset").and_then(Value::as_u64) else { return };
        let fits = offset == self.offset + 1
            || std::mem::take(&mut self.latest)
            || (!self.positioned && (is_lossy || self.offset == 0 || offset == 1));
        assert!(fits, "{publication} comes after {self:?}");
        self.offset = offset;
    }
}

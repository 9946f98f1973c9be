//! Looks at a server through its API: who is there, what is kept, which channels live.

use std::io::Write;

use serde_json::{Value, json};

use crate::api;
use crate::args::{ChannelArgs, ChannelsArgs, DisconnectArgs, HistoryArgs, PlaceArgs, PlainArgs};
use crate::failure::Failure;
use crate::place::{Door, Place};
use crate::text::{count, thousands, visible};

pub(crate) fn presence(args: &ChannelArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let params = json!({"channel": args.channel});
    let Some(result) = ask(&args.place, "presence", &params, out)? else { return Ok(()) };
    write!(out, "{}", shown_presence(&args.channel, &result))?;
    Ok(())
}

pub(crate) fn history(args: &HistoryArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let reverse = !args.oldest;
    let params = json!({"channel": args.channel, "limit": args.limit, "reverse": reverse});
    let Some(result) = ask(&args.place, "history", &params, out)? else { return Ok(()) };
    write!(out, "{}", shown_history(&args.channel, &result))?;
    Ok(())
}

pub(crate) fn info(args: &PlainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(result) = ask(&args.place, "info", &json!({}), out)? else { return Ok(()) };
    for node in result["nodes"].as_array().into_iter().flatten() {
        writeln!(out, "{}", shown_node(node))?;
    }
    Ok(())
}

pub(crate) fn channels(args: &ChannelsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let params = match &args.pattern {
        Some(pattern) => json!({"pattern": pattern}),
        None => json!({}),
    };
    let Some(result) = ask(&args.place, "channels", &params, out)? else { return Ok(()) };
    write!(out, "{}", shown_channels(&result))?;
    Ok(())
}

pub(crate) fn disconnect(args: &DisconnectArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut params = json!({"user": args.user});
    if let Some(client) = &args.client {
        params["client"] = json!(client);
    }
    if let (Some(code), Some(reason)) = (args.code, &args.reason) {
        params["disconnect"] = json!({"code": code, "reason": reason});
    }
    if ask(&args.place, "disconnect", &params, out)?.is_some() {
        writeln!(out, "{} is disconnected, if connected at all", visible(&args.user))?;
    }
    Ok(())
}

/// The result of a call; none where it has been printed as JSON.
fn ask(
    args: &PlaceArgs,
    method: &str,
    params: &Value,
    out: &mut dyn Write,
) -> Result<Option<Value>, Failure> {
    let place = Place::find(args, Door::Api)?;
    let mut answer = api::call(&place, method, params)?;
    let result = answer["result"].take();
    if args.json {
        writeln!(out, "{result}")?;
        return Ok(None);
    }
    Ok(Some(result))
}

fn shown_presence(channel: &str, result: &Value) -> String {
    let channel = visible(channel);
    let none = serde_json::Map::new();
    let present = result["presence"].as_object().unwrap_or(&none);
    if present.is_empty() {
        return format!("nobody is in {channel}\n");
    }
    let mut rows: Vec<(&str, String)> = present
        .iter()
        .map(|(client, info)| {
            let mut more = client.clone();
            for (key, name) in [("conn_info", "connection"), ("chan_info", "channel")] {
                if let Some(value) = info.get(key) {
                    more.push_str(&format!("  {name} {value}"));
                }
            }
            (info["user"].as_str().unwrap_or_default(), more)
        })
        .collect();
    rows.sort();
    let mut users: Vec<&str> = rows.iter().map(|(user, _)| *user).collect();
    users.dedup();
    let clients = count(rows.len() as u64, "client");
    let mut text = format!("{channel}: {clients}, {}\n", count(users.len() as u64, "user"));
    for (user, more) in &rows {
        text.push_str(&format!("  {}  {}\n", named(user), visible(more)));
    }
    text
}

fn shown_history(channel: &str, result: &Value) -> String {
    let none = Vec::new();
    let publications = result["publications"].as_array().unwrap_or(&none);
    let mut text = String::new();
    for publication in publications {
        text.push_str(&shown_publication(publication));
        text.push('\n');
    }
    let offset = thousands(result["offset"].as_u64().unwrap_or_default());
    let epoch = visible(result["epoch"].as_str().unwrap_or_default());
    text.push_str(&format!("{} is at {offset} in epoch {epoch}\n", visible(channel)));
    text
}

/// A publication on one line: `#12 {"a":1}  by 42`.
pub(crate) fn shown_publication(publication: &Value) -> String {
    let mut text = match publication["offset"].as_u64() {
        Some(offset) if offset > 0 => format!("#{offset} "),
        _ => String::new(),
    };
    text.push_str(&visible(&publication["data"].to_string()));
    if let Some(user) = publication["info"]["user"].as_str() {
        text.push_str(&format!("  by {}", named(user)));
    }
    if let Some(tags) = publication.get("tags") {
        text.push_str(&format!("  tags {}", visible(&tags.to_string())));
    }
    text
}

fn shown_node(node: &Value) -> String {
    let number = |name: &str| node[name].as_u64().unwrap_or_default();
    let mut text = format!(
        "{} ({}), up {}: {}, {}, {}, {}",
        visible(node["name"].as_str().unwrap_or_default()),
        visible(node["version"].as_str().unwrap_or_default()),
        uptime(number("uptime")),
        count(number("num_clients"), "client"),
        count(number("num_users"), "user"),
        count(number("num_subs"), "subscription"),
        count(number("num_channels"), "channel"),
    );
    if let Some(rss) = node["process"]["rss"].as_u64() {
        text.push_str(&format!(", {} MiB", thousands(rss >> 20)));
    }
    text
}

fn shown_channels(result: &Value) -> String {
    let none = serde_json::Map::new();
    let channels = result["channels"].as_object().unwrap_or(&none);
    if channels.is_empty() {
        return "no channel has subscribers\n".to_owned();
    }
    let mut rows: Vec<(u64, &String)> = channels
        .iter()
        .map(|(channel, info)| (info["num_clients"].as_u64().unwrap_or_default(), channel))
        .collect();
    rows.sort_by_key(|(clients, channel)| (std::cmp::Reverse(*clients), *channel));
    let shown = |(clients, channel): &(u64, &String)| {
        format!("{:>9}  {}\n", thousands(*clients), visible(channel))
    };
    rows.iter().map(shown).collect()
}

pub(crate) fn named(user: &str) -> String {
    if user.is_empty() { "(anonymous)".to_owned() } else { visible(user) }
}

pub(crate) fn uptime(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", thousands(seconds / 86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_is_counted_and_listed_by_user() {
        let result = json!({"presence": {
            "c2": {"user": "42", "client": "c2"},
            "c1": {"user": "42", "client": "c1", "conn_info": {"name": "Ann"}},
            "c3": {"user": "", "client": "c3"},
        }});
        assert_eq!(
            shown_presence("news", &result),
            "news: 3 clients, 2 users\n  (anonymous)  c3\n  \
             42  c1  connection {\"name\":\"Ann\"}\n  42  c2\n"
        );
        assert_eq!(shown_presence("news", &json!({"presence": {}})), "nobody is in news\n");
    }

    #[test]
    fn history_shows_each_publication_and_where_the_channel_stands() {
        let result = json!({"offset": 12, "epoch": "abcdefgh", "publications": [
            {"data": {"a": 1}, "offset": 12, "info": {"user": "42", "client": "c"}},
        ]});
        assert_eq!(
            shown_history("news", &result),
            "#12 {\"a\":1}  by 42\nnews is at 12 in epoch abcdefgh\n"
        );
    }

    #[test]
    fn channels_are_listed_largest_first() {
        let result = json!({"channels": {"b": {"num_clients": 1}, "a": {"num_clients": 1200}}});
        assert_eq!(shown_channels(&result), "    1,200  a\n        1  b\n");
    }

    #[test]
    fn a_node_is_one_line() {
        let node = json!({"name": "h_8000", "version": "0.1.0", "uptime": 7300, "num_clients": 2,
            "num_users": 1, "num_subs": 3, "num_channels": 1, "process": {"rss": 20 << 20}});
        assert_eq!(
            shown_node(&node),
            "h_8000 (0.1.0), up 2 h: 2 clients, 1 user, 3 subscriptions, 1 channel, 20 MiB"
        );
    }
}

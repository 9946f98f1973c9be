//! `throng who`: who is connected, who went, and why.

use std::collections::BTreeMap;
use std::io::Write;

use throng_server::control::{self, Client, Left, Question, Search, Transport, TurnedAway, Who};

use crate::args::WhoArgs;
use crate::failure::Failure;
use crate::inspect::{named, uptime};
use crate::status::unanswered;
use crate::table::{Align, table};
use crate::text::{bytes, count, json, paragraph, thousands, visible};

pub(crate) fn run(args: &WhoArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = control::find(args.pid).map_err(unanswered)?;
    let search = Search {
        user: args.user.clone(),
        channel: args.channel.clone(),
        address: args.addr.clone(),
        slow: args.slow,
        limit: args.limit,
    };
    let who: Who = control::ask(&server, &Question::Who(search)).map_err(unanswered)?;
    if args.json {
        writeln!(out, "{}", json(&who)?)?;
    } else {
        write!(out, "{}", shown(&who))?;
    }
    Ok(())
}

fn shown(who: &Who) -> String {
    let mut text = clients(who);
    if !who.closes.left.is_empty() {
        text.push('\n');
        text.push_str(&left(&who.closes.left));
    }
    if !who.closes.turned_away.is_empty() {
        text.push('\n');
        text.push_str(&turned_away(&who.closes.turned_away));
    }
    text
}

fn clients(who: &Who) -> String {
    let shown = who.clients.len() as u64;
    let all = count(who.count, "client");
    if who.clients.is_empty() {
        return "no such client is connected\n".to_owned();
    }
    let more = if shown < who.count {
        format!(", {} shown (--limit)", thousands(shown))
    } else {
        String::new()
    };
    let columns = [
        ("user", Align::Left),
        ("client", Align::Left),
        ("for", Align::Right),
        ("by", Align::Left),
        ("waiting", Align::Right),
        ("address", Align::Left),
        ("channels", Align::Left),
    ];
    let rows: Vec<Vec<String>> = who.clients.iter().map(row).collect();
    format!("connected: {all}{more}\n{}", table(&columns, &rows))
}

fn row(client: &Client) -> Vec<String> {
    let user = if client.connected { named(&client.user) } else { "(not yet)".to_owned() };
    let transport = match client.transport {
        Transport::Websocket => "ws",
        Transport::UniWebsocket => "uni ws",
        Transport::Sse => "sse",
        Transport::UniSse => "uni sse",
        Transport::HttpStream => "stream",
        Transport::UniHttpStream => "uni stream",
        Transport::UniGrpc => "uni gRPC",
    };
    let waiting = client.waiting_bytes;
    vec![
        user,
        visible(&client.client),
        uptime(u64::from(client.for_s)),
        transport.to_owned(),
        if waiting == 0 { "-".to_owned() } else { bytes(waiting) },
        address(client.address.as_deref()),
        channels(client),
    ]
}

fn channels(client: &Client) -> String {
    if client.channel_count == 0 {
        return "-".to_owned();
    }
    let more = client.channel_count.saturating_sub(client.channels.len() as u64);
    let mut text = visible(&client.channels.join(", "));
    if more > 0 {
        text.push_str(&format!(" and {} more", thousands(more)));
    }
    text
}

fn address(address: Option<&str>) -> String {
    address.map_or_else(|| "-".to_owned(), visible)
}

/// Who went, and below it each code once in a sentence.
fn left(left: &[Left]) -> String {
    let columns = [
        ("ago", Align::Right),
        ("user", Align::Left),
        ("client", Align::Left),
        ("stayed", Align::Right),
        ("why", Align::Left),
        ("came back", Align::Left),
        ("address", Align::Left),
    ];
    let rows: Vec<Vec<String>> = left
        .iter()
        .map(|one| {
            vec![
                uptime(u64::from(one.ago_s)),
                named(&one.user),
                visible(&one.client),
                uptime(u64::from(one.stayed_s)),
                match &one.note {
                    Some(note) => {
                        format!("{} {} ({})", one.code, visible(&one.reason), visible(note))
                    }
                    None => format!("{} {}", one.code, visible(&one.reason)),
                },
                match one.came_back {
                    Some(true) => "yes".to_owned(),
                    Some(false) => "no".to_owned(),
                    None => "-".to_owned(),
                },
                address(one.address.as_deref()),
            ]
        })
        .collect();
    let mut text = format!("gone, the newest first\n{}", table(&columns, &rows));
    let why: BTreeMap<u16, &str> = left.iter().map(|one| (one.code, one.why.as_str())).collect();
    for (code, why) in why.into_iter().filter(|(_, why)| !why.is_empty()) {
        text.push_str(&format!("\n{code}\n{}\n", paragraph(&visible(why), "  ")));
    }
    text
}

fn turned_away(turned: &[TurnedAway]) -> String {
    let columns = [
        ("ago", Align::Right),
        ("HTTP", Align::Left),
        ("address", Align::Left),
        ("why", Align::Left),
    ];
    let rows: Vec<Vec<String>> = turned
        .iter()
        .map(|one| {
            vec![
                uptime(u64::from(one.ago_s)),
                one.status.to_string(),
                address(one.address.as_deref()),
                visible(&one.reason),
            ]
        })
        .collect();
    format!("refused, the newest first\n{}", table(&columns, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_server::control::Closes;

    #[test]
    fn nobody_is_one_line() {
        let who = Who { count: 0, clients: vec![], closes: Closes::default() };
        assert_eq!(shown(&who), "no such client is connected\n");
    }

    #[test]
    fn clients_closes_and_refusals_are_aligned_and_each_code_is_said_once() {
        let client = Client {
            user: "ann".to_owned(),
            client: "c3".to_owned(),
            transport: Transport::Websocket,
            connected: true,
            since_unix_s: 0,
            for_s: 9,
            channel_count: 4,
            channels: vec!["news".to_owned(), "a\u{1b}".to_owned()],
            waiting_bytes: 2048,
            address: Some("192.0.2.7".to_owned()),
        };
        let left = |client: &str, came_back| Left {
            at_unix_s: 0,
            ago_s: 60,
            user: "ann".to_owned(),
            client: client.to_owned(),
            stayed_s: 7300,
            code: 3008,
            reason: "slow".to_owned(),
            why: "Too much was waiting.".to_owned(),
            note: None,
            came_back,
            address: None,
        };
        let turned = TurnedAway {
            at_unix_s: 0,
            ago_s: 5,
            status: 503,
            reason: "the server is full".to_owned(),
            address: Some("192.0.2.8".to_owned()),
        };
        let closes = Closes {
            left: vec![left("c2", Some(true)), left("c1", None)],
            turned_away: vec![turned],
        };
        assert_eq!(
            shown(&Who { count: 12, clients: vec![client], closes }),
            "connected: 12 clients, 1 shown (--limit)\n\
             user  client  for  by  waiting  address    channels\n\
             ann   c3      9 s  ws    2 KiB  192.0.2.7  news, a\\u{1b} and 2 more\n\
             \ngone, the newest first\n \
             ago  user  client  stayed  why        came back  address\n\
             60 s  ann   c2         2 h  3008 slow  yes        -\n\
             60 s  ann   c1         2 h  3008 slow  -          -\n\
             \n3008\n  Too much was waiting.\n\
             \nrefused, the newest first\n\
             ago  HTTP  address    why\n\
             5 s  503   192.0.2.8  the server is full\n"
        );
    }
}

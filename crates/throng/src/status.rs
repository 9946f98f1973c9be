//! `throng status`: how a server on this machine is.

use std::io::Write;

use throng_limits::facts::listener::listening_ports;
use throng_limits::room::nginx::Nginx;
use throng_server::control::{
    self, AskError, Backend, Cache, Clients, Question, Slow, Status, Tokens,
};

use crate::args::StatusArgs;
use crate::failure::Failure;
use crate::inspect::uptime;
use crate::table::{Align, table};
use crate::text::{bytes, count, thousands, visible};

pub(crate) fn run(args: &StatusArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = control::find(args.pid).map_err(unanswered)?;
    let status: Status = control::ask(&server, &Question::Status).map_err(unanswered)?;
    if args.json {
        writeln!(out, "{}", crate::text::json(&status)?)?;
    } else {
        let ahead = Nginx::in_front_of(&listening_ports(status.pid));
        write!(out, "{}", shown(&status, ahead.as_ref()))?;
    }
    if status.healthy { Ok(()) } else { Err(Failure::found(String::new())) }
}

/// A server that is not there or does not answer could not be asked.
pub(crate) fn unanswered(error: AskError) -> Failure {
    Failure::could_not_run(error.to_string())
}

fn shown(status: &Status, ahead: Option<&Nginx>) -> String {
    let mut text = if status.healthy {
        "healthy\n".to_owned()
    } else {
        format!("NOT HEALTHY: {}\n", visible(&status.reasons.join("; ")))
    };
    let facts = [
        ("server", server(status)),
        ("clients", clients(&status.clients)),
        ("slow now", slow(status.slow.as_ref())),
        ("publishing", publishing(status)),
        ("shards", shards(status)),
        ("log", log(status.log_lines_dropped)),
    ];
    text.push('\n');
    let ahead = ahead.and_then(|nginx| Some(("in front", narrow(nginx, &status.clients)?)));
    for (name, fact) in facts.into_iter().chain(ahead) {
        text.push_str(&format!("{name:<11} {fact}\n"));
    }
    for backend in &status.backends {
        text.push_str(&format!("{:<11} {}\n", "backend", self::backend(backend)));
    }
    if let Some(cache) = &status.cache {
        text.push_str(&format!("{:<11} {}\n", "cache", self::cache(cache)));
    }
    if let Some(tokens) = &status.tokens {
        text.push_str(&format!("{:<11} {}\n", "tokens", self::tokens(tokens)));
    }
    let closed = status.closed.iter().map(|one| {
        let name = format!("{} {}", one.code, one.name);
        (name, one.last_10_min, one.since_start)
    });
    text.push_str(&counted("closed", closed));
    let refused = status.refused.iter();
    let refused = refused.map(|one| (one.reason.clone(), one.last_10_min, one.since_start));
    text.push_str(&counted("refused", refused));
    text
}

fn server(status: &Status) -> String {
    format!(
        "{} (throng {}), pid {}, up {}",
        visible(&status.name),
        visible(&status.version),
        status.pid,
        uptime(status.uptime_s)
    )
}

fn clients(clients: &Clients) -> String {
    let Clients { open, ceiling, connection_limit, descriptors } = *clients;
    let limited = connection_limit > 0 && connection_limit < ceiling;
    let most = if limited { connection_limit } else { ceiling };
    let because = if limited {
        "client.connection_limit".to_owned()
    } else {
        format!("within {} descriptors", thousands(descriptors))
    };
    let room = most.saturating_sub(open);
    let (open, most, room) = (thousands(open), thousands(most), thousands(room));
    format!("{open} of {most} ({because}), room for {room} more")
}

/// An nginx in front that has less room than the server itself.
fn narrow(nginx: &Nginx, clients: &Clients) -> Option<String> {
    let fit = nginx.clients().saturating_mul(nginx.workers);
    (fit < clients.ceiling).then(|| visible(&format!("{nginx}; to have more, {}", nginx.fix())))
}

fn slow(slow: Option<&Slow>) -> String {
    let Some(slow) = slow else { return "unknown: a shard does not answer".to_owned() };
    if slow.clients == 0 {
        return "none".to_owned();
    }
    let waiting = bytes(slow.waiting_bytes);
    let mut text = format!("{}, {waiting} waiting", count(slow.clients, "client"));
    for worst in &slow.worst {
        let user = crate::inspect::named(&worst.user);
        let waiting = bytes(worst.waiting_bytes);
        text.push_str(&format!("\n{:<11} {waiting:>10}  {user}  {}", "", visible(&worst.client)));
    }
    text
}

fn publishing(status: &Status) -> String {
    let published = &status.published;
    let total = thousands(published.since_start);
    format!("{:.1} a second, {total} since the start", published.per_second)
}

fn shards(status: &Status) -> String {
    // A shard looks at the clock once a second; beside a busy machine it may be late by some.
    let silent = status.shards.iter().filter(|shard| shard.silent_s > 3);
    let silent: Vec<String> =
        silent.map(|s| format!("shard {} silent for {} s", s.shard, s.silent_s)).collect();
    let all = count(status.shards.len() as u64, "shard");
    if silent.is_empty() { format!("{all}, alive") } else { silent.join(", ") }
}

fn backend(backend: &Backend) -> String {
    let Backend { option, endpoint, failed, refused, p50_ms, p99_ms, .. } = backend;
    let mut text = format!("{} at {}: ", visible(option), visible(endpoint));
    text.push_str(&count(backend.calls, "call"));
    for (number, what) in [(failed, "failed"), (refused, "said no")] {
        if *number > 0 {
            text.push_str(&format!(", {} {what}", thousands(*number)));
        }
    }
    if let Some((p50, p99)) = p50_ms.zip(*p99_ms) {
        text.push_str(&format!("; half of them within {}, 99% within {}", ms(p50), ms(p99)));
    }
    let (now, max) = (thousands(backend.under_way), thousands(backend.max_in_flight));
    text.push_str(&format!("; {now} of {max} under way"));
    if backend.waiting > 0 {
        text.push_str(&format!(", {} waiting", thousands(backend.waiting)));
    }
    if let Some(failure) = &backend.last_failure {
        let (ago, why) = (uptime(failure.ago_s), visible(&failure.why));
        let now = if backend.failing { "FAILING, last" } else { "last failure" };
        text.push_str(&format!("\n{:<11} {now} {ago} ago: it {why}", ""));
    }
    text
}

fn ms(ms: f64) -> String {
    if ms < 1.0 { "1 ms".to_owned() } else { format!("{ms:.0} ms") }
}

fn cache(cache: &Cache) -> String {
    let Cache { hits, misses, kept, bytes: size } = *cache;
    let (hits, size) = (thousands(hits), bytes(size));
    let (asked, kept) = (thousands(misses), count(kept, "answer"));
    format!("{hits} clients answered from it, {asked} asked about; {kept} kept ({size})")
}

fn tokens(tokens: &Tokens) -> String {
    let Tokens { genuine, forged, unknown, gone: _, waiting, fetches, fetches_failed } = *tokens;
    let mut text = format!("{} checked", thousands(genuine + forged));
    for (count, what) in
        [(forged, "refused"), (unknown, "without a key to check them"), (waiting, "waiting")]
    {
        if count > 0 {
            text.push_str(&format!(", {} {what}", thousands(count)));
        }
    }
    if fetches > 0 {
        text.push_str(&format!("; keys fetched {} times", thousands(fetches)));
    }
    if fetches_failed > 0 {
        text.push_str(&format!(", {} of them in vain", thousands(fetches_failed)));
    }
    text
}

fn log(dropped: u64) -> String {
    if dropped == 0 {
        return "no line dropped".to_owned();
    }
    format!("{} dropped: its reader does not keep up", count(dropped, "line"))
}

fn counted(title: &str, rows: impl Iterator<Item = (String, u64, u64)>) -> String {
    let rows: Vec<Vec<String>> = rows
        .map(|(name, lately, total)| vec![visible(&name), thousands(lately), thousands(total)])
        .collect();
    if rows.is_empty() {
        return format!("{title:<11} none\n");
    }
    let columns = [(title, Align::Left), ("10 min", Align::Right), ("since start", Align::Right)];
    format!("\n{}", table(&columns, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_limits::facts::OpenFiles;
    use throng_limits::facts::nginx::Config;
    use throng_server::control::{
        BackendFailure, Client, Closed, Published, Shard, Transport, Turned,
    };

    fn status() -> Status {
        Status {
            healthy: true,
            reasons: vec![],
            pid: 71,
            name: "host_8000".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_s: 7300,
            clients: Clients { open: 1200, ceiling: 5000, connection_limit: 0, descriptors: 5120 },
            slow: Some(Slow { clients: 0, waiting_bytes: 0, worst: vec![] }),
            published: Published { since_start: 12_000, per_second: 2.46 },
            closed: vec![],
            refused: vec![],
            shards: vec![Shard { shard: 0, silent_s: 0 }, Shard { shard: 1, silent_s: 1 }],
            log_lines_dropped: 0,
            backends: vec![],
            cache: None,
            tokens: None,
        }
    }

    #[test]
    fn a_healthy_server_is_a_short_screen() {
        assert_eq!(
            shown(&status(), None),
            "healthy\n\n\
             server      host_8000 (throng 0.1.0), pid 71, up 2 h\n\
             clients     1,200 of 5,000 (within 5,120 descriptors), room for 3,800 more\n\
             slow now    none\n\
             publishing  2.5 a second, 12,000 since the start\n\
             shards      2 shards, alive\n\
             log         no line dropped\n\
             closed      none\n\
             refused     none\n"
        );
    }

    #[test]
    fn a_narrow_nginx_in_front_is_said_with_its_fix() {
        let limit = OpenFiles { soft: 1024, hard: 524_288 };
        let nginx = Nginx {
            pid: 7,
            config: Config::default(),
            workers: 2,
            limit,
            fullest: 9,
            reach: limit.hard,
            reload: "nginx -s reload".to_owned(),
        };
        let text = shown(&status(), Some(&nginx));
        let line = text.lines().find_map(|line| line.strip_prefix("in front    ")).unwrap();
        assert!(line.starts_with("nginx, pid 7, has worker_connections 512 (nobody"), "{line}");
        assert!(line.contains("256 clients") && line.ends_with("nginx -s reload"), "{line}");
        let wide = Nginx { workers: 20, ..nginx };
        assert!(!shown(&status(), Some(&wide)).contains("in front"));
    }

    #[test]
    fn what_is_wrong_stands_first_and_counts_are_aligned() {
        let slow = Client {
            user: "ann".to_owned(),
            client: "c1".to_owned(),
            transport: Transport::Websocket,
            connected: true,
            since_unix_s: 0,
            for_s: 9,
            channel_count: 0,
            channels: vec![],
            waiting_bytes: 600_000,
            address: None,
        };
        let (one, two) = ("slow".to_owned(), "the server is full".to_owned());
        let status = Status {
            healthy: false,
            reasons: vec!["the server is full: new clients are refused".to_owned()],
            clients: Clients { connection_limit: 1200, ..status().clients },
            slow: Some(Slow { clients: 1, waiting_bytes: 600_000, worst: vec![slow] }),
            closed: vec![Closed { code: 3008, name: one, last_10_min: 2, since_start: 1300 }],
            refused: vec![Turned { reason: two, last_10_min: 10_000, since_start: 10_000 }],
            shards: vec![Shard { shard: 0, silent_s: 30 }],
            log_lines_dropped: 1,
            ..status()
        };
        assert_eq!(
            shown(&status, None),
            "NOT HEALTHY: the server is full: new clients are refused\n\n\
             server      host_8000 (throng 0.1.0), pid 71, up 2 h\n\
             clients     1,200 of 1,200 (client.connection_limit), room for 0 more\n\
             slow now    1 client, 586 KiB waiting\n               586 KiB  ann  c1\n\
             publishing  2.5 a second, 12,000 since the start\n\
             shards      shard 0 silent for 30 s\n\
             log         1 line dropped: its reader does not keep up\n\
             \nclosed     10 min  since start\n\
             3008 slow       2        1,300\n\
             \nrefused             10 min  since start\n\
             the server is full  10,000       10,000\n"
        );
    }

    #[test]
    fn a_backend_is_a_line_with_its_last_failure_below() {
        let mut one = Backend {
            option: "client.proxy.connect".to_owned(),
            endpoint: "http://127.0.0.1:3000/connect".to_owned(),
            calls: 1200,
            failed: 0,
            refused: 0,
            p50_ms: Some(3.6),
            p99_ms: Some(0.2),
            under_way: 2,
            waiting: 0,
            max_in_flight: 256,
            last_failure: None,
            failing: false,
        };
        assert_eq!(
            backend(&one),
            "client.proxy.connect at http://127.0.0.1:3000/connect: 1,200 calls; half of them within \
             4 ms, 99% within 1 ms; 2 of 256 under way"
        );
        (one.failed, one.refused, one.waiting, one.p50_ms) = (3, 1, 9, None);
        let why = "did not answer within 1s".to_owned();
        one.last_failure = Some(BackendFailure { ago_s: 12, why });
        one.failing = true;
        assert_eq!(
            backend(&one),
            "client.proxy.connect at http://127.0.0.1:3000/connect: 1,200 calls, 3 failed, 1 said no; \
             2 of 256 under way, 9 waiting\n            FAILING, last 12 s ago: it did not answer within 1s"
        );
        let kept = Cache { hits: 9900, misses: 100, kept: 1, bytes: 2048 };
        assert_eq!(
            cache(&kept),
            "9,900 clients answered from it, 100 asked about; 1 answer kept (2 KiB)"
        );
    }
}

//! `throng probe`: one client, step by step, and what to do about the first step that fails.

mod advice;
mod nginx;
mod tls;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use throng_load::Target;
use throng_load::client::{Client, ClientError, Manner, Stream};
use throng_server::{PROBE_HEADER, SEEN_HEADER};

use crate::args::ProbeArgs;
use crate::failure::Failure;
use crate::text::{paragraph, visible};

/// How long each step may take; who waits longer has given up.
const STEP_PATIENCE: Duration = Duration::from_secs(10);
/// Where throng's clients connect if nothing else is set.
const PATH: &str = "/connection/websocket";

/// What a client goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Name,
    Tcp,
    Tls,
    Upgrade,
    Origin,
    Address,
    Connect,
    Hold,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Origin => "origin",
            Self::Address => "address",
            Self::Connect => "connect",
            Self::Hold => "hold",
        }
    }
}

/// A step that was gone through.
#[derive(Debug)]
struct Passed {
    step: Step,
    said: String,
    took: Duration,
}

/// The step that failed.
#[derive(Debug, PartialEq, Eq)]
struct Stopped {
    step: Step,
    said: String,
    advice: String,
}

pub(crate) fn run(args: &ProbeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let url = normal(&args.url)?;
    let headers = headers(args)?;
    let mut report = Report { args, out, passed: Vec::new() };
    let walked = walk(&url, &headers, &mut report)?;
    if args.json {
        let answer = as_json(&url, &report.passed, walked.as_ref().err());
        writeln!(report.out, "{answer}")?;
    } else {
        report.end(walked.as_ref().err())?;
    }
    if walked.is_ok() { Ok(()) } else { Err(Failure::found(String::new())) }
}

/// The URL as a WebSocket's: a scheme and a path where they were left out.
fn normal(url: &str) -> Result<String, Failure> {
    let bad = |why: &str| Failure::could_not_run(format!("{}: {why}", visible(url)));
    if url.contains(|c: char| c.is_control() || c == ' ') {
        return Err(bad("not the URL of a server"));
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        // Who leaves the scheme out and names the port of TLS means it.
        "" if rest.split(['/', '?']).next().is_some_and(|place| place.ends_with(":443")) => "wss",
        "" => "ws",
        _ => return Err(bad("not the URL of a server; write for example ws://127.0.0.1:8000")),
    };
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_at);
    let (path, query) = path.split_once('?').map_or((path, ""), |(path, query)| (path, query));
    let path = if path.is_empty() || path == "/" { PATH } else { path };
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    Ok(format!("{scheme}://{authority}{path}{query}"))
}

fn headers(args: &ProbeArgs) -> Result<String, Failure> {
    let mut headers = format!("{PROBE_HEADER}: 1\r\n");
    for (name, value) in [("Origin", &args.origin), ("Cookie", &args.cookie)] {
        let Some(value) = value else { continue };
        if value.contains(char::is_control) {
            return Err(Failure::could_not_run(format!("{name} must not have a line break in it")));
        }
        headers.push_str(&format!("{name}: {value}\r\n"));
    }
    Ok(headers)
}

/// Goes through all steps, or up to the first that fails.
fn walk(url: &str, headers: &str, report: &mut Report<'_>) -> Result<Result<(), Stopped>, Failure> {
    let args = report.args;
    let begun = Instant::now();
    let is_secure = url.starts_with("wss://");
    let target = if is_secure { Target::secure_websocket(url) } else { Target::websocket(url) };
    let target = match target {
        Ok(target) => target,
        // What is no URL cannot be tried; a name without an address is a step that failed.
        Err(failure) if failure.what.starts_with("cannot find the host") => {
            return Ok(Err(Stopped {
                step: Step::Name,
                said: format!("{}: {}", failure.what, failure.why),
                advice: advice::NAME.to_owned(),
            }));
        }
        Err(failure) => return Err(Failure::could_not_run(failure.to_string())),
    };
    let Target { host, address, .. } = &target;
    report.pass(Step::Name, format!("{host} is {}", address.ip()), begun.elapsed())?;

    let begun = Instant::now();
    let stream = match TcpStream::connect_timeout(address, STEP_PATIENCE) {
        Ok(stream) => stream,
        Err(error) => {
            let advice = advice::tcp(error.kind(), *address);
            return Ok(Err(Stopped { step: Step::Tcp, said: error.to_string(), advice }));
        }
    };
    report.pass(Step::Tcp, format!("connected to {address}"), begun.elapsed())?;

    let stream: Box<dyn Stream> = match secured(stream, &target, is_secure, report)? {
        Ok(stream) => stream,
        Err(stopped) => return Ok(Err(stopped)),
    };
    let begun = Instant::now();
    let manner =
        Manner { timeout: STEP_PATIENCE, headers: headers.to_owned(), ..Manner::default() };
    let mut client = match Client::over(stream, &target, &manner) {
        Ok(client) => client,
        Err(error) => {
            return Ok(Err(nginx::is_full(&error, *address)
                .unwrap_or_else(|| advice::upgrade(&error, args, &target))));
        }
    };
    report.pass(Step::Upgrade, "it is a WebSocket".to_owned(), begun.elapsed())?;
    let origin = match &args.origin {
        Some(origin) => format!("{} may connect", visible(origin)),
        None => "none sent; try your page's with --origin https://example.com".to_owned(),
    };
    report.pass(Step::Origin, origin, Duration::ZERO)?;
    let seen = advice::seen(client.header(&SEEN_HEADER.to_ascii_lowercase()));
    report.pass(Step::Address, seen, Duration::ZERO)?;
    let done = greet_and_hold(&mut client, report)?;
    if done.is_ok() {
        client.close();
    }
    Ok(done)
}

/// The connection, within TLS where the URL wants it.
fn secured(
    stream: TcpStream,
    target: &Target,
    is_secure: bool,
    report: &mut Report<'_>,
) -> Result<Result<Box<dyn Stream>, Stopped>, Failure> {
    if !is_secure {
        return Ok(Ok(Box::new(stream)));
    }
    let roots = tls::authorities(report.args.ca.as_deref())?;
    let begun = Instant::now();
    match tls::handshake(stream, &target.host, roots, STEP_PATIENCE) {
        Ok(secured) => {
            let said = format!("{}, the certificate is good", secured.version());
            report.pass(Step::Tls, said, begun.elapsed())?;
            Ok(Ok(Box::new(secured)))
        }
        Err(trouble) => {
            let (said, advice) = tls::explain(&trouble, &target.host, target.port);
            Ok(Err(Stopped { step: Step::Tls, said, advice }))
        }
    }
}

/// The connect command, and what comes after it.
fn greet_and_hold(
    client: &mut Client,
    report: &mut Report<'_>,
) -> Result<Result<(), Stopped>, Failure> {
    let args = report.args;
    let begun = Instant::now();
    let token = args.token.as_deref().unwrap_or_default();
    let reply = match client.greet(token, STEP_PATIENCE) {
        Ok(reply) => reply,
        Err(error) => return Ok(Err(advice::connect(&error, args))),
    };
    report.pass(Step::Connect, greeted(&reply), begun.elapsed())?;
    if args.hold == 0 {
        return Ok(Ok(()));
    }
    let begun = Instant::now();
    if let Err(error) = hold(client, Duration::from_secs(args.hold)) {
        return Ok(Err(advice::hold(&error, begun.elapsed())));
    }
    report.pass(Step::Hold, "still connected, every ping answered".to_owned(), begun.elapsed())?;
    Ok(Ok(()))
}

fn greeted(reply: &Value) -> String {
    let text = |name: &str| visible(reply[name].as_str().unwrap_or_default());
    let pings = match reply["ping"].as_u64() {
        Some(seconds) if seconds > 0 => format!("pings every {seconds} s"),
        _ => "no pings".to_owned(),
    };
    format!("accepted as client {} by {}, {pings}", text("client"), text("version"))
}

/// Stays connected and says nothing but answers to pings.
fn hold(client: &mut Client, patience: Duration) -> Result<(), ClientError> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        // What is published meanwhile is none of ours.
        client.next_line(left)?;
    }
}

/// Prints each step as it is passed.
struct Report<'a> {
    args: &'a ProbeArgs,
    out: &'a mut dyn Write,
    passed: Vec<Passed>,
}

impl Report<'_> {
    fn pass(&mut self, step: Step, said: String, took: Duration) -> Result<(), Failure> {
        if !self.args.json {
            writeln!(self.out, "✓ {:<8} {:>9}  {said}", step.name(), shown_time(took))?;
            self.out.flush()?;
        }
        self.passed.push(Passed { step, said, took });
        Ok(())
    }

    fn end(&mut self, stopped: Option<&Stopped>) -> Result<(), Failure> {
        match stopped {
            Some(Stopped { step, said, advice }) => {
                writeln!(self.out, "✗ {:<8} {:>9}  {said}\n\n{advice}", step.name(), "")?;
            }
            None if self.args.hold == 0 => {
                writeln!(self.out, "\nA client can connect. Whether it stays connected: --hold 65")?
            }
            None => writeln!(self.out, "\nA client can connect, and stays connected.")?,
        }
        Ok(())
    }
}

fn shown_time(took: Duration) -> String {
    match took.as_micros() {
        0 => String::new(),
        1..1000 => "<1 ms".to_owned(),
        1000..10_000_000 => format!("{} ms", took.as_millis()),
        _ => format!("{} s", took.as_secs()),
    }
}

fn as_json(url: &str, passed: &[Passed], stopped: Option<&Stopped>) -> Value {
    let steps: Vec<Value> = passed
        .iter()
        .map(|one| {
            let ms = one.took.as_secs_f64() * 1000.0;
            json!({"step": one.step.name(), "said": one.said, "ms": ms})
        })
        .collect();
    let failure = stopped.map(
        |one| json!({"step": one.step.name(), "said": one.said, "advice": one.advice.trim_end()}),
    );
    json!({"url": url, "ok": stopped.is_none(), "passed": steps, "failure": failure})
}

/// Advice in lines, and below it what to write, as it stands.
fn advise(text: &str, lines: &[&str]) -> String {
    let mut advice = paragraph(text, "");
    if !lines.is_empty() {
        advice.push('\n');
    }
    for line in lines {
        advice.push_str("\n    ");
        advice.push_str(line);
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_leave_out_what_is_usual() {
        let good = |url| normal(url).unwrap();
        assert_eq!(good("127.0.0.1:8000"), "ws://127.0.0.1:8000/connection/websocket");
        assert_eq!(good("http://a/"), "ws://a/connection/websocket");
        assert_eq!(good("ws://a/push?x=1"), "ws://a/push?x=1");
        assert_eq!(good("a?x=/"), "ws://a/connection/websocket?x=/");
        assert_eq!(good("https://a"), "wss://a/connection/websocket");
        assert_eq!(good("WSS://a:1/x"), "wss://a:1/x");
        assert_eq!(good("a:443"), "wss://a:443/connection/websocket");
        assert_eq!(good("a:4430/x:443"), "ws://a:4430/x:443");
        assert_eq!(normal("a\r\nX: y").unwrap_err().status, 2);
        assert_eq!(normal("ftp://a").unwrap_err().status, 2);
    }

    #[test]
    fn times_are_short() {
        let shown = |us| shown_time(Duration::from_micros(us));
        assert_eq!([shown(0), shown(3), shown(12_000)], ["", "<1 ms", "12 ms"]);
        assert_eq!(shown(65_200_000), "65 s");
    }
}

//! `throng backend try`: one question to the application, asked as the server would ask it.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use throng_server::backend::{Came, Kind, NoTrial, Outcome, Sent, Tried, Trying, attempt};

use crate::args::{Question, TryArgs};
use crate::config;
use crate::failure::Failure;
use crate::text::{paragraph, visible};

/// Bytes of an answer that are shown to a person; a page of HTML says what it is by then.
const BODY_SHOWN_MAX: usize = 4096;

pub(crate) fn run(args: &TryArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let trying = trying(args)?;
    let loaded = config::load(args.config.as_deref());
    let Some(settings) = &loaded.settings else { return Err(config::unusable(&loaded)) };
    let tried = attempt(settings, &trying).map_err(|why| untried(why, trying.kind))?;
    if args.json {
        writeln!(out, "{}", as_json(&tried))?;
    } else {
        write!(out, "{}", shown(&tried, &trying))?;
    }
    match tried.verdict.outcome {
        Outcome::Accepted => Ok(()),
        Outcome::Refused | Outcome::Broken => Err(Failure::found("")),
    }
}

fn trying(args: &TryArgs) -> Result<Trying, Failure> {
    let kind = match args.question {
        Question::Connect => Kind::Connect,
        Question::Refresh => Kind::Refresh,
        Question::Subscribe => Kind::Subscribe,
        Question::Publish => Kind::Publish,
        Question::Rpc => Kind::Rpc,
        Question::SubRefresh => Kind::SubRefresh,
    };
    let of_channel = matches!(kind, Kind::Subscribe | Kind::Publish | Kind::SubRefresh);
    let with_data = !matches!(kind, Kind::Refresh | Kind::SubRefresh);
    let name = kind.name();
    // What a question does not have must not look as if it had been asked.
    for (flag, is_given, belongs) in [
        ("--user", args.user.is_some(), kind != Kind::Connect),
        ("--channel", args.channel.is_some(), of_channel),
        ("--method", args.method.is_some(), kind == Kind::Rpc),
        ("--data", args.data.is_some(), with_data),
    ] {
        if is_given && !belongs {
            let why = if kind == Kind::Connect && flag == "--user" {
                "; who the user is, is what it asks".to_owned()
            } else {
                String::new()
            };
            return Err(Failure::could_not_run(format!("the question {name} has no {flag}{why}")));
        }
    }
    for (flag, is_given, is_needed) in [
        ("--channel CHANNEL", args.channel.is_some(), of_channel),
        ("--method METHOD", args.method.is_some(), kind == Kind::Rpc),
        ("--data JSON", args.data.is_some(), kind == Kind::Publish),
    ] {
        if is_needed && !is_given {
            return Err(Failure::could_not_run(format!("the question {name} needs {flag}")));
        }
    }
    let mut headers = Vec::new();
    if let Some(cookie) = &args.cookie {
        headers.push(("Cookie".to_owned(), cookie.clone()));
    }
    for header in &args.headers {
        let (name, value) = header.split_once(':').ok_or_else(|| {
            let header = visible(header);
            Failure::could_not_run(format!("{header}: write a header as 'Name: value'"))
        })?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(Trying {
        kind,
        address: args.addr,
        headers,
        data: args.data.clone(),
        user: args.user.clone().unwrap_or_default(),
        channel: args.channel.clone(),
        method: args.method.clone(),
    })
}

fn untried(why: NoTrial, kind: Kind) -> Failure {
    Failure::could_not_run(match why {
        NoTrial::Wrong(what) => visible(&what),
        NoTrial::Off { option, sample } => {
            let lines = sample.lines().map(|line| {
                if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }
            });
            let what = format!(
                "there is nobody to ask: {} is off, so a server with this configuration asks no {} \
                 backend. To switch it on, with your application's address:",
                visible(&option),
                kind.name()
            );
            let lines = lines.collect::<String>();
            format!("{}\n\n{}", paragraph(&what, ""), lines.trim_end_matches('\n'))
        }
    })
}

fn shown(tried: &Tried, trying: &Trying) -> String {
    let Tried { endpoint, option, sent, held_back, came, took, verdict, .. } = tried;
    let mut text = format!(
        "asks {} ({option}) about a client at {}:\n\n{}",
        visible(endpoint),
        trying.address,
        request(sent)
    );
    for (name, why) in held_back {
        text.push_str(&format!("\nnot passed on: {} ({why})", visible(name)));
    }
    if !held_back.is_empty() {
        text.push('\n');
    }
    let took = shown_time(*took);
    match came {
        Ok(came) => text.push_str(&format!("\nanswer after {took}:\n\n{}", answer(came))),
        Err(why) => text.push_str(&format!("\nno answer: after {took} it {}\n", visible(why))),
    }
    let word = match verdict.outcome {
        Outcome::Accepted => "ACCEPTED",
        Outcome::Refused => "REFUSED",
        Outcome::Broken => "BROKEN",
    };
    text.push_str(&format!(
        "\n{}\n",
        paragraph(&visible(&format!("{word}: {}", verdict.text)), "")
    ));
    for advice in &verdict.advice {
        text.push_str(&format!("\n{}\n", paragraph(&visible(advice), "  ")));
    }
    text
}

fn request(sent: &Sent) -> String {
    let lines = std::iter::once(sent.line.clone());
    let headers = sent.headers.iter().map(|(name, value)| format!("{name}: {value}"));
    indented(lines.chain(headers), &sent.body)
}

fn answer(came: &Came) -> String {
    let lines = std::iter::once(format!("status {}", came.status));
    let headers = came.headers.iter().map(|(name, value)| format!("{name}: {value}"));
    let mut end = came.body.len().min(BODY_SHOWN_MAX);
    while !came.body.is_char_boundary(end) {
        end -= 1;
    }
    let mut text = indented(lines.chain(headers), &came.body[..end]);
    if end < came.body.len() {
        let more = crate::text::bytes((came.body.len() - end) as u64);
        text.push_str(&format!("    … and {more} more\n"));
    }
    text
}

fn indented(head: impl Iterator<Item = String>, body: &str) -> String {
    let mut text: String = head.map(|line| format!("    {}\n", visible(&line))).collect();
    if !body.is_empty() {
        text.push('\n');
    }
    for line in body.lines() {
        text.push_str(&format!("    {}\n", visible(line)));
    }
    text
}

fn shown_time(took: Duration) -> String {
    if took.as_millis() == 0 {
        "less than 1 ms".to_owned()
    } else {
        format!("{} ms", took.as_millis())
    }
}

fn as_json(tried: &Tried) -> Value {
    let Tried { kind, endpoint, option, sent, held_back, came, took, verdict } = tried;
    let pairs =
        |list: &[(String, String)]| list.iter().map(|(a, b)| json!([a, b])).collect::<Vec<_>>();
    let outcome = match verdict.outcome {
        Outcome::Accepted => "accepted",
        Outcome::Refused => "refused",
        Outcome::Broken => "broken",
    };
    let answer = came.as_ref().ok().map(
        |came| json!({"status": came.status, "headers": pairs(&came.headers), "body": came.body}),
    );
    json!({
        "question": kind.name(),
        "endpoint": endpoint,
        "option": option,
        "request": {"line": sent.line, "headers": pairs(&sent.headers), "body": sent.body},
        "not_passed_on": held_back.iter().map(|(name, why)| json!({"name": name, "why": why}))
            .collect::<Vec<_>>(),
        "answer": answer,
        "failure": came.as_ref().err(),
        "ms": took.as_secs_f64() * 1000.0,
        "verdict": {
            "outcome": outcome,
            "code": verdict.code,
            "text": verdict.text,
            "advice": verdict.advice,
        },
    })
}

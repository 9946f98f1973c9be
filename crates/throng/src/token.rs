//! `throng token`: makes a token as the application would, and says whether one is accepted.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use serde_json::json;
use throng_server::config::{Settings, parse_duration};
use throng_server::token::{Algorithm, Judged, PrivateKey, Signer, judge};

use crate::args::TokenArgs;
use crate::config;
use crate::failure::Failure;
use crate::text::visible;

/// A token is no longer than this.
const INPUT_BYTES_MAX: u64 = 128 * 1024;

pub(crate) fn run(args: &TokenArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let ttl = parse_ttl(&args.ttl).ok_or_else(|| {
        let given = &args.ttl;
        Failure::could_not_run(format!("--ttl {given}: not a duration; write 1h, 30m or 45s"))
    })?;
    let loaded = config::load(args.config.as_deref());
    let Some(settings) = &loaded.settings else { return Err(config::unusable(&loaded)) };
    let now = unix_s();
    if let Some(token) = &args.check {
        return check(settings, token, now, args.json, out);
    }
    let wanted = (args.user.as_deref().unwrap_or_default(), args.channel.as_deref());
    if let (false, Some(channel)) = (args.track.is_empty(), wanted.1) {
        let keys: Vec<&str> = args.track.iter().map(String::as_str).collect();
        let made = settings.shared_poll.sign((wanted.0, channel), &keys, ttl, now);
        let made = made.map_err(|what| {
            Failure::could_not_run(format!("{what}. Name the server's configuration with -c FILE"))
        })?;
        if args.json {
            writeln!(out, "{}", json!({"signature": made, "keys": keys}))?;
        } else {
            writeln!(out, "{made}")?;
        }
        return Ok(());
    }
    let made = match &args.private_key {
        None => make(settings, wanted.0, wanted.1, ttl, now).map_err(|what| {
            Failure::could_not_run(format!(
                "{what}. Name the server's configuration with -c FILE, or start one: throng config \
                 init --origin URL; or sign with a private key: --private-key FILE"
            ))
        })?,
        Some(file) => {
            let failed =
                |what: String| Failure::could_not_run(format!("{}: {what}", file.display()));
            let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
            let key = PrivateKey::from_pem(&text).map_err(failed)?;
            let algorithm = match args.alg.as_deref() {
                None => None,
                Some(name) => Some(Algorithm::named(name).ok_or_else(|| {
                    Failure::could_not_run(format!("--alg {name}: write RS256, RS384 or RS512"))
                })?),
            };
            let signer = Signer::Key { key: &key, algorithm, kid: args.kid.as_deref() };
            sign(settings, wanted, ttl, now, signer).map_err(failed)?
        }
    };
    if args.json {
        let expires_at = ttl.map(|ttl| now.saturating_add_unsigned(ttl.as_secs()));
        writeln!(out, "{}", json!({"token": made, "expires_at": expires_at}))?;
    } else {
        writeln!(out, "{made}")?;
    }
    Ok(())
}

/// A token that a server with these settings accepts.
pub(crate) fn make(
    settings: &Settings,
    user: &str,
    channel: Option<&str>,
    ttl: Option<Duration>,
    now: i64,
) -> Result<String, String> {
    sign(settings, (user, channel), ttl, now, Signer::Secret)
}

fn sign(
    settings: &Settings,
    (user, channel): (&str, Option<&str>),
    ttl: Option<Duration>,
    now: i64,
    signer: Signer<'_>,
) -> Result<String, String> {
    let keys = &settings.client.token;
    let made = match channel {
        None => keys.issue_connection(user, ttl, now, signer),
        Some(channel) => {
            let keys = settings.client.subscription_token.as_ref().unwrap_or(keys);
            keys.issue_subscription((user, channel), ttl, now, signer)
        }
    };
    made.map_err(|error| error.to_string())
}

/// Says what the server would make of a token. Found guilty, the status is 1.
fn check(
    settings: &Settings,
    given: &str,
    now: i64,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut token = given.to_owned();
    if token == "-" {
        token.clear();
        std::io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut token)?;
    }
    let judged = judge(settings, token.trim(), now);
    if as_json {
        let facts: serde_json::Map<_, _> =
            judged.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let refused = judged.verdict.as_ref().err();
        let answer = json!({
            "accepted": refused.is_none(),
            "code": refused.map(|refused| refused.code),
            "why": refused.map(|refused| &refused.why),
            "expires_at": judged.expires_at,
            "facts": facts,
            "remarks": judged.remarks,
        });
        writeln!(out, "{answer}")?;
    } else {
        write!(out, "{}", screen(&judged, now))?;
    }
    if judged.verdict.is_ok() { Ok(()) } else { Err(Failure::found(String::new())) }
}

fn screen(judged: &Judged, now: i64) -> String {
    let mut text = match &judged.verdict {
        Ok(()) => "accepted\n".to_owned(),
        Err(refused) => {
            let (code, why) = (refused.code, visible(&refused.why));
            format!("refused: {why}\n\nThe client sees {code}: throng explain {code}\n")
        }
    };
    if judged.facts.is_empty() {
        return text;
    }
    text.push('\n');
    for (name, value) in &judged.facts {
        text.push_str(&format!("{name:<12} {}\n", visible(value)));
    }
    if let Some(at) = judged.expires_at.filter(|at| *at > now) {
        let left = u64::try_from(at.saturating_sub(now)).unwrap_or_default();
        text.push_str(&format!("{:<12} in {}\n", "expires", crate::inspect::uptime(left)));
    }
    for remark in &judged.remarks {
        text.push_str(&format!("{:<12} {}\n", "note", visible(remark)));
    }
    text
}

pub(crate) fn unix_s() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// A duration, or seconds; zero is for ever.
fn parse_ttl(text: &str) -> Option<Option<Duration>> {
    let ttl = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => parse_duration(text)?,
    };
    Some(Some(ttl).filter(|ttl| !ttl.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_why_before_everything_else() {
        let mut settings = Settings::development();
        settings.client.token.hmac_secret_key = "secret".to_owned();
        let made = make(&settings, "42", None, Some(Duration::from_secs(60)), 1000).unwrap();
        let good = screen(&judge(&settings, &made, 1001), 1001);
        assert!(good.starts_with("accepted\n\nsigned with  HS256\n"), "{good}");
        assert!(
            good.contains("user         42\n") && good.contains("expires      in 59 s\n"),
            "{good}"
        );
        let late = screen(&judge(&settings, &made, 1063), 1063);
        let why = "refused: it expired 3 s ago\n\nThe client sees 109: throng explain 109\n";
        assert!(late.starts_with(why), "{late}");
    }

    #[test]
    fn a_ttl_is_a_duration_or_seconds_and_zero_is_for_ever() {
        let seconds = |text| parse_ttl(text).map(|ttl| ttl.map(|ttl| ttl.as_secs()));
        assert_eq!(seconds("1h"), Some(Some(3600)));
        assert_eq!(seconds("90"), Some(Some(90)));
        assert_eq!(seconds("0"), Some(None));
        assert_eq!(seconds("soon"), None);
    }
}

//! `throng token`: makes a token as the application would, with the configuration's key.

use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::json;
use throng_server::config::{Settings, parse_duration};

use crate::args::TokenArgs;
use crate::config;
use crate::failure::Failure;

pub(crate) fn run(args: &TokenArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let ttl = parse_ttl(&args.ttl).ok_or_else(|| {
        let given = &args.ttl;
        Failure::could_not_run(format!("--ttl {given}: not a duration; write 1h, 30m or 45s"))
    })?;
    let loaded = config::load(args.config.as_deref());
    let Some(settings) = &loaded.settings else { return Err(config::unusable(&loaded)) };
    let now = unix_s();
    let made = make(settings, &args.user, args.channel.as_deref(), ttl, now).map_err(|what| {
        Failure::could_not_run(format!(
            "{what}. Name the server's configuration with -c FILE, or start one: \
             throng config init --origin URL"
        ))
    })?;
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
    let keys = &settings.client.token;
    let made = match channel {
        None => keys.issue_connection(user, ttl, now),
        Some(channel) => {
            let keys = settings.client.subscription_token.as_ref().unwrap_or(keys);
            keys.issue_subscription(user, channel, ttl, now)
        }
    };
    made.map_err(|error| error.to_string())
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
    fn a_ttl_is_a_duration_or_seconds_and_zero_is_for_ever() {
        let seconds = |text| parse_ttl(text).map(|ttl| ttl.map(|ttl| ttl.as_secs()));
        assert_eq!(seconds("1h"), Some(Some(3600)));
        assert_eq!(seconds("90"), Some(Some(90)));
        assert_eq!(seconds("0"), Some(None));
        assert_eq!(seconds("soon"), None);
    }
}

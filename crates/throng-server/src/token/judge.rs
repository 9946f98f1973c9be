//! What a server would say of a token, for whoever wonders why it is not accepted.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Claims, Parts, Signature, TokenError, Way, decode_part, shown};
use crate::config::Settings;
use crate::notary::{Purpose, fetch_once};

/// A token as it is read, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Names and values, as far as it could be read. Nothing of it is proven unless it is accepted.
    pub facts: Vec<(&'static str, String)>,
    /// Unix seconds after which it is refused.
    pub expires_at: Option<i64>,
    pub verdict: Result<(), Refused>,
    /// What is no reason to refuse it, but hardly meant.
    pub remarks: Vec<String>,
}

/// Why it is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The code that a client sees: an error or a close.
    pub code: u16,
    pub why: String,
}

/// Judges a token as a server with these settings would, at this Unix second. Keys are fetched, as the
/// server would fetch them.
pub fn judge(settings: &Settings, raw: &str, now: i64) -> Judged {
    let mut judged =
        Judged { facts: Vec::new(), expires_at: None, verdict: Ok(()), remarks: Vec::new() };
    let purpose = read(&mut judged, settings, raw, now);
    let verdict = verdict(settings, purpose, raw, now);
    judged.verdict = verdict.map_err(|error| refused(error, purpose, &judged, now));
    judged
}

/// What it says of itself; which sort of token it is.
fn read(judged: &mut Judged, settings: &Settings, raw: &str, now: i64) -> Purpose {
    let mut fact = |name, value: String| judged.facts.push((name, value));
    let Ok(parts) = Parts::split(raw) else { return Purpose::Connection };
    if let Ok(json) = decode_part(parts.header, "header")
        && let Ok(header) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(&json)
    {
        for (name, label) in [("alg", "signed with"), ("kid", "key")] {
            let value =
                header.get(name).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
            if let Some(value) = value {
                fact(label, shown(vec![&value]));
            }
        }
    }
    let Ok(json) = decode_part(parts.claims, "claims") else { return Purpose::Connection };
    let Ok(claims) = serde_json::from_slice::<Claims>(&json) else { return Purpose::Connection };
    let purpose =
        if claims.channel.is_empty() { Purpose::Connection } else { Purpose::Subscription };
    let keys = purpose.keys(settings);
    fact(
        "kind",
        match purpose {
            Purpose::Connection => "connection token".to_owned(),
            Purpose::Subscription => {
                format!("subscription token for {}", shown(vec![&claims.channel]))
            }
        },
    );
    let user_claim = if keys.user_id_claim.is_empty() { "sub" } else { &keys.user_id_claim };
    match super::claim_text(&json, user_claim) {
        Ok(user) if !user.is_empty() => fact("user", shown(vec![&user])),
        _ => {
            fact("user", format!("none (anonymous): it has no {user_claim}"));
        }
    }
    if !claims.iss.is_empty() {
        fact("issuer", shown(vec![&claims.iss]));
    }
    if !claims.aud.is_empty() {
        fact("audience", shown(claims.aud.iter().map(String::as_str).collect()));
    }
    judged.expires_at = claims.exp;
    if claims.exp.is_none() && claims.expire_at.is_none() {
        judged
            .remarks
            .push("it never expires: whoever gets hold of it is let in for ever".to_owned());
    }
    // Milliseconds are a usual mistake; as seconds they are far away.
    if claims.exp.is_some_and(|exp| exp > now.saturating_mul(100)) {
        judged.remarks.push("its exp is in milliseconds; it counts seconds".to_owned());
    }
    if purpose == Purpose::Subscription
        && let Err(why) = settings.channel.resolve(&claims.channel)
    {
        judged.remarks.push(format!("its channel cannot be subscribed to: {why}"));
    }
    purpose
}

fn verdict(settings: &Settings, purpose: Purpose, raw: &str, now: i64) -> Result<(), TokenError> {
    let keys = purpose.keys(settings);
    let read = |signature| match purpose {
        Purpose::Connection => keys.connection(raw, now, signature).map(drop),
        Purpose::Subscription => keys.subscription(raw, now, signature).map(drop),
    };
    if settings.client.insecure_skip_token_signature_verify {
        return read(Signature::Skip);
    }
    let Way::Set { algorithm, url, kid } = keys.way(raw)? else { return read(Signature::Verify) };
    read(Signature::Skip)?;
    let set = fetch_once(&url)
        .map_err(|why| TokenError::Unchecked(format!("its key cannot be fetched: {url} {why}")))?;
    let key = set.get(&kid).ok_or_else(|| {
        let known: Vec<&str> = set.kids().take(8).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let mut why = format!("its key is not at {url}, which has {known}");
        if let Some(left_out) = set.left_out.first() {
            why.push_str(&format!(" ({left_out})"));
        }
        TokenError::Invalid(why)
    })?;
    super::Token::verify_with(raw, algorithm, key)
}

fn refused(error: TokenError, purpose: Purpose, judged: &Judged, now: i64) -> Refused {
    match error {
        TokenError::Expired => {
            let why = match judged.expires_at {
                Some(at) if at <= now => format!("it expired {} ago", span(now - at)),
                _ => {
                    "it is not valid yet: its nbf is in the future, or a clock is wrong".to_owned()
                }
            };
            Refused { code: 109, why }
        }
        TokenError::Invalid(why) => {
            let code = if purpose == Purpose::Connection { 3500 } else { 103 };
            Refused { code, why }
        }
        TokenError::Unchecked(why) => Refused { code: 100, why },
        TokenError::Busy => Refused { code: 111, why: error.to_string() },
    }
}

/// Such as `3 s`, `2 min` or `5 h`.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

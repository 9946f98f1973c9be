//! Tokens that are good, expired, forged, and meant for something else.

use serde_json::{Value, json};

use super::*;
use crate::config::ChannelOptions;

mod judging;
mod public;

const NOW: i64 = 1_800_000_000;
const KEY: &str = "a key of the tests, long enough";

fn keys() -> Token {
    Token { hmac_secret_key: KEY.to_owned(), ..Token::default() }
}

/// A token made by hand, so that what the code under test makes is not its own witness.
fn token(header: &Value, claims: &Value, key: &str) -> String {
    let hash = match header["alg"].as_str() {
        Some("HS384") => hmac::HMAC_SHA384,
        Some("HS512") => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hash, key.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn signed(claims: &Value) -> String {
    token(&json!({"alg": "HS256", "typ": "JWT"}), claims, KEY)
}

fn connect(keys: &Token, raw: &str) -> Result<ConnectionClaims, TokenError> {
    keys.connection(raw, NOW, Signature::Verify)
}

fn why(result: Result<impl std::fmt::Debug, TokenError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_token_of_another_library_is_read() {
    // Made with another JWT library: HS256, key "secret", {"sub":"1234567890","name":"John Doe",
    // "iat":1516239022}; the example everybody knows.
    let raw = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
               eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.\
               SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";
    let keys = Token { hmac_secret_key: "your-256-bit-secret".to_owned(), ..Token::default() };
    assert_eq!(connect(&keys, raw).unwrap().user, "1234567890");
}

#[test]
fn a_list_in_the_place_of_an_object_is_no_token() {
    let header = json!({"alg": "HS256"});
    for (header, claims) in
        [(&header, json!([])), (&header, json!(["u"])), (&json!(["HS256"]), json!({}))]
    {
        let why = why(connect(&keys(), &token(header, &claims, KEY)));
        assert!(why.ends_with("is not a JSON object"), "{why}");
    }
}

#[test]
fn every_claim_of_a_connection_arrives() {
    let raw = signed(&json!({
        "sub": "42", "exp": NOW + 60, "info": {"name": "Ann"}, "channels": ["a"], "meta": {"m": 1},
        "subs": {"b": {"data": [1], "b64info": "AQI=", "override": {"presence": {"value": true}}}},
    }));
    let claims = connect(&keys(), &raw).unwrap();
    assert_eq!(claims.user, "42");
    assert_eq!(claims.expire_at, Some(NOW + 60));
    assert_eq!(claims.info.as_deref(), Some(br#"{"name":"Ann"}"#.as_slice()));
    assert_eq!(claims.channels, ["a"]);
    assert_eq!(claims.meta.as_deref(), Some(br#"{"m":1}"#.as_slice()));
    let (channel, grant) = &claims.subs[0];
    assert_eq!(channel, "b");
    assert_eq!(grant.info.as_deref(), Some(&*payload::sealed(&[1, 2])));
    assert_eq!(grant.data.as_deref(), Some(b"[1]".as_slice()));
    assert_eq!(grant.overrides.presence, Some(true));
    assert!(grant.overrides.over(&ChannelOptions::default()).presence);
}

#[test]
fn all_three_hash_lengths_are_accepted() {
    for alg in ["HS256", "HS384", "HS512"] {
        let raw = token(&json!({"alg": alg}), &json!({"sub": "u"}), KEY);
        assert_eq!(connect(&keys(), &raw).unwrap().user, "u", "{alg}");
    }
}

#[test]
fn payloads_keep_their_bytes_but_not_their_line_breaks() {
    let claims = "{\"sub\":\"u\",\"info\":{ \"a\":\n1.50 }}";
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature =
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes()), signed.as_bytes());
    let raw = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let claims = connect(&keys(), &raw).unwrap();
    assert_eq!(claims.info.as_deref(), Some(br#"{ "a":1.50 }"#.as_slice()));
}

#[test]
fn none_and_other_algorithms_are_refused() {
    for alg in ["none", "None", "", "PS256", "ES256K", "hs256", "HS256 "] {
        let raw = token(&json!({"alg": alg}), &json!({"sub": "u"}), KEY);
        assert!(why(connect(&keys(), &raw)).contains("not accepted"), "{alg}");
    }
    for alg in ["RS256", "ES256", "EdDSA"] {
        let raw = token(&json!({"alg": alg}), &json!({"sub": "u"}), KEY);
        let why = why(connect(&keys(), &raw));
        assert!(why.contains("and only hmac_secret_key is set"), "{alg}: {why}");
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"u"}"#);
    assert!(why(connect(&keys(), &format!("{header}.{claims}."))).contains("not accepted"));
}

#[test]
fn an_algorithm_swapped_after_signing_is_refused() {
    let raw = token(&json!({"alg": "HS512"}), &json!({"sub": "u"}), KEY);
    let (_, rest) = raw.split_once('.').unwrap();
    let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#));
    assert!(why(connect(&keys(), &forged)).contains("signature does not fit"));
}

#[test]
fn a_wrong_key_and_changed_claims_are_refused() {
    let raw = token(&json!({"alg": "HS256"}), &json!({"sub": "u"}), "another key");
    assert!(why(connect(&keys(), &raw)).contains("another key"));
    let good = signed(&json!({"sub": "u"}));
    let parts: Vec<&str> = good.split('.').collect();
    let forged =
        format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#), parts[2]);
    assert!(why(connect(&keys(), &forged)).contains("signature does not fit"));
    assert!(why(connect(&Token::default(), &good)).contains("no client.token.hmac_secret_key"));
}

#[test]
fn an_empty_key_never_verifies() {
    let raw = token(&json!({"alg": "HS256"}), &json!({"sub": "u"}), "");
    assert!(connect(&Token::default(), &raw).is_err());
    assert!(connect(&keys(), &raw).is_err(), "an empty previous key does not count");
}

#[test]
fn the_previous_key_counts_until_its_time() {
    let raw = token(&json!({"alg": "HS256"}), &json!({"sub": "u"}), "old");
    let mut keys = keys();
    keys.hmac_previous_secret_key = "old".to_owned();
    assert!(connect(&keys, &raw).is_ok());
    keys.hmac_previous_secret_key_valid_until = NOW;
    assert!(connect(&keys, &raw).is_ok());
    keys.hmac_previous_secret_key_valid_until = NOW - 1;
    assert!(connect(&keys, &raw).is_err());
}

#[test]
fn time_has_no_leeway() {
    let at = |claims: Value| connect(&keys(), &signed(&claims));
    assert_eq!(at(json!({"sub": "u", "exp": NOW})).unwrap_err(), TokenError::Expired);
    assert!(at(json!({"sub": "u", "exp": NOW + 1})).is_ok());
    assert_eq!(at(json!({"sub": "u", "nbf": NOW + 1})).unwrap_err(), TokenError::Expired);
    assert!(at(json!({"sub": "u", "nbf": NOW})).is_ok());
    assert_eq!(at(json!({"exp": 1_800_000_060.9_f64})).unwrap().expire_at, Some(NOW + 60));
    assert!(matches!(at(json!({"exp": 1e300})).unwrap_err(), TokenError::Invalid(_)));
    assert!(matches!(at(json!({"exp": "soon"})).unwrap_err(), TokenError::Invalid(_)));
}

#[test]
fn expire_at_overrides_exp_for_the_connections_life() {
    let at = |claims: Value| connect(&keys(), &signed(&claims)).unwrap().expire_at;
    assert_eq!(at(json!({"exp": NOW + 5, "expire_at": NOW + 500})), Some(NOW + 500));
    assert_eq!(at(json!({"exp": NOW + 5, "expire_at": 0})), None);
    assert_eq!(at(json!({"exp": NOW + 5, "expire_at": -1})), None);
    assert_eq!(at(json!({"sub": "u"})), None);
}

#[test]
fn audience_and_issuer_are_checked_when_asked_for() {
    let mut keys = keys();
    keys.audience = "web".to_owned();
    assert!(why(connect(&keys, &signed(&json!({"sub": "u"})))).contains("aud"));
    assert!(connect(&keys, &signed(&json!({"aud": "web"}))).is_ok());
    assert!(connect(&keys, &signed(&json!({"aud": ["app", "web"]}))).is_ok());
    assert!(connect(&keys, &signed(&json!({"aud": ["app"]}))).is_err());
    keys.audience.clear();
    keys.issuer_regex = Some(regex_lite::Regex::new("^auth-[a-z]+$").unwrap());
    assert!(connect(&keys, &signed(&json!({"iss": "auth-eu"}))).is_ok());
    assert!(why(connect(&keys, &signed(&json!({"iss": "x"})))).contains("issuer_regex"));
}

#[test]
fn the_user_may_be_in_another_claim() {
    let keys = Token { user_id_claim: "uid".to_owned(), ..keys() };
    assert_eq!(connect(&keys, &signed(&json!({"sub": "no", "uid": "7"}))).unwrap().user, "7");
    assert!(why(connect(&keys, &signed(&json!({"sub": "no"})))).contains("no uid"));
    assert!(why(connect(&keys, &signed(&json!({"uid": 7})))).contains("not a string"));
}

#[test]
fn a_token_of_one_kind_is_no_token_of_the_other() {
    let connection = signed(&json!({"sub": "u"}));
    let subscription = signed(&json!({"sub": "u", "channel": "news"}));
    assert!(why(connect(&keys(), &subscription)).contains("subscription token"));
    let subscribed = keys().subscription(&connection, NOW, Signature::Verify);
    assert!(why(subscribed).contains("connection token"));
}

#[test]
fn every_claim_of_a_subscription_arrives() {
    let raw = signed(&json!({
        "sub": "42", "channel": "$room", "client": "c-1", "exp": NOW + 9, "info": 1,
        "b64data": "AQI", "override": {"force_recovery": {"value": false}, "join_leave": null},
    }));
    let claims = keys().subscription(&raw, NOW, Signature::Verify).unwrap();
    assert_eq!((claims.user.as_str(), claims.channel.as_str()), ("42", "$room"));
    assert_eq!(claims.client, "c-1");
    assert_eq!(claims.expire_at, Some(NOW + 9));
    assert_eq!(claims.grant.info.as_deref(), Some(b"1".as_slice()));
    assert_eq!(claims.grant.data.as_deref(), Some(&*payload::sealed(&[1, 2])));
    assert_eq!(claims.grant.overrides.force_recovery, Some(false));
    assert_eq!(claims.grant.overrides.join_leave, None);
}

#[test]
fn what_is_no_token_is_refused_without_a_panic() {
    let huge = "a".repeat(TOKEN_BYTES_MAX + 1);
    for raw in ["", ".", "..", "...", "a.b.c", "a.b.c.d", "é.é.é", huge.as_str()] {
        assert!(matches!(connect(&keys(), raw), Err(TokenError::Invalid(_))));
    }
    let good = signed(&json!({"sub": "u", "b64info": "%%"}));
    assert!(why(connect(&keys(), &good)).contains("b64info"));
    let crit = token(&json!({"alg": "HS256", "crit": ["b64"]}), &json!({"sub": "u"}), KEY);
    assert!(why(connect(&keys(), &crit)).contains("crit"));
}

#[test]
fn an_unsigned_token_passes_only_where_signatures_do_not_count() {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"u"}"#);
    let raw = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    assert!(keys().connection(&raw, NOW, Signature::Skip).is_ok());
    assert!(connect(&keys(), &raw).is_err());
}

#[test]
fn what_is_issued_is_accepted() {
    let mut keys = keys();
    keys.audience = "web".to_owned();
    keys.issuer = "me".to_owned();
    keys.user_id_claim = "uid".to_owned();
    let hour = Some(Duration::from_secs(3600));
    let raw = keys.issue_connection("42", hour, NOW, Signer::Secret).unwrap();
    let claims = connect(&keys, &raw).unwrap();
    assert_eq!((claims.user.as_str(), claims.expire_at), ("42", Some(NOW + 3600)));
    let raw = keys.issue_subscription(("42", "$room"), None, NOW, Signer::Secret).unwrap();
    let claims = keys.subscription(&raw, NOW, Signature::Verify).unwrap();
    assert_eq!((claims.channel.as_str(), claims.expire_at), ("$room", None));
    assert!(Token::default().issue_connection("42", hour, NOW, Signer::Secret).is_err());
}

#[test]
fn a_reason_is_one_bounded_line_whatever_a_token_says() {
    let long = "\n\"x\u{1b}".repeat(9000);
    let claims = [
        json!({"exp": long}),
        json!({"channels": long}),
        json!({"subs": {"a": long}}),
        json!({"aud": long, "iss": long}),
        json!([long]),
    ];
    let mut keys = keys();
    keys.audience = "web".to_owned();
    let mut tokens: Vec<String> = claims.iter().map(signed).collect();
    tokens.push(token(&json!({"alg": long}), &json!({}), KEY));
    tokens.push(token(&json!({"alg": [long]}), &json!({}), KEY));
    for raw in tokens {
        let why = why(connect(&keys, &raw));
        assert!(why.chars().count() < 200 && !why.contains(char::is_control), "{why}");
    }
}

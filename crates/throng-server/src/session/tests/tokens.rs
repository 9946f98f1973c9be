//! Tokens that are signed with a private key: what waits for the answer, and what comes of it.

use std::time::Duration;

use super::bench::Bench;
use crate::notary::{Proof, Purpose};
use crate::session::{Kind, Order};
use crate::token::{PrivateKey, Signer};

const PRIVATE: &str = include_str!("../../token/tests/p256.private.pem");
const PUBLIC: &str = include_str!("../../token/tests/p256.public.pem");

fn bench(more: &str) -> Bench {
    Bench::new(&format!(
        "client.token.ecdsa_public_key = \"\"\"{PUBLIC}\"\"\"\nclient.token.audience = \"us\"\n\
         client.ping_interval = \"0s\"\nchannel.without_namespace.presence = true\n\
         channel.without_namespace.allow_presence_for_client = true\n{more}"
    ))
}

/// A token for `channel`, or for the connection, that is valid for so many seconds.
fn token(bench: &Bench, user: &str, channel: Option<&str>, seconds: u64) -> String {
    let key = PrivateKey::from_pem(PRIVATE).unwrap();
    let signer = Signer::Key { key: &key, algorithm: None, kid: None };
    let (keys, ttl) = (&bench.settings.client.token, Some(Duration::from_secs(seconds)));
    let now = bench.now().unix_ms / 1000;
    match channel {
        None => keys.issue_connection(user, ttl, now, signer),
        Some(channel) => keys.issue_subscription((user, channel), ttl, now, signer),
    }
    .unwrap()
}

fn connect(token: &str) -> String {
    format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#)
}

fn subscribe(channel: &str, token: &str) -> String {
    format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","token":"{token}"}}}}"#)
}

/// A client whose token was good.
fn connected(bench: &mut Bench) -> usize {
    let at = bench.open();
    let token = token(bench, "ann", None, 60);
    bench.say(at, &connect(&token));
    bench.notary_says(Proof::Genuine).unwrap();
    assert!(bench.heard(at)[0].contains("\"connect\""));
    at
}

#[test]
fn a_client_waits_for_its_signature_and_its_commands_with_it() {
    let mut bench = bench("");
    let at = bench.open();
    let token = token(&bench, "ann", None, 60);
    bench.say(at, &format!("{}\n{}", connect(&token), r#"{"id":2,"presence":{"channel":"a"}}"#));
    bench.say(at, r#"{"id":3,"presence":{"channel":"a"}}"#);
    bench.pump();
    assert!(bench.heard(at).is_empty() && bench.identified == 0);
    let check = bench.notary_says(Proof::Genuine).unwrap();
    assert_eq!((check.purpose, &*check.token), (Purpose::Connection, token.as_str()));
    assert!(!format!("{check:?}").contains(&token));
    let heard = bench.heard(at);
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(heard[0].contains(r#""expires":true,"ttl":60"#), "{heard:?}");
    assert_eq!(&**bench.clients[at].session.as_ref().unwrap().user(), "ann");
    assert_eq!(bench.identified, 1);
}

#[test]
fn a_secret_is_looked_at_at_once_and_what_is_wrong_anyway_is_not_looked_at() {
    let mut bench = bench("");
    let by_secret = super::bench::token(&serde_json::json!({"sub": "bob", "aud": "us"}));
    bench.connected(&by_secret);
    let others = bench.settings.client.token.clone();
    bench.settings.client.token.audience = "them".to_owned();
    let for_them = token(&bench, "ann", None, 60);
    bench.settings.client.token = others;
    let at = bench.open();
    bench.say(at, &connect(&for_them));
    assert_eq!(bench.close_code(at), Some(3500));
    let at = bench.open();
    let expired = token(&bench, "ann", None, 5);
    bench.pass(5);
    assert!(bench.ask(at, &connect(&expired))[0].contains(r#""code":109"#));
    let at = bench.open();
    let of_channel = token(&bench, "ann", Some("a"), 60);
    bench.say(at, &connect(&of_channel));
    assert_eq!(bench.close_code(at), Some(3500));
    assert!(bench.checks.is_empty());
    let logged = bench.logged();
    assert!(logged.contains("the token's aud (them) is not what client.token.audience asks for"));
}

#[test]
fn a_forged_token_closes_and_the_reason_is_remembered_with_the_close() {
    let mut bench = bench("");
    let at = bench.open();
    let token = token(&bench, "ann", None, 60);
    bench.say(at, &connect(&token));
    let (_, to) = bench.checks.pop_front().unwrap();
    let afterword = bench.with(at, |session, cx| {
        session.proof(cx, to.ticket, Proof::Forged("the kid is unknown".into()));
        session.afterword()
    });
    assert_eq!(afterword.flatten().as_deref(), Some("the kid is unknown"));
    assert_eq!(bench.close_code(at), Some(3500));
    let logged = bench.logged();
    assert!(
        logged.contains("3500 the connection token is invalid: the kid is unknown"),
        "{logged}"
    );
    assert!(!logged.contains(&token));
}

#[test]
fn a_key_that_is_not_to_be_had_is_a_temporary_error() {
    for (proof, code) in [
        (Proof::Unknown("answered 503".into()), r#"{"id":1,"error":{"code":100,"#),
        (Proof::Busy, r#"{"id":1,"error":{"code":111,"#),
    ] {
        let mut bench = bench("");
        let at = bench.open();
        let token = token(&bench, "ann", None, 60);
        bench.say(at, &connect(&token));
        bench.notary_says(proof);
        let heard = bench.heard(at);
        assert!(
            heard[0].starts_with(code) && heard[0].contains(r#""temporary":true"#),
            "{heard:?}"
        );
        assert_eq!(bench.close_code(at), None);
    }
}

#[test]
fn time_goes_on_while_a_token_waits() {
    let mut bench = bench("client.stale_close_delay = \"10s\"");
    let at = bench.open();
    let short = token(&bench, "ann", None, 3);
    bench.say(at, &connect(&short));
    bench.pass(3);
    bench.notary_says(Proof::Genuine);
    assert!(bench.heard(at)[0].contains(r#""code":109"#));
    // Nobody answers: the client is stale as any other, and its token is given up.
    let at = bench.open();
    let token = token(&bench, "ann", None, 60);
    bench.say(at, &connect(&token));
    assert!(bench.allowance.used() >= token.len());
    bench.pass(11);
    assert_eq!(bench.close_code(at), Some(3502));
    assert_eq!(bench.allowance.used(), 0);
    assert!(bench.notary_says(Proof::Genuine).is_none());
}

#[test]
fn a_unidirectional_client_is_told_by_a_close() {
    let mut bench = bench("");
    let mut open = |proof| {
        let token = token(&bench, "ann", None, 60);
        let at = bench.open_with(crate::session::Open {
            kind: Kind::Unidirectional,
            native_ping: false,
            user: None,
            session: None,
            connect: Some(format!(r#"{{"token":"{token}"}}"#).into()),
            address: super::bench::NEAR,
            headers: Box::default(),
            no_cookie: None,
            head: None,
        });
        bench.notary_says(proof);
        (bench.close_code(at), bench.heard(at).len())
    };
    assert_eq!(open(Proof::Genuine), (None, 1));
    assert_eq!(open(Proof::Forged("no".into())), (Some(3500), 0));
    assert_eq!(open(Proof::Unknown("no".into())), (Some(3004), 0));
    assert_eq!(open(Proof::Busy), (Some(3013), 0));
}

#[test]
fn a_connection_is_renewed_when_its_new_token_is_good() {
    let mut bench = bench("");
    let at = connected(&mut bench);
    let refresh = |token: &str| format!(r#"{{"id":5,"refresh":{{"token":"{token}"}}}}"#);
    bench.pass(50);
    let good = token(&bench, "ann", None, 600);
    bench.say(at, &refresh(&good));
    bench.notary_says(Proof::Genuine);
    assert!(bench.heard(at)[0].contains(r#""expires":true,"ttl":600"#));
    bench.pass(100);
    assert_eq!(bench.close_code(at), None);
    // A key that is not to be had leaves everything as it was.
    bench.heard(at);
    bench.say(at, &refresh(&good));
    bench.notary_says(Proof::Unknown("answered 503".into()));
    assert!(bench.heard(at).iter().any(|text| text.contains(r#""code":100"#)));
    let of_another = token(&bench, "bob", None, 600);
    bench.say(at, &refresh(&of_another));
    bench.notary_says(Proof::Genuine);
    assert_eq!(bench.close_code(at), Some(3500));
}

#[test]
fn a_subscription_waits_for_its_signature_and_may_be_called_off_meanwhile() {
    let mut bench = bench("");
    let at = connected(&mut bench);
    let good = token(&bench, "ann", Some("room"), 60);
    bench.say(at, &subscribe("room", &good));
    let check = bench.notary_says(Proof::Genuine).unwrap();
    assert_eq!(check.purpose, Purpose::Subscription);
    let heard = bench.heard(at);
    assert!(heard[0].contains(r#"{"id":2,"subscribe":{"expires":true,"ttl":60"#), "{heard:?}");
    assert_eq!(bench.registry.count(0), 1);
    // The token of another channel, and a forged one.
    bench.say(at, &subscribe("other", &good));
    bench.notary_says(Proof::Forged("no".into()));
    assert!(bench.heard(at)[0].contains(r#""code":103"#));
    // An order that ends all subscriptions comes before the answer.
    let late = token(&bench, "ann", Some("late"), 60);
    bench.say(at, &subscribe("late", &late));
    bench.order(
        at,
        &Order::Subscribe {
            channel: "late".into(),
            grant: crate::token::Grant::default(),
            expire_at: None,
            recover_since: None,
        },
    );
    bench.order(at, &Order::Unsubscribe { channel: "".into() });
    bench.notary_says(Proof::Genuine);
    assert_eq!(bench.registry.count(0), 0);
    // Made for another channel: the client is sent away, as with a secret.
    bench.say(at, &subscribe("other", &good));
    bench.notary_says(Proof::Genuine);
    assert_eq!(bench.close_code(at), Some(3500));
}

#[test]
fn a_subscription_is_renewed_when_its_new_token_is_good() {
    let mut bench = bench("");
    let at = connected(&mut bench);
    let first = token(&bench, "ann", Some("room"), 20);
    bench.say(at, &subscribe("room", &first));
    bench.notary_says(Proof::Genuine);
    bench.heard(at);
    let refresh =
        |token: &str| format!(r#"{{"id":6,"sub_refresh":{{"channel":"room","token":"{token}"}}}}"#);
    let second = token(&bench, "ann", Some("room"), 600);
    bench.say(at, &refresh(&second));
    bench.notary_says(Proof::Genuine);
    assert!(bench.heard(at)[0].contains(r#""sub_refresh":{"expires":true,"ttl":600}"#));
    bench.pass(30);
    bench.heard(at);
    assert_eq!(bench.registry.count(0), 1);
    let third = token(&bench, "ann", Some("room"), 5);
    bench.say(at, &refresh(&third));
    bench.pass(5);
    bench.notary_says(Proof::Genuine);
    assert!(bench.heard(at).iter().any(|text| text.contains(r#""code":109"#)));
    bench.say(at, &refresh(&second));
    bench.notary_says(Proof::Forged("changed".into()));
    assert_eq!(bench.close_code(at), Some(3500));
}

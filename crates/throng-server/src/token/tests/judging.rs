//! What is said of a token to whoever wonders.

use super::public::{file, private};
use super::*;
use crate::config::Settings;

fn settings(changes: impl FnOnce(&mut Token)) -> Settings {
    let mut settings = Settings::development();
    settings.client.token = keys();
    changes(&mut settings.client.token);
    settings
}

fn refused(settings: &Settings, raw: &str) -> (u16, String) {
    let refused = judge(settings, raw, NOW).verdict.unwrap_err();
    (refused.code, refused.why)
}

#[test]
fn a_good_token_is_accepted_with_what_it_says() {
    let raw = signed(&json!({"sub": "42", "exp": NOW + 60, "aud": ["a", "b"], "iss": "me"}));
    let judged = judge(&settings(|_| {}), &raw, NOW);
    assert_eq!(judged.verdict, Ok(()));
    let facts: Vec<String> =
        judged.facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let expected = [
        "signed with: HS256",
        "kind: connection token",
        "user: 42",
        "issuer: me",
        "audience: a, b",
    ];
    assert_eq!(facts, expected);
    assert!(judged.remarks.is_empty());
}

#[test]
fn every_refusal_has_its_code_and_reason() {
    let settings_of_web = settings(|token| token.audience = "web".to_owned());
    let expired = signed(&json!({"sub": "u", "exp": NOW - 3}));
    assert_eq!(refused(&settings(|_| {}), &expired), (109, "it expired 3 s ago".to_owned()));
    let early = signed(&json!({"sub": "u", "nbf": NOW + 3}));
    assert!(refused(&settings(|_| {}), &early).1.contains("not valid yet"));
    let (code, why) = refused(&settings_of_web, &signed(&json!({"sub": "u", "aud": "app"})));
    assert_eq!(code, 3500);
    assert_eq!(why, "the token's aud (app) is not what client.token.audience asks for");
    let rsa_only = settings(|token| {
        token.hmac_secret_key.clear();
        let key = PublicKey::from_pem(&file("rsa.public.pem")).unwrap();
        token.rsa_public_key = Some(Arc::new(key));
    });
    let why = refused(&rsa_only, &signed(&json!({"sub": "u"}))).1;
    assert!(
        why.contains("signed with HS256") && why.contains("only rsa_public_key is set"),
        "{why}"
    );
    let key = private("p256");
    let signer = Signer::Key { key: &key, algorithm: None, kid: None };
    let raw = keys().issue_subscription(("u", "news"), None, NOW, signer).unwrap();
    let judged = judge(&settings(|_| {}), &raw, NOW);
    assert_eq!(judged.verdict.unwrap_err().code, 103);
    assert!(judged.remarks[0].contains("never expires"));
    assert_eq!(refused(&settings(|_| {}), "no token").0, 3500);
}

#[test]
fn an_exp_in_milliseconds_is_remarked_on() {
    let raw = signed(&json!({"sub": "u", "exp": (NOW + 60) * 1000}));
    let judged = judge(&settings(|_| {}), &raw, NOW);
    assert_eq!(judged.verdict, Ok(()));
    assert!(judged.remarks[0].contains("milliseconds"));
}

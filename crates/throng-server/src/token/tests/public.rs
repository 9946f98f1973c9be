//! Tokens that are signed with a private key, and keys of every sort in every form.

use proptest::prelude::*;

use super::*;
use crate::token::key::Jwk;

const TOKENS: &str = include_str!("tokens.json");
const SET: &str = include_str!("set.json");

/// A file of the folder of keys.
pub(super) fn file(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/token/tests");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

pub(super) fn private(name: &str) -> PrivateKey {
    PrivateKey::from_pem(&file(&format!("{name}.private.pem"))).unwrap()
}

fn public(name: &str) -> Option<Arc<PublicKey>> {
    Some(Arc::new(PublicKey::from_pem(&file(&format!("{name}.public.pem"))).unwrap()))
}

fn made_elsewhere(alg: &str) -> String {
    serde_json::from_str::<Value>(TOKENS).unwrap()[alg].as_str().unwrap().to_owned()
}

/// Which keys a configuration has for each algorithm.
fn keys_of(alg: &str) -> Token {
    let (rsa, ecdsa) = match alg {
        "ES256" => (None, public("p256")),
        "ES384" => (None, public("p384")),
        "ES512" => (None, public("p521")),
        _ => (public("rsa"), None),
    };
    Token { rsa_public_key: rsa, ecdsa_public_key: ecdsa, ..Token::default() }
}

fn claims_by(key: &PrivateKey, algorithm: Algorithm, claims: &Value) -> String {
    let header = header_json(algorithm, Some("k"));
    compact(&header, claims, |message| key.sign(algorithm, message)).unwrap()
}

#[test]
fn tokens_of_another_library_are_accepted_with_every_algorithm() {
    for alg in ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"] {
        let claims = connect(&keys_of(alg), &made_elsewhere(alg)).unwrap();
        assert_eq!(claims.user, format!("user of {alg}"));
    }
    let set = KeySet::read(SET.as_bytes()).unwrap();
    assert_eq!((set.len(), set.left_out.len()), (5, 0));
    let kids = [
        ("RS256", "rsa"),
        ("RS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("ES512", "p521"),
        ("EdDSA", "ed25519"),
    ];
    for (alg, kid) in kids {
        let (raw, algorithm) = (made_elsewhere(alg), Algorithm::named(alg).unwrap());
        Token::verify_with(&raw, algorithm, set.get(kid).unwrap()).unwrap();
    }
}

#[test]
fn a_public_key_is_no_secret() {
    // Whoever knows the public key signs with it as if it were a shared secret.
    for name in ["rsa", "p256"] {
        let pem = file(&format!("{name}.public.pem"));
        for secret in [pem.as_str(), pem.trim()] {
            let raw = token(&json!({"alg": "HS256"}), &json!({"sub": "root"}), secret);
            let keys = keys_of(if name == "rsa" { "RS256" } else { "ES256" });
            let why = why(connect(&keys, &raw));
            assert!(why.contains("signed with HS256, which needs client.token.hmac_secret_key"));
        }
    }
}

#[test]
fn a_key_serves_its_own_algorithms_only() {
    let keys = keys_of("ES256");
    let raw = made_elsewhere("ES384");
    let why_not = why(connect(&keys, &raw));
    assert_eq!(why_not, "the token is signed with ES384, and its key is for ES256 only");
    let raw = made_elsewhere("RS256");
    let why_not = why(connect(&keys, &raw));
    assert!(
        why_not.contains("needs client.token.rsa_public_key, and only ecdsa_public_key is set")
    );
    assert!(why(connect(&keys, &made_elsewhere("EdDSA"))).contains("jwks_public_endpoint"));
    // The header says another algorithm of the same family than was signed with.
    let (_, rest) =
        made_elsewhere("RS512").split_once('.').map(|(_, rest)| ((), rest.to_owned())).unwrap();
    let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#));
    assert!(why(connect(&keys_of("RS256"), &forged)).contains("does not fit"));
}

#[test]
fn a_signature_must_have_the_form_of_its_algorithm() {
    // RFC 7518 3.4: two numbers side by side, and not the DER that openssl writes.
    let (raw, keys) = (made_elsewhere("ES256"), keys_of("ES256"));
    let (signed, signature) = raw.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut der = vec![0x30, 0];
    for half in bytes.chunks(32) {
        let half = if half[0] >= 0x80 { [&[0], half].concat() } else { half.to_vec() };
        der.extend([0x02, u8::try_from(half.len()).unwrap()]);
        der.extend(half);
    }
    der[1] = u8::try_from(der.len() - 2).unwrap();
    for wrong in [der, bytes[..63].to_vec(), [&bytes[..], &[0]].concat(), Vec::new(), vec![0; 64]] {
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(wrong));
        assert!(why(connect(&keys, &forged)).contains("does not fit"));
    }
}

#[test]
fn what_a_private_key_signs_its_public_key_accepts() {
    let names = ["rsa", "rsa-old", "p256", "p256-old", "p384", "p521", "ed25519"];
    for name in names {
        let key = private(name);
        let algorithm = key.algorithm();
        let raw = claims_by(&key, algorithm, &json!({"sub": "u"}));
        let set = KeySet::read(SET.as_bytes()).unwrap();
        let kid = name.trim_end_matches("-old");
        Token::verify_with(&raw, algorithm, set.get(kid).unwrap()).unwrap();
    }
    let key = private("p256");
    let signer = Signer::Key { key: &key, algorithm: Some(Algorithm::Rs256), kid: None };
    let refused = Token::default().issue_connection("u", None, NOW, signer);
    assert!(why(refused).contains("cannot sign with this algorithm"));
}

#[test]
fn keys_that_cannot_serve_are_named() {
    let cases = [
        (file("rsa.private.pem"), "a private key"),
        (file("p256-old.private.pem"), "a private key"),
        (file("rsa1024.public.pem"), "1024 bits"),
        (file("secp256k1.public.pem"), "not supported"),
        ("nothing".to_owned(), "not a public key in PEM"),
        (String::new(), "not a public key in PEM"),
        ("-----BEGIN RSA PUBLIC KEY-----".to_owned(), "PKCS#1"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".to_owned(), "not supported"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".to_owned(), "certificate"),
    ];
    for (text, said) in cases {
        let why = PublicKey::from_pem(&text).unwrap_err();
        assert!(why.contains(said) && !why.contains("MII"), "{why}");
    }
    // As a variable of the environment often has it.
    let one_line = file("rsa.public.pem").replace('\n', "\\n");
    assert_eq!(PublicKey::from_pem(&one_line).unwrap().algorithms(), "RS256, RS384 or RS512");
    assert_eq!(PublicKey::from_pem(&file("rsa.certificate.pem")).unwrap().sort(), "RSA");
    assert!(PrivateKey::from_pem(&file("rsa.public.pem")).unwrap_err().contains("the public key"));
}

#[test]
fn keys_of_a_set_are_used_as_they_are_meant() {
    let rsa = serde_json::from_str::<Value>(SET).unwrap()["keys"][0].clone();
    let with = |changes: Value| {
        let mut key = rsa.clone();
        for (name, value) in changes.as_object().unwrap() {
            key[name] = value.clone();
        }
        let set = json!({"keys": [key, {"kty": 7}, "no key"]}).to_string();
        KeySet::read(set.as_bytes()).unwrap()
    };
    let raw = made_elsewhere("RS256");
    let works = |set: &KeySet| {
        let key = set.get("rsa");
        key.map(|key| Token::verify_with(&raw, Algorithm::Rs256, key).map_err(|e| e.to_string()))
    };
    assert_eq!(
        works(&with(json!({"use": "sig", "alg": "RS256", "key_ops": ["verify"]}))),
        Some(Ok(()))
    );
    assert_eq!(works(&with(json!({"x5c": ["ignored"], "use": null}))), Some(Ok(())));
    let other = works(&with(json!({"alg": "RS512"}))).unwrap().unwrap_err();
    assert_eq!(other, "the token is signed with RS256, and its key is for RS512 only");
    for (changes, said) in [
        (json!({"use": "enc"}), "(use)"),
        (json!({"key_ops": ["encrypt"]}), "(key_ops)"),
        (json!({"alg": "RSA-OAEP"}), "(alg)"),
        (json!({"alg": "HS256"}), "(alg)"),
        (json!({"kid": null}), "no kid"),
        (json!({"kid": ""}), "no kid"),
        (json!({"n": "AQAB"}), "bits"),
        (json!({"n": ""}), "no n"),
        (json!({"e": "%"}), "no e"),
        (json!({"kty": "EC"}), "curve"),
        (json!({"kty": "oct", "k": "AAAA"}), "shared secret"),
        (json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}), "fit its curve"),
        (
            json!({"kty": "EC", "crv": "P-256", "x": "A".repeat(43), "y": "A".repeat(43)}),
            "no point",
        ),
        (json!({"kty": "OKP", "crv": "X25519", "x": "A".repeat(43)}), "curve"),
    ] {
        let set = with(changes);
        assert!(works(&set).is_none(), "{said}");
        assert!(set.left_out.iter().any(|why| why.contains(said)), "{said}: {:?}", set.left_out);
    }
    assert!(KeySet::read(b"[]").is_err() && KeySet::read(b"<html>").is_err());
}

/// Keys of every sort, at a place of sets.
fn placed() -> Token {
    let jwks = crate::config::JwksEndpoint::read_for_tests("https://a.example/{{realm}}/certs");
    Token {
        jwks_public_endpoint: Some(jwks),
        hmac_secret_key: KEY.to_owned(),
        issuer_regex: Some(regex_lite::Regex::new("^https://a/(?P<realm>one|two)$").unwrap()),
        ..Token::default()
    }
}

#[test]
fn a_set_is_looked_for_where_the_token_says_and_nothing_else_counts_beside_it() {
    let keys = placed();
    let header = |header: Value, iss: &str| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(&header), part(&json!({"sub": "u", "iss": iss})))
    };
    let way = keys.way(&header(json!({"alg": "ES256", "kid": "k"}), "https://a/two")).unwrap();
    let Way::Set { algorithm, url, kid } = way else { panic!("{way:?}") };
    assert_eq!((algorithm, kid.as_str()), (Algorithm::Es256, "k"));
    assert_eq!(url.to_string(), "https://a.example/two/certs");
    let refused = |header: String| keys.way(&header).unwrap_err().to_string();
    assert!(refused(header(json!({"alg": "ES256"}), "https://a/two")).contains("no kid"));
    let evil = refused(header(json!({"alg": "ES256", "kid": "k"}), "https://a/evil"));
    assert!(evil.contains("iss (https://a/evil)"), "{evil}");
    // The secret that is set beside it is no way in.
    let secret = signed(&json!({"sub": "u", "iss": "https://a/one"}));
    assert!(refused(secret).contains("signed with HS256, a shared secret"));
    let long = header(json!({"alg": "ES256", "kid": "k".repeat(513)}), "https://a/two");
    assert!(refused(long).contains("512"));
}

fn everything() -> [Token; 3] {
    let all = Token {
        hmac_secret_key: KEY.to_owned(),
        ecdsa_public_key: public("p256"),
        ..keys_of("RS256")
    };
    [all, placed(), Token::default()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever somebody sends is refused, and nothing panics.
    #[test]
    fn noise_is_never_accepted(text in "[ -~]{0,80}|[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,90}") {
        for keys in everything() {
            prop_assert!(connect(&keys, &text).is_err());
            keys.way(&text).map(drop).ok();
        }
        KeySet::read(text.as_bytes()).map(drop).ok();
        PublicKey::from_pem(&text).map(drop).ok();
    }

    /// Headers of every algorithm with a signature of chance.
    #[test]
    fn a_signature_of_chance_is_never_accepted(
        alg in 0..10_usize,
        signature in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({"alg": Algorithm::ALL[alg].name(), "kid": "rsa"}));
        let claims = part(json!({"sub": "root", "iss": "https://a/one"}));
        let raw = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature));
        for keys in everything() {
            prop_assert!(connect(&keys, &raw).is_err());
        }
        let set = KeySet::read(SET.as_bytes()).unwrap();
        for kid in ["rsa", "p256", "p384", "p521", "ed25519"] {
            prop_assert!(Token::verify_with(&raw, Algorithm::ALL[alg], set.get(kid).unwrap()).is_err());
        }
    }

    /// One byte of a good token changed.
    #[test]
    fn a_changed_token_is_never_accepted_as_another(
        alg in 0..6_usize,
        at in any::<proptest::sample::Index>(),
        with in "[A-Za-z0-9_.-]",
    ) {
        let alg = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"][alg];
        let raw = made_elsewhere(alg);
        let at = at.index(raw.len());
        let changed = format!("{}{with}{}", &raw[..at], &raw[at + 1..]);
        prop_assume!(changed != raw);
        // The last letter of a signature has bits that no byte takes: base64 refuses them, so that a
        // token has one form.
        prop_assert!(connect(&keys_of(alg), &changed).is_err());
    }

    /// What a provider may publish, broken in every way.
    #[test]
    fn broken_sets_never_panic(at in any::<proptest::sample::Index>(), cut in any::<bool>(), byte in any::<u8>()) {
        let mut bytes = SET.as_bytes().to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        KeySet::read(&bytes).map(drop).ok();
        serde_json::from_slice::<Jwk>(&bytes).map(drop).ok();
        let mut pem = file("p256.public.pem").into_bytes();
        let at = at % pem.len();
        pem[at] = byte;
        PublicKey::from_pem(&String::from_utf8_lossy(&pem)).map(drop).ok();
    }
}

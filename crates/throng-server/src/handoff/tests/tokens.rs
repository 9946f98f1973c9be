//! Tokens whose signatures are being looked at while everything moves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::property::settings_of;
use super::world::{World, runtime};
use crate::config::Token;
use crate::handoff::pause::Nowhere;
use crate::session::Kind;
use crate::token::{PrivateKey, Signer};

const PRIVATE: &str = include_str!("../../token/tests/p256.private.pem");
const PUBLIC: &str = include_str!("../../token/tests/p256.public.pem");

fn signer(key: &PrivateKey) -> Signer<'_> {
    Signer::Key { key, algorithm: None, kid: Some("p256") }
}

#[test]
fn a_token_whose_key_has_not_come_is_looked_at_by_the_next_process() {
    // Nothing is fetched here: the runtime does not run.
    let place = "\"http://127.0.0.1:1/keys\"";
    let waiting = settings_of(&format!(
        "client.allow_anonymous_connect_without_token = true\n\
         client.token.jwks_public_endpoint = {place}\n\
         client.subscription_token.enabled = true\n\
         client.subscription_token.jwks_public_endpoint = {place}"
    ));
    let key = PrivateKey::from_pem(PRIVATE).unwrap();
    let keys = Token::default();
    let of_ann = keys.issue_connection("ann", None, 0, signer(&key)).unwrap();
    let of_room = keys.issue_subscription(("", "room"), None, 0, signer(&key)).unwrap();
    let forged = format!("{}AAAAAAAA", &of_room[..of_room.len() - 8]);
    let runtime = runtime();
    let mut world = World::new(&waiting, 2, &runtime);
    for at in 0..3 {
        world.join(Kind::Bidirectional);
        let commands = match at {
            0 => [
                format!(r#"{{"id":1,"connect":{{"token":"{of_ann}"}}}}"#),
                r#"{"id":2,"history":{"channel":"room"}}"#.to_owned(),
            ],
            1 => [
                r#"{"id":1,"connect":{}}"#.to_owned(),
                format!(r#"{{"id":2,"subscribe":{{"channel":"room","token":"{of_room}"}}}}"#),
            ],
            _ => [
                r#"{"id":1,"connect":{}}"#.to_owned(),
                format!(r#"{{"id":2,"subscribe":{{"channel":"room","token":"{forged}"}}}}"#),
            ],
        };
        world.say(at, &commands.join("\n"), None);
    }
    world.settle();
    assert!(!world.clients[0].told().contains("connect"));
    let asked = world.front.common.notary.counted();
    assert_eq!((asked.genuine, asked.forged), (0, 0));
    let (cargo, sockets) = world.freeze();

    // The next process has the key at hand.
    let here = settings_of(&format!(
        "client.allow_anonymous_connect_without_token = true\n\
         client.token.ecdsa_public_key = \"\"\"{PUBLIC}\"\"\""
    ));
    let mut next = World::new(&here, 1, &runtime).load(cargo, sockets).unwrap();
    next.clients = std::mem::take(&mut world.clients);
    drop(world);
    next.begin();
    let until = Instant::now() + Duration::from_secs(20);
    let is_told = |world: &World| {
        let told = |at: usize, text: &str| world.clients[at].told().contains(text);
        told(0, r#""id":2"#) && told(1, r#""id":2"#) && told(2, r#""id":2"#)
    };
    while !is_told(&next) {
        assert!(Instant::now() < until, "{}", next.facts());
        next.settle();
        std::thread::yield_now();
    }
    assert!(next.clients[0].told().contains(r#"{"id":1,"connect":"#));
    assert!(next.clients[1].told().contains(r#"{"id":2,"subscribe":{}}"#));
    assert!(next.clients[2].told().contains(r#"{"id":2,"error":{"code":103"#));
    let counted = next.front.common.notary.counted();
    assert_eq!((counted.genuine, counted.forged, counted.waiting), (2, 1, 0));
}

#[test]
fn a_token_waits_while_everything_stands_still_and_is_not_lost_if_it_comes_back() {
    let settings = settings_of(&format!("client.token.ecdsa_public_key = \"\"\"{PUBLIC}\"\"\""));
    let key = PrivateKey::from_pem(PRIVATE).unwrap();
    let token = Token::default().issue_connection("ann", None, 0, signer(&key)).unwrap();
    let runtime = runtime();
    let mut world = World::new(&settings, 1, &runtime);
    let pause = Arc::clone(&world.front.common.pause);
    assert!(pause.close(Duration::ZERO));
    world.join(Kind::Bidirectional);
    world.say(0, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#), None);
    world.settle();
    assert_eq!(world.front.common.notary.counted().waiting, 1);
    pause.moved(Arc::new(Nowhere));
    world.settle();
    assert_eq!(world.front.common.notary.counted().genuine, 0);
    pause.open();
    let until = Instant::now() + Duration::from_secs(20);
    while !world.clients[0].told().contains("connect") {
        assert!(Instant::now() < until, "{}", world.facts());
        world.settle();
        std::thread::yield_now();
    }
    assert_eq!(world.front.common.notary.counted().genuine, 1);
}

//! Maps move with everything else: clients that read one page by page, those that are there, keys
//! that end, and what is remembered of writes.

use proptest::prelude::*;
use throng_hub::map::{Ask, Call, Removal, Write};
use throng_hub::request::{Answer, Request};

use super::property::{settings_of, token};
use super::world::{World, runtime};
use crate::session::Kind;

const TOML: &str = r#"
client.insecure_skip_token_signature_verify = true
client.token.hmac_secret_key = "x"
client.ping_interval = "0s"
[[channel.namespaces]]
name = "map"
subscription_type = "map"
allow_subscribe_for_client = true
map = {mode = "recoverable", key_ttl = "9s", stream_size = 6, min_page_size = 1, allow_publish_for_client = true, subscribe_catch_up_timeout = "1h"}
[[channel.namespaces]]
name = "short"
subscription_type = "map"
allow_subscribe_for_client = true
map = {mode = "ephemeral", key_ttl = "9s", min_page_size = 1, allow_publish_for_client = true, subscribe_catch_up_timeout = "1h"}
[[channel.namespaces]]
name = "room"
allow_subscribe_for_client = true
map_clients_presence_channel_prefix = "online:"
[[channel.namespaces]]
name = "online"
subscription_type = "map_clients"
map = {mode = "ephemeral", key_ttl = "1m"}
"#;

const CHANNELS: [&str; 2] = ["map:a", "short:a"];

#[derive(Debug, Clone)]
enum Step {
    /// A client reads on: from the beginning, or behind a key.
    Read {
        client: usize,
        channel: usize,
        behind: Option<u8>,
    },
    /// It reads changes, or comes back to where it was.
    Changes {
        client: usize,
        offset: u64,
        recover: bool,
    },
    Leave {
        client: usize,
        channel: usize,
    },
    Publish {
        client: usize,
        channel: usize,
        key: u8,
    },
    Put {
        channel: usize,
        key: u8,
        once: bool,
    },
    Remove {
        channel: usize,
        key: u8,
    },
    Pass {
        seconds: u32,
    },
}

/// All of one channel: of two that lose keys in one second, nobody says which is first.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    (0..CHANNELS.len()).prop_flat_map(steps_in)
}

fn steps_in(channel: usize) -> impl Strategy<Value = Vec<Step>> {
    let (client, channel, key) = (0..3_usize, Just(channel), 0..6_u8);
    let step = prop_oneof![
        6 => (client.clone(), channel, prop::option::of(key.clone()))
            .prop_map(|(client, channel, behind)| Step::Read { client, channel, behind }),
        2 => (client.clone(), 0..12_u64, any::<bool>())
            .prop_map(|(client, offset, recover)| Step::Changes { client, offset, recover }),
        1 => (client.clone(), channel)
            .prop_map(|(client, channel)| Step::Leave { client, channel }),
        2 => (client, channel, key.clone())
            .prop_map(|(client, channel, key)| Step::Publish { client, channel, key }),
        4 => (channel, key.clone(), any::<bool>())
            .prop_map(|(channel, key, once)| Step::Put { channel, key, once }),
        2 => (channel, key).prop_map(|(channel, key)| Step::Remove { channel, key }),
        2 => (1..5_u32).prop_map(|seconds| Step::Pass { seconds }),
    ];
    prop::collection::vec(step, 40)
}

fn change(world: &World, channel: &str, ask: Ask) -> String {
    let resolved = world.settings.channel.resolve(channel).unwrap();
    let rules = resolved.options.map.as_ref().unwrap().rules;
    let call = Call { channel: channel.into(), rules, ask, quiet: false };
    match world.ask(Request::Map(Box::new(call))) {
        Answer::Map(answer) => {
            let text = format!("{answer:?}");
            // Epochs are drawn by lot.
            text.split("epoch").next().unwrap_or_default().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

fn take(world: &mut World, at: usize, step: &Step) -> String {
    match step {
        Step::Read { client, channel, behind } => {
            let channel = CHANNELS[*channel];
            let cursor = behind.map_or_else(String::new, |key| format!(r#","cursor":"k{key}""#));
            let text = format!(
                r#"{{"id":5,"subscribe":{{"channel":"{channel}","type":1,"phase":2,"limit":2{cursor}}}}}"#
            );
            world.say(*client, &text, None);
        }
        Step::Changes { client, offset, recover } => {
            let epoch = world.clients[*client].epoch().unwrap_or_default();
            let text = format!(
                r#"{{"id":6,"subscribe":{{"channel":"map:a","type":1,"phase":1,"limit":2,"recover":{recover},"offset":{offset},"epoch":"{epoch}"}}}}"#
            );
            world.say(*client, &text, None);
        }
        Step::Leave { client, channel } => {
            let channel = CHANNELS[*channel];
            let text = format!(r#"{{"id":7,"unsubscribe":{{"channel":"{channel}"}}}}"#);
            world.say(*client, &text, None);
        }
        Step::Publish { client, channel, key } => {
            let channel = CHANNELS[*channel];
            let text = format!(
                r#"{{"id":8,"publish":{{"channel":"{channel}","type":1,"key":"k{key}","data":{at}}}}}"#
            );
            world.say(*client, &text, None);
        }
        Step::Put { channel, key, once } => {
            let write = Write {
                key: format!("k{key}").into(),
                data: format!("{at}").into(),
                idempotency_key: once.then(|| format!("once{key}").into()),
                ..Write::default()
            };
            return change(world, CHANNELS[*channel], Ask::Publish(write));
        }
        Step::Remove { channel, key } => {
            let removal = Removal { key: format!("k{key}").into(), ..Removal::default() };
            return change(world, CHANNELS[*channel], Ask::Remove(removal));
        }
        Step::Pass { seconds } => world.pass(*seconds),
    }
    String::new()
}

/// What everybody was told, moving after every so many steps; 0: never.
fn told(steps: &[Step], every: usize) -> Vec<String> {
    let (settings, runtime) = (settings_of(TOML), runtime());
    let mut world = World::new(&settings, 2, &runtime);
    for client in 0..3 {
        world.join(Kind::Bidirectional);
        let token = token(&format!("user{client}"));
        world.say(client, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#), None);
        let room = r#"{"id":2,"subscribe":{"channel":"room:a"}}"#;
        world.say(client, room, None);
        world.settle();
    }
    let mut answers = String::new();
    for (at, step) in steps.iter().enumerate() {
        answers.push_str(&take(&mut world, at, step));
        world.settle();
        if every > 0 && at % every == 0 {
            if at % 2 == 0 {
                world.go_ahead(1 + at % 3);
            }
            world = world.move_to(1 + at % 3);
        }
    }
    let mut told: Vec<String> = world.clients.iter().map(super::world::Client::told).collect();
    told.push(answers);
    told.push(change(&world, "online:a", Ask::Count));
    told.push(change(&world, "online:room:a", Ask::Count));
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_map_that_moves_is_the_same_map(steps in steps()) {
        let plain = told(&steps, 0);
        prop_assert!(plain.last().is_some_and(|last| last.contains('3')), "who is there shows");
        for every in [1, 5] {
            prop_assert_eq!(&plain, &told(&steps, every), "moved after every {}", every);
        }
    }
}

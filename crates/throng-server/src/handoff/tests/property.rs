//! Serving a trace is serving its beginning, moving, and serving the rest, wherever it is cut; and
//! stopping and going on changes nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use throng_wire::framing::Framing;
use throng_wire::websocket::{Opcode, Window, put_client_close, put_client_frame};
use tokio::runtime::Runtime;

use super::world::{World, runtime};
use crate::codes::Disconnect;
use crate::config::{Settings, Sources, load};
use crate::session::{Kind, Order};
use crate::token::Grant;

/// Channels: without a stream, with one, with joins, leaves and presence, and with deltas.
const CHANNELS: [&str; 5] = ["plain", "kept:one", "kept:two", "seen:room", "diff:document"];
/// Clients of one trace.
const CLIENTS_MAX: usize = 6;
/// Steps of one trace.
const STEPS: usize = 48;

#[derive(Debug, Clone)]
enum Step {
    Join {
        uni: bool,
    },
    Connect {
        client: usize,
        cut: Option<usize>,
    },
    Subscribe {
        client: usize,
        channel: usize,
        recover: bool,
        cut: Option<usize>,
    },
    Unsubscribe {
        client: usize,
        channel: usize,
    },
    Publish {
        client: usize,
        channel: usize,
        bytes: usize,
        cut: Option<usize>,
    },
    Ask {
        client: usize,
        channel: usize,
        what: usize,
    },
    /// A frame of many commands: more than a turn takes.
    Pipeline {
        client: usize,
        count: usize,
        cut: Option<usize>,
    },
    /// A text in two frames, with a ping between them.
    Fragments {
        client: usize,
        cut: usize,
    },
    Ping {
        client: usize,
        cut: Option<usize>,
    },
    Api {
        channel: usize,
        bytes: usize,
        key: Option<u8>,
    },
    Order {
        client: usize,
        channel: usize,
        what: usize,
    },
    Stall {
        client: usize,
    },
    Pass {
        seconds: u32,
    },
    Close {
        client: usize,
        politely: bool,
    },
}

/// A step, and how many turns are taken before the moment at which everything may move.
type Moment = (Step, usize);

fn moments() -> impl Strategy<Value = Vec<Moment>> {
    let client = 0..CLIENTS_MAX;
    // Deltas need several publications and a subscriber before there is one.
    let channel = prop_oneof![3 => 0..CHANNELS.len(), 1 => Just(CHANNELS.len() - 1)];
    let cut = || prop_oneof![3 => Just(None), 2 => (0_usize..60).prop_map(Some)];
    let step = prop_oneof![
        4 => prop::bool::weighted(0.4).prop_map(|uni| Step::Join { uni }),
        5 => (client.clone(), cut()).prop_map(|(client, cut)| Step::Connect { client, cut }),
        8 => (client.clone(), channel.clone(), any::<bool>(), cut()).prop_map(
            |(client, channel, recover, cut)| Step::Subscribe { client, channel, recover, cut }
        ),
        2 => (client.clone(), channel.clone())
            .prop_map(|(client, channel)| Step::Unsubscribe { client, channel }),
        6 => (client.clone(), channel.clone(), 1_usize..9000, cut()).prop_map(
            |(client, channel, bytes, cut)| Step::Publish { client, channel, bytes, cut }
        ),
        3 => (client.clone(), channel.clone(), 0_usize..3)
            .prop_map(|(client, channel, what)| Step::Ask { client, channel, what }),
        4 => (client.clone(), 1_usize..150, cut())
            .prop_map(|(client, count, cut)| Step::Pipeline { client, count, cut }),
        2 => (client.clone(), 0_usize..80)
            .prop_map(|(client, cut)| Step::Fragments { client, cut }),
        2 => (client.clone(), cut()).prop_map(|(client, cut)| Step::Ping { client, cut }),
        6 => (channel.clone(), 1_usize..9000, prop::option::of(0_u8..3))
            .prop_map(|(channel, bytes, key)| Step::Api { channel, bytes, key }),
        3 => (client.clone(), channel, 0_usize..12)
            .prop_map(|(client, channel, what)| Step::Order { client, channel, what }),
        2 => client.clone().prop_map(|client| Step::Stall { client }),
        3 => (1_u32..12).prop_map(|seconds| Step::Pass { seconds }),
        1 => (client, any::<bool>())
            .prop_map(|(client, politely)| Step::Close { client, politely }),
    ];
    let come = (Step::Join { uni: false }, 1);
    prop::collection::vec((step, 0_usize..5), STEPS).prop_map(move |steps| {
        let mut all = vec![come.clone(); 3];
        // One has a frame that is half-written from the start, whatever comes then.
        let (client, channel) = (0, 0);
        all.extend([
            (Step::Connect { client, cut: None }, 1),
            (Step::Subscribe { client, channel, recover: false, cut: None }, 1),
            (Step::Stall { client }, 1),
            (Step::Api { channel, bytes: 8999, key: None }, 2),
            (Step::Api { channel, bytes: 8999, key: None }, 2),
        ]);
        all.extend(steps);
        all
    })
}

const TOML: &str = r#"
client.allow_anonymous_connect_without_token = true
client.insecure_skip_token_signature_verify = true
client.token.hmac_secret_key = "x"
client.ping_interval = "2s"
client.pong_timeout = "1s"
client.queue_max_size = 10_000_000
channel.without_namespace.allow_subscribe_for_client = true
channel.without_namespace.allow_subscribe_for_anonymous = true
channel.without_namespace.allow_publish_for_client = true
channel.without_namespace.allow_publish_for_anonymous = true

[[channel.namespaces]]
name = "kept"
history_size = 8
history_ttl = "40s"
force_recovery = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true

[[channel.namespaces]]
name = "diff"
history_size = 8
history_ttl = "40s"
force_recovery = true
allowed_delta_types = ["fossil"]
delta_publish = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true

[[channel.namespaces]]
name = "seen"
allow_tags_filter = true
presence = true
join_leave = true
force_push_join_leave = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_presence_for_client = true
"#;

pub(super) fn settings() -> Arc<Settings> {
    settings_of(TOML)
}

/// The settings of a configuration in TOML.
pub(super) fn settings_of(toml: &str) -> Arc<Settings> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let file =
        std::env::temp_dir().join(format!("throng-handoff-{}-{number}.toml", std::process::id()));
    std::fs::write(&file, toml).unwrap();
    let loaded = load(Sources { file: Some(file.clone()), ..Sources::default() });
    std::fs::remove_file(file).unwrap();
    let mut settings = loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.problems));
    // Who does not read is not closed for that: how much of what waits for it the kernel has taken
    // by then is not for us to say.
    settings.client.pong_timeout = std::time::Duration::from_secs(600);
    Arc::new(settings)
}

/// A token for the user of this name whose signature nobody looks at.
pub(super) fn token(user: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.c2ln",
        part(r#"{"alg":"HS256","typ":"JWT"}"#),
        part(&format!(r#"{{"sub":"{user}"}}"#))
    )
}

fn payload(bytes: usize) -> String {
    // Of what gets much shorter, sockets have room for everything.
    let mut lot: u32 = 0x9e37_79b9;
    let text = (0..bytes).map(|_| {
        lot = lot.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'0' + u8::try_from(lot >> 26).unwrap())
    });
    let text: String = text.map(|each| if each == '\\' { '-' } else { each }).collect();
    format!("\"{text}\"")
}

impl World {
    fn take(&mut self, step: &Step) {
        let count = self.clients.len();
        let here = |client: &usize| (count > 0).then(|| *client % count);
        match step {
            Step::Join { uni } if self.clients.len() < CLIENTS_MAX => {
                let kind = if *uni { Kind::Unidirectional } else { Kind::Bidirectional };
                let at = self.clients.len();
                let subs = r#""subs":{"plain":{},"kept:one":{"recover":false}}"#;
                let connect = format!(r#"{{"token":"{}",{subs}}}"#, token(&format!("user{at}")));
                match (uni, at % 3) {
                    (true, 0) => self.join_by(kind, Framing::Sse, Some(connect)),
                    (true, 1) => self.join_by(kind, Framing::Lines, Some(connect)),
                    // Every second one is compressed.
                    _ if at % 2 == 1 => {
                        let deflated = (Framing::WebSocket, Some(Window::Usual));
                        self.join_over(kind, deflated, None)
                    }
                    _ => self.join(kind),
                };
            }
            Step::Join { .. } => {}
            Step::Api { channel, bytes, key } => {
                let key = key.map(|key| format!("key{key}"));
                self.publish(CHANNELS[*channel], &payload(*bytes), key.as_deref());
            }
            Step::Pass { seconds } => self.pass(*seconds),
            Step::Connect { client, .. }
            | Step::Subscribe { client, .. }
            | Step::Unsubscribe { client, .. }
            | Step::Publish { client, .. }
            | Step::Ask { client, .. }
            | Step::Pipeline { client, .. }
            | Step::Fragments { client, .. }
            | Step::Ping { client, .. }
            | Step::Order { client, .. }
            | Step::Stall { client }
            | Step::Close { client, .. } => {
                let Some(client) = here(client) else { return };
                // Mostly it is polite and says first who it is.
                let is_first = !self.clients[client].is_introduced;
                self.clients[client].is_introduced = true;
                if !is_first && matches!(step, Step::Connect { .. }) {
                    return;
                }
                let connect = Step::Connect { client, cut: Some(client * 9) };
                self.take_of(client, if is_first { &connect } else { step });
            }
        }
    }

    fn take_of(&mut self, client: usize, step: &Step) {
        match step {
            Step::Connect { cut, .. } => {
                let token = token(&format!("user{client}"));
                self.say(client, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#), *cut);
            }
            Step::Subscribe { channel, recover, cut, .. } => {
                let epoch = self.clients[client].epoch().filter(|_| *recover);
                let recover = epoch.map_or_else(String::new, |epoch| {
                    format!(r#","recover":true,"offset":1,"epoch":"{epoch}""#)
                });
                let channel = CHANNELS[*channel];
                // Some take patches, or what a filter lets through, and some take all of it.
                let wish = match channel.split_once(':') {
                    Some(("diff", _)) if !client.is_multiple_of(3) => r#","delta":"fossil""#,
                    Some(("seen", _)) if client % 3 > 1 => {
                        r#","tf":{"op":"not","nodes":[{"key":"k","cmp":"in","vals":["a","b"]}]}"#
                    }
                    _ => "",
                };
                let text =
                    format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"{recover}{wish}}}}}"#);
                self.say(client, &text, *cut);
            }
            Step::Unsubscribe { channel, .. } => {
                let channel = CHANNELS[*channel];
                let text = format!(r#"{{"id":3,"unsubscribe":{{"channel":"{channel}"}}}}"#);
                self.say(client, &text, None);
            }
            Step::Publish { channel, bytes, cut, .. } => {
                let (channel, data) = (CHANNELS[*channel], payload(*bytes));
                let text =
                    format!(r#"{{"id":4,"publish":{{"channel":"{channel}","data":{data}}}}}"#);
                self.say(client, &text, *cut);
            }
            _ => self.take_long(client, step),
        }
    }

    /// What a client says that is long, or in parts, or no command.
    fn take_long(&mut self, client: usize, step: &Step) {
        match step {
            Step::Ask { channel, what, .. } => {
                let what = ["presence_stats", "history", "presence_stats"][*what];
                let limit = if what == "history" { r#","limit":5"# } else { "" };
                let channel = CHANNELS[*channel];
                let text = format!(r#"{{"id":5,"{what}":{{"channel":"{channel}"{limit}}}}}"#);
                self.say(client, &text, None);
            }
            Step::Pipeline { count, cut, .. } => {
                let commands: Vec<String> = (0..*count)
                    .map(|at| {
                        let data = payload(at % 30);
                        let id = at + 10;
                        format!(r#"{{"id":{id},"publish":{{"channel":"plain","data":{data}}}}}"#)
                    })
                    .collect();
                self.say(client, &commands.join("\n"), *cut);
            }
            Step::Fragments { cut, .. } => {
                let mut bytes = Vec::new();
                let text =
                    r#"{"id":6,"publish":{"channel":"kept:one","data":"frägmented, frägmented"}}"#;
                let (begins, payload) = self.deflated(client, text);
                // Within the first "ä", where it is not compressed.
                let (first, last) = payload.split_at(text.find("gm").unwrap() - 1);
                put_client_frame(Opcode::Text, [1, 2, 3, 4], first, &mut bytes);
                bytes[0] = begins & 0x7f;
                put_client_frame(Opcode::Ping, [9, 9, 9, 9], b"are you there", &mut bytes);
                put_client_frame(Opcode::Continuation, [4, 3, 2, 1], last, &mut bytes);
                self.say_bytes(client, bytes, Some(*cut));
            }
            Step::Ping { cut, .. } => {
                let mut bytes = Vec::new();
                put_client_frame(Opcode::Ping, [1, 2, 3, 4], b"ping", &mut bytes);
                self.say_bytes(client, bytes, *cut);
            }
            _ => self.take_from_outside(client, step),
        }
    }

    /// What happens to a client.
    fn take_from_outside(&mut self, client: usize, step: &Step) {
        match step {
            Step::Order { channel, what, .. } => {
                // What waits for who is closed in the end may be lost, and how much of it the
                // kernel had taken is not for us to say.
                self.clients[client].is_stalled = false;
                self.settle();
                let channel: Arc<str> = CHANNELS[*channel].into();
                let order = match what {
                    0 => Order::Subscribe {
                        channel,
                        grant: Grant::default(),
                        expire_at: None,
                        recover_since: None,
                    },
                    1 => Order::Unsubscribe { channel },
                    2..11 => Order::Refresh {
                        expired: false,
                        expire_at: Some(1_767_230_000),
                        info: None,
                    },
                    _ => Order::Disconnect(Disconnect::FORCE_DISCONNECT),
                };
                self.order(&format!("user{client}"), order);
            }
            Step::Stall { .. } => {
                // One at a time: of two that are closed in one second, nobody says which is first.
                let stalled = self.clients.iter().position(|client| client.is_stalled);
                if let Some(stalled) = stalled {
                    self.clients[stalled].is_stalled = false;
                }
                self.clients[client].is_stalled = stalled != Some(client);
            }
            Step::Close { politely, .. } => {
                self.clients[client].is_stalled = false;
                self.settle();
                if *politely {
                    let mut bytes = Vec::new();
                    put_client_close([1, 2, 3, 4], 1000, "bye", &mut bytes);
                    self.say_bytes(client, bytes, None);
                } else {
                    self.hang_up(client);
                }
            }
            _ => unreachable!("another's step"),
        }
    }

    /// Everybody reads to the end, and what they were told, and what is known of them.
    fn end(mut self) -> Run {
        for client in &mut self.clients {
            client.is_stalled = false;
        }
        self.settle();
        let mut told: Vec<String> = self.clients.iter().map(super::world::Client::told).collect();
        told.push(self.facts());
        Run { told, written: self.written }
    }
}

/// What came of a trace.
struct Run {
    /// What each client was told, and what is known of the world.
    told: Vec<String>,
    /// Fields that were written down on the way.
    written: BTreeSet<(u8, u8)>,
}

/// What is done between the turns of a step and its settling.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    /// A freeze that comes to nothing.
    Resume(Way),
    /// Everything moves.
    Move(Way),
    /// Everything moves at every step, every other time with nothing gone ahead.
    MoveAlways,
}

/// A way to another world.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// The steps at which everything goes ahead that is not there as it is; none: nothing does.
    ahead: Option<[usize; 2]>,
    /// The step at which everything stops.
    when: usize,
    shards: usize,
}

impl Way {
    fn goes_ahead(self, at: usize) -> bool {
        self.ahead.is_some_and(|ahead| ahead.contains(&at))
    }
}

fn run(
    trace: &[Moment],
    between: Between,
    (settings, runtime): (&Arc<Settings>, &Arc<Runtime>),
) -> Run {
    let mut world = World::new(settings, 2, runtime);
    for (at, (step, turns)) in trace.iter().enumerate() {
        world.take(step);
        world.turns(*turns);
        match between {
            Between::Resume(way) | Between::Move(way) if way.goes_ahead(at) => {
                world.go_ahead(way.shards);
            }
            Between::MoveAlways if at % 2 == 0 => world.go_ahead(1 + at % 3),
            _ => {}
        }
        match between {
            Between::Resume(way) if at == way.when => {
                world.freeze();
                world.resume();
            }
            Between::Move(way) if at == way.when => world = world.move_to(way.shards),
            Between::MoveAlways => world = world.move_to(1 + at % 3),
            _ => {}
        }
        world.settle();
    }
    world.end()
}

/// The first place where two lists of texts differ.
fn difference(one: &[String], other: &[String]) -> Option<String> {
    let (at, (one, other)) =
        one.iter().zip(other).enumerate().find(|(_, (one, other))| one != other)?;
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let around =
        |text: &str| -> String { text.chars().skip(same.saturating_sub(80)).take(300).collect() };
    Some(format!("of {at}, from {same} on:\n  {}\n  {}", around(one), around(other)))
}

/// A trace, and what says when things go ahead.
type Trace = (Vec<Moment>, Vec<(usize, usize)>);

fn check(
    (trace, chances): &Trace,
    place: (&Arc<Settings>, &Arc<Runtime>),
    written: &RefCell<BTreeSet<(u8, u8)>>,
) -> Result<(), TestCaseError> {
    let plain = run(trace, Between::Nothing, place);
    let same = |between: Between| {
        let moved = run(trace, between, place);
        written.borrow_mut().extend(moved.written);
        match difference(&plain.told, &moved.told) {
            None => Ok(()),
            Some(where_) => Err(TestCaseError::fail(format!("{between:?}: {where_}"))),
        }
    };
    same(Between::Nothing)?;
    for (when, (first, second)) in (0..trace.len()).zip(chances) {
        let (first, second) = (first % (when + 1), second % (when + 1));
        let ahead = [first.min(second), first.max(second)];
        let way = Way { ahead: Some(ahead), when, shards: 1 + when % 3 };
        same(Between::Resume(way))?;
        same(Between::Move(way))?;
        if when % 3 == 0 {
            same(Between::Move(Way { ahead: None, ..way }))?;
        }
    }
    same(Between::MoveAlways)
}

#[test]
fn serving_a_trace_is_serving_its_beginning_moving_and_serving_the_rest() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config =
        Config { cases: cases.unwrap_or(8), failure_persistence: None, ..Config::default() };
    // The same traces each time, unless more are asked for: so it is known what they meet.
    let mut runner = match cases {
        None => {
            let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            TestRunner::new_with_rng(config, rng)
        }
        Some(_) => TestRunner::new(config),
    };
    let (settings, runtime) = (settings(), runtime());
    let written = RefCell::default();
    let chances = prop::collection::vec((0_usize..1000, 0_usize..1000), STEPS + 8);
    runner
        .run(&(moments(), chances), |trace| check(&trace, (&settings, &runtime), &written))
        .unwrap();
    // What makes it hard was met: half a frame, a half-written one, frames of one's own and those
    // of many, bytes read and not looked at, compressed ones; commands that wait, and what few
    // clients have.
    let written = written.into_inner();
    let missed = [(1, 5), (1, 6), (1, 7), (1, 8), (1, 9), (1, 14), (1, 15), (2, 13), (2, 15)]
        .into_iter()
        .find(|field| cases.is_none() && !written.contains(field));
    assert_eq!(missed, None, "never written, of {written:?}");
}

//! What a subscriber is promised: every publication once, in order, also over its own
//! disconnects; and that nothing is left of those who went.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use throng_server::rng::Rng;

use crate::client::{Client, api};
use crate::limits::token;
use crate::server::Server;

/// Publications of each publisher.
const EACH: u64 = 150;
const PUBLISHERS: u64 = 2;
const SUBSCRIBERS: u64 = 6;

/// Ends those who go on until it is over, also when a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where a subscriber is in the stream.
struct Place {
    epoch: String,
    offset: u64,
    /// What it has got, in order: the publisher and its count.
    got: Vec<(u64, u64)>,
}

impl Place {
    fn take(&mut self, publication: &serde_json::Value) {
        let offset = publication["offset"].as_u64().unwrap();
        assert_eq!(offset, self.offset + 1, "a gap or a double");
        self.offset = offset;
        if let Some(epoch) = publication["epoch"].as_str() {
            assert!(self.epoch.is_empty() || self.epoch == epoch);
            epoch.clone_into(&mut self.epoch);
        }
        let data = &publication["data"];
        self.got.push((data[0].as_u64().unwrap(), data[1].as_u64().unwrap()));
    }

    /// Connects, takes what was missed, and listens until all is there or `patience` messages
    /// have come.
    fn visit(&mut self, address: SocketAddr, patience: u64) {
        let (mut client, _) = Client::connected(address, &token("ann"));
        let (epoch, offset) = (&self.epoch, self.offset);
        let recover =
            format!(r#","recover":true,"recoverable":true,"epoch":"{epoch}","offset":{offset}"#);
        client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"kept:a"{recover}}}}}"#));
        let reply: serde_json::Value = serde_json::from_str(&client.hear()).unwrap();
        let subscribed = &reply["subscribe"];
        assert_eq!(subscribed["recovered"], true, "{reply}");
        subscribed["epoch"].as_str().unwrap().clone_into(&mut self.epoch);
        for publication in subscribed["publications"].as_array().into_iter().flatten() {
            self.take(publication);
        }
        for _ in 0..patience {
            if self.offset == EACH * PUBLISHERS {
                return;
            }
            let push: serde_json::Value = serde_json::from_str(&client.hear()).unwrap();
            self.take(&push["push"]["pub"]);
        }
    }
}

#[test]
fn every_subscriber_gets_every_publication_once_and_in_order_over_its_reconnects() {
    for seed in [1, 2] {
        let server = Server::start(
            "[[channel.namespaces]]\nname = \"kept\"\nhistory_size = 1000\nhistory_ttl = \"1m\"\n\
             allow_subscribe_for_client = true\nallow_recovery = true",
        );
        let address = server.address;
        let publisher = |number: u64| {
            for count in 0..EACH {
                let body = format!(r#"{{"channel":"kept:a","data":[{number},{count}]}}"#);
                assert!(api(address, "publish", &body).contains("offset"));
            }
        };
        let subscriber = |number: u64| {
            let mut rng = Rng::new(seed * 100 + number);
            let mut place = Place { epoch: String::new(), offset: 0, got: Vec::new() };
            while place.offset < EACH * PUBLISHERS {
                place.visit(address, u64::from(rng.below(60)));
            }
            place.got
        };
        let all = std::thread::scope(|scope| {
            let subscribers: Vec<_> =
                (0..SUBSCRIBERS).map(|number| scope.spawn(move || subscriber(number))).collect();
            for number in 0..PUBLISHERS {
                scope.spawn(move || publisher(number));
            }
            subscribers.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for got in &all {
            assert_eq!(*got, all[0], "seed {seed}: all see one order");
        }
        for number in 0..PUBLISHERS {
            let of_one = all[0].iter().filter(|(publisher, _)| *publisher == number);
            assert!(of_one.map(|(_, count)| *count).eq(0..EACH), "seed {seed}");
        }
        server.stop();
    }
}

#[test]
fn nothing_is_left_of_clients_that_are_closed_while_they_subscribe() {
    let server = Server::start(
        "[channel.without_namespace]\npresence = true\nallow_subscribe_for_client = true",
    );
    let address = server.address;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let _ends = Ends(over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                api(address, "disconnect", r#"{"user":"ann"}"#);
                api(address, "subscribe", r#"{"user":"ann","channel":"c1"}"#);
                api(address, "unsubscribe", r#"{"user":"ann","channel":""}"#);
            }
        });
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    for _ in 0..60 {
                        let mut client = Client::connect(address);
                        let token = token("ann");
                        client.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
                        let commands: Vec<String> = (0..8)
                            .map(|n| {
                                format!(r#"{{"id":{},"subscribe":{{"channel":"c{n}"}}}}"#, n + 2)
                            })
                            .collect();
                        client.say(&commands.join("\n"));
                        // Until the last reply, or until it is sent away.
                        while client.hear_or_end().is_some_and(|reply| !reply.contains("\"id\":9,"))
                        {
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
    });
    server.becomes("info", "{}", r#""num_clients":1,"#);
    server.becomes("info", "{}", r#""num_subs":1,"#);
    for channel in 0..8 {
        let body = format!(r#"{{"channel":"c{channel}"}}"#);
        assert_eq!(api(address, "presence", &body), r#"{"result":{"presence":{}}}"#);
    }
    server.stop();
}

#[test]
fn the_connect_reply_comes_first_and_its_channels_go_on_from_there() {
    let server = Server::start(
        "client.subscribe_to_user_personal_channel.enabled = true\n\
         client.subscribe_to_user_personal_channel.personal_channel_namespace = \"kept\"\n\
         [[channel.namespaces]]\nname = \"kept\"\nhistory_size = 10\nhistory_ttl = \"1m\"\n\
         force_recovery = true",
    );
    let address = server.address;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let _ends = Ends(over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                api(address, "publish", r##"{"channel":"kept:#ann","data":1}"##);
            }
        });
        for _ in 0..40 {
            let mut client = Client::connect(address);
            client.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann")));
            let reply: serde_json::Value = serde_json::from_str(&client.hear()).unwrap();
            let subscribed = &reply["connect"]["subs"]["kept:#ann"];
            assert_eq!(subscribed["positioned"], true, "{reply}");
            let top = subscribed["offset"].as_u64().unwrap_or(0);
            for offset in top + 1..top + 4 {
                let push: serde_json::Value = serde_json::from_str(&client.hear()).unwrap();
                assert_eq!(push["push"]["pub"]["offset"], offset, "{push}");
            }
        }
    });
    server.stop();
}

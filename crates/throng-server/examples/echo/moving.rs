//! A process of the example hands over to the next, with the shard's means of a restart: copies of
//! the sockets go ahead, the shard stops and is written down, and the other one reads that and serves.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use throng_limits::Budget;
use throng_server::addresses::Addresses;
use throng_server::clock::Clock;
use throng_server::config::PerAddress;
use throng_server::restart::channel::{Channel, Deadline, sealed, unsealed};
use throng_server::shard::{
    Boarding, CopyOrder, Courier, LoadOrder, Manifest, Parcel, Post, Reserved, Stop, StopOrder,
    Tally,
};

use super::{Echoing, budget, shard};

/// Set for a process that takes over: its standard input is the way to the one before it.
const VARIABLE: &str = "ECHO_HANDOFF";
/// How long any part of it may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// The listener, and what the old process has counted.
    Begin { uptime_ms: u64, last: u64 },
    /// Sockets of the connections of these numbers.
    Sockets(Vec<u64>),
    /// What was written down, in a sealed file.
    State,
    /// The new process serves from now on.
    Serving,
}

fn deadline() -> Deadline {
    Deadline::after(PATIENCE)
}

/// The way to the process before this one, if there is one.
pub(crate) fn predecessor() -> io::Result<Option<Channel>> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(None);
    }
    Ok(Some(Channel::new(io::stdin().as_fd().try_clone_to_owned()?)))
}

/// Sends sockets as they come.
struct Sent(Arc<Channel>);

impl Courier for Sent {
    fn is_ready(&self) -> bool {
        true
    }

    fn send(&self, batch: &[Parcel<'_>]) -> io::Result<()> {
        let numbers = batch.iter().map(|parcel| parcel.number).collect();
        let sockets: Vec<_> = batch.iter().map(|parcel| parcel.socket).collect();
        self.0.send(&Said::Sockets(numbers), &sockets, deadline()).map_err(io::Error::other)
    }

    fn tell(&self, _: u16, _: Vec<u8>) -> io::Result<()> {
        Err(io::Error::other("nobody is told of ahead here"))
    }
}

/// Hands everything over to a new process, and ends.
pub(crate) fn hand_over(echoing: Echoing) -> Result<(), Box<dyn Error>> {
    let Echoing { listener, mailbox, shard, clock, last, .. } = echoing;
    let (channel, other) = Channel::pair()?;
    let channel = Arc::new(channel);
    Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "stdin")
        .stdin(Stdio::from(other))
        .spawn()?;
    let begin = Said::Begin { uptime_ms: clock.now().mono_ms, last };
    channel.send(&begin, &[listener.as_fd()], deadline())?;
    let courier: Arc<dyn Courier> = Arc::new(Sent(Arc::clone(&channel)));
    // While it echoes, as a server does.
    let tally = Tally::new(1);
    let copies =
        CopyOrder::Send { shard: 0, courier: Arc::clone(&courier), tally: Arc::clone(&tally) };
    mailbox.post(Post::Copy(copies));
    tally.wait(PATIENCE)?;
    let stop = {
        let mailbox = Arc::clone(&mailbox);
        Stop::new(1, courier, move || mailbox.is_empty())
    };
    mailbox.post(Post::Freeze(StopOrder { stop: Arc::clone(&stop), shard: 0 }));
    let by = Instant::now() + PATIENCE;
    let written = stop.wait_quiet(by).then(|| stop.wait_written(by)).flatten();
    let [state] = &written.ok_or("the shard does not stop")??[..] else {
        return Err("one shard has one state".into());
    };
    channel.send(&Said::State, &[sealed("echo", &[state])?.as_fd()], deadline())?;
    let (Said::Serving, _) = channel.receive(deadline())? else {
        return Err("the new process does not serve".into());
    };
    stop.leave();
    shard.join().map_err(|_| "the shard has panicked")??;
    Ok(())
}

/// Takes over from the process before this one.
pub(crate) fn take_over(from: &Channel) -> Result<Echoing, Box<dyn Error>> {
    let (Said::Begin { uptime_ms, last }, mut with) = from.receive(deadline())? else {
        return Err("another beginning was awaited".into());
    };
    let listener = with.pop().ok_or("no listener has come")?.into();
    let clock = Clock::resume(uptime_ms);
    let clients = budget();
    let (shard, mailbox) = shard(clock)?;
    let (orders, boarding) = channel();
    let shard = std::thread::spawn(move || shard.board(&boarding));
    let mut come = HashSet::new();
    loop {
        match from.receive(deadline())? {
            (Said::Sockets(numbers), sockets) => {
                come.extend(&numbers);
                let sockets = sockets.into_iter().map(Into::into);
                orders.send(reserve(&clients, numbers.into_iter().zip(sockets))?)?;
            }
            (Said::State, mut with) => {
                let state = unsealed(with.pop().ok_or("no state has come")?)?;
                load(&orders, state, (&come, clock))?;
                break;
            }
            (other, _) => return Err(format!("nobody asked for {other:?}").into()),
        }
    }
    from.send(&Said::Serving, &[], deadline())?;
    orders.send(Boarding::Serve(None))?;
    Ok(Echoing { listener, mailbox, shard, clock, clients, last })
}

fn reserve(
    clients: &Budget,
    come: impl Iterator<Item = (u64, std::net::TcpStream)>,
) -> Result<Boarding, Box<dyn Error>> {
    let reserved = come.map(|(number, socket)| {
        let permit = clients.try_client()?;
        Some(Reserved { number, socket, permit })
    });
    let reserved: Option<Vec<_>> = reserved.collect();
    Ok(Boarding::Reserve(reserved.ok_or("there are more connections than permits")?))
}

fn load(
    orders: &Sender<Boarding>,
    state: Vec<u8>,
    (come, clock): (&HashSet<u64>, Clock),
) -> Result<(), Box<dyn Error>> {
    let shard_of = |number: u64| come.contains(&number).then_some(0);
    let manifest = Manifest::read((Arc::new(state), 0), 1, clock.now(), &shard_of)
        .map_err(|error| format!("the state is not readable: {error:?}"))?;
    let (done, loaded) = channel();
    let unlimited = PerAddress { connections: 0, rate: 0, exempt_private: true };
    orders.send(Boarding::Load(LoadOrder {
        manifests: Arc::new(vec![manifest]),
        shard: 0,
        is_last: true,
        addresses: Addresses::new(unlimited),
        done,
    }))?;
    loaded.recv()?.map_err(|error| format!("the state cannot be taken in: {error:?}"))?;
    Ok(())
}

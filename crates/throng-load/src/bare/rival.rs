//! The bare loop and its crowd, as the load that measures sees them.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::{Clock, Nanos};
use crate::failure::Failure;
use crate::fanout::{Round, Volley};
use crate::link::Link;
use crate::meter::Meter;
use crate::options::{Helper, Options};
use crate::ramp::Ramp;
use crate::stage::Stage;

use super::{Answer, Beginning, Order, Role};

/// How long a process may take to start and call back.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long any order may take: a million sockets at a few microseconds, many times over.
const ORDER_PATIENCE: Nanos = 600_000_000_000;

/// Both processes. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Rival {
    server: Link,
    /// Of the bare loop.
    pub(crate) meter: Meter,
    children: Vec<Child>,
}

impl Drop for Rival {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok(); // it may have ended by itself
            child.wait().ok();
        }
    }
}

impl Rival {
    /// Starts the bare loop and its crowd; the crowd's line becomes the stage's.
    pub(crate) fn start(
        stage: &mut Stage,
        options: &Options,
        (run, frame_bytes): (u32, usize),
    ) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| failed(&error))?;
        let mut children = Vec::new();
        let mut server = call(&listener, Role::Serve, options, &mut children)?;
        let said = server.wait_for_line().map_err(|error| failed(&error))?;
        let (to, control, server_pid) =
            introduction(&said).ok_or_else(|| failed(&format_args!("it said {said}")))?;
        let mut crowd = call(&listener, Role::Crowd, options, &mut children)?;
        let beginning = Beginning {
            to,
            control,
            server_pid,
            run,
            channel: options.channel.clone(),
            frame_bytes,
            concurrent: options.concurrent,
            rate: options.rate,
            patience_ms: u64::try_from(options.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        crowd.send(&line(&Order::Begin(beginning))).map_err(|error| failed(&error))?;
        stage.set_link(crowd)?;
        let meter = Meter::new(Some(server_pid), Clock::start());
        let this = Self { server, meter, children };
        match hear(stage)? {
            Answer::Done => Ok(this),
            other => Err(unexpected(other)),
        }
    }

    pub(crate) fn ramp(stage: &mut Stage, to: u32) -> Result<Ramp, Failure> {
        match order(stage, &Order::Ramp { to })? {
            Answer::Ramp(ramp) => Ok(ramp),
            other => Err(unexpected(other)),
        }
    }

    pub(crate) fn round(stage: &mut Stage, volley: Volley) -> Result<Round, Failure> {
        match order(stage, &Order::Round(volley))? {
            Answer::Round(round) => Ok(round),
            other => Err(unexpected(other)),
        }
    }

    /// Pings every socket once in so many seconds; 0 for no pings.
    pub(crate) fn ping(&mut self, seconds: u32) -> Result<(), Failure> {
        self.server.send(&format!("ping {seconds}")).map_err(|error| failed(&error))
    }

    pub(crate) fn leave(stage: &mut Stage) -> Result<(), Failure> {
        order(stage, &Order::Leave).map(drop)
    }
}

/// Starts a process in a role and takes its call.
fn call(
    listener: &TcpListener,
    role: Role,
    options: &Options,
    children: &mut Vec<Child>,
) -> Result<Link, Failure> {
    let address = listener.local_addr().map_err(|error| failed(&error))?.to_string();
    match &options.helper {
        Helper::Process { program, arguments } => {
            let program = match program {
                Some(program) => program.clone(),
                None => std::env::current_exe().map_err(|error| failed(&error))?,
            };
            let mut command = Command::new(program);
            command.args(arguments).arg(role.name()).arg(address);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            children.push(child.map_err(|error| failed(&error))?);
        }
        Helper::Threads => {
            // It ends when its line does; what it would say then, nobody reads.
            let body = move || drop(super::help(role.name(), &address));
            let thread = std::thread::Builder::new().name(role.name().to_owned()).spawn(body);
            thread.map(drop).map_err(|error| failed(&error))?;
        }
    }
    let patience = Timespec::try_from(START_PATIENCE).map_err(|error| failed(&error))?;
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&patience)).map_err(|error| failed(&error))?;
    if ready == 0 {
        return Err(failed(&format_args!("the part `{}` did not start", role.name())));
    }
    let (stream, _) = listener.accept().map_err(|error| failed(&error))?;
    Link::new(stream).map_err(|error| failed(&error))
}

fn order(stage: &mut Stage, order: &Order) -> Result<Answer, Failure> {
    stage.tell(&line(order))?;
    hear(stage)
}

fn hear(stage: &mut Stage) -> Result<Answer, Failure> {
    let until = stage.clock.now() + ORDER_PATIENCE;
    let line = stage.hear(until)?.ok_or_else(|| failed(&"its process ended"))?;
    match serde_json::from_str(&line).map_err(|error| failed(&error))? {
        Answer::Failed(failure) => Err(failure),
        answer => Ok(answer),
    }
}

fn introduction(line: &str) -> Option<(SocketAddr, SocketAddr, u32)> {
    let mut words = line.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn line(order: &Order) -> String {
    serde_json::to_string(order).expect("an order is plain numbers and strings")
}

fn unexpected(answer: Answer) -> Failure {
    failed(&format_args!("it answered {answer:?}"))
}

fn failed(why: &dyn std::fmt::Display) -> Failure {
    Failure::new("the bare loop could not be run", why, "run without --bare")
}

//! The phases of a load, in their order.

use std::hash::{BuildHasher, Hasher, RandomState};

use throng_wire::websocket::request_key;

use crate::bare::{Bare, Rival, ratio};
use crate::ceiling::Ceiling;
use crate::clock::{Clock, Nanos, nanos};
use crate::crowd::{Door, Manners, PROTOBUF_HEADER, Speech, Upgrades};
use crate::failure::Failure;
use crate::fanout::{self, Fanout, Round, Volley};
use crate::handshake::{Upgrade, events_request};
use crate::idle;
use crate::memory::MemoryUse;
use crate::message::{Messages, SIZE_MIN};
use crate::meter::Meter;
use crate::neighbour;
use crate::options::Options;
use crate::progress::{Progress, Side};
use crate::publisher::{Api, ApiPublisher, Publisher};
use crate::ramp::{Pace, Ramp, ramp};
use crate::report::Report;
use crate::stage::Stage;
use crate::target::Target;

/// Publications that every client receives before memory is read again; they warm up, too.
const FIRST_MESSAGES: u32 = 10;
/// How long the server may take to answer the crowd's goodbyes.
const GOODBYE: Nanos = 5_000_000_000;
/// Seconds between the bare loop's pings where the server announces no interval: Centrifugo's.
const PING_SECONDS: u32 = 25;

/// Runs one load.
///
/// # Errors
/// When it cannot be run at all: a wrong URL, a crowd that this process has no room for, a server
/// process that cannot be read. What goes wrong with clients is in the report.
pub fn run(options: Options, progress: &mut dyn FnMut(Progress)) -> Result<Report, Failure> {
    let (target, _) = Target::of_crowd(&options.url)?;
    let ceiling = Ceiling::find(&target, options.clients)?;
    progress(Progress::Said(ceiling.to_string()));
    ceiling.admit(options.clients)?;
    let mut run = Run::prepare(options, (target, ceiling), progress)?;
    run.connect()?;
    if run.stage.crowd.counts().ready > 0 {
        run.fan_out();
        run.hold()?;
    }
    run.part()?;
    Ok(run.report)
}

struct Run<'a> {
    options: Options,
    target: Target,
    id: u32,
    stage: Stage,
    meter: Meter,
    rival: Option<Rival>,
    progress: &'a mut dyn FnMut(Progress),
    report: Report,
}

impl<'a> Run<'a> {
    fn prepare(
        options: Options,
        (target, ceiling): (Target, Ceiling),
        progress: &'a mut dyn FnMut(Progress),
    ) -> Result<Self, Failure> {
        let clock = Clock::start();
        // Seeded by the system; nothing here is secret.
        let random = RandomState::new().build_hasher().finish();
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&random.to_le_bytes());
        let speech = speech(&options, &target, nonce)?;
        let id = u32::from_le_bytes(nonce[..4].try_into().expect("four of sixteen bytes"));
        let manners = Manners {
            door: Door::new(target.address, ceiling.sources(&target, 0)),
            speech,
            patience: nanos(options.timeout),
            messages: Messages::new(id, &options.channel),
        };
        let meter = Meter::new(options.pid, clock);
        let report = Report::new(&options, ceiling);
        let stage = Stage::new(manners, clock)?;
        Ok(Self { options, target, id, stage, meter, rival: None, progress, report })
    }

    /// Brings the crowd in, and reads memory before and after.
    fn connect(&mut self) -> Result<(), Failure> {
        let mut memory = MemoryUse::default();
        memory.note("base", &mut self.stage, self.meter)?;
        let clients = self.options.clients;
        if let Some(first) = self.options.slope_from.filter(|first| *first < clients) {
            self.report.ramp_before_slope = Some(self.ramp(first)?);
            memory.note("slope", &mut self.stage, self.meter)?;
        }
        self.report.ramp = self.ramp(clients)?;
        memory.note("crowd", &mut self.stage, self.meter)?;
        self.report.memory = memory;
        Ok(())
    }

    fn ramp(&mut self, to: u32) -> Result<Ramp, Failure> {
        let pace = Pace { concurrent: self.options.concurrent.max(1), rate: self.options.rate };
        let ramp = ramp(&mut self.stage, to, pace, self.meter, self.progress)?;
        self.say(ramp.to_string());
        Ok(ramp)
    }

    /// Everything that publishes. A failure here leaves the crowd held, so it only ends this.
    fn fan_out(&mut self) {
        if let Err(failure) = self.try_fan_out() {
            self.say(failure.to_string());
            self.report.stopped = Some(failure);
        }
    }

    fn try_fan_out(&mut self) -> Result<(), Failure> {
        let publishes = self.options.messages > 0 && !self.options.upgrade_only;
        if publishes {
            let api = self.api()?;
            self.stage.set_publisher(Publisher::Api(ApiPublisher::new(api)))?;
            let first = self.volley(1);
            let first = Volley { messages: FIRST_MESSAGES, ..first };
            let first = fanout::round(&mut self.stage, first, self.meter)?;
            self.report.first_messages = Some(first);
            self.report.memory.note("messages", &mut self.stage, self.meter)?;
        }
        if self.options.bare {
            self.start_rival()?;
        }
        if publishes {
            self.rounds()?;
        }
        if publishes && self.options.neighbour {
            let (stage, options) = (&mut self.stage, &self.options);
            let neighbour = neighbour::measure(stage, options, self.meter)?;
            self.say(neighbour.to_string());
            self.report.neighbour = Some(neighbour);
        }
        Ok(())
    }

    fn api(&self) -> Result<Api, Failure> {
        let target = match &self.options.api {
            Some(url) => Target::http(url)?,
            None => self.target.at("/api"),
        };
        Ok(Api { target, key: self.options.api_key.clone().unwrap_or_default() })
    }

    fn volley(&self, in_flight: u32) -> Volley {
        let size = (self.options.size as usize).max(SIZE_MIN);
        let patience = nanos(self.options.timeout);
        Volley { messages: self.options.messages, in_flight, size, patience }
    }

    fn start_rival(&mut self) -> Result<(), Failure> {
        let frame_bytes = match self.stage.crowd.counts().frame_bytes {
            0 => self.volley(1).size,
            bytes => bytes,
        };
        let identity = (self.id, frame_bytes);
        let rival = Rival::start(&mut self.stage, &self.options, identity)?;
        let base = rival.meter.memory()?;
        let ready = self.stage.crowd.counts().ready;
        let ramp = Rival::ramp(&mut self.stage, ready)?;
        let first = Volley { messages: FIRST_MESSAGES, ..self.volley(1) };
        Rival::round(&mut self.stage, first)?;
        let grown = base
            .zip(rival.meter.memory()?)
            .map_or(0.0, |(base, now)| now.resident as f64 - base.resident as f64);
        let memory_per_connection = grown / f64::from(ramp.ready.max(1));
        self.say(format!("bare loop: {ramp}"));
        self.report.bare =
            Some(Bare { frame_bytes, ramp, memory_per_connection, ..Bare::default() });
        self.rival = Some(rival);
        Ok(())
    }

    /// Rounds of the server, in turn with rounds of the bare loop where there is one.
    fn rounds(&mut self) -> Result<(), Failure> {
        let mut windows = vec![1];
        if self.options.in_flight > 1 {
            windows.push(self.options.in_flight);
        }
        for in_flight in windows {
            let (mut server, mut bare) = (Vec::new(), Vec::new());
            for round in 1..=self.options.rounds {
                // Who is first in one round is second in the next: neither always follows the other.
                let mut sides = [Side::Server, Side::Bare];
                if round % 2 == 0 {
                    sides.reverse();
                }
                for side in sides {
                    match side {
                        Side::Server => server.push(self.round(side, (round, in_flight))?),
                        Side::Bare if self.rival.is_none() => {}
                        Side::Bare => bare.push(self.round(side, (round, in_flight))?),
                    }
                }
            }
            let server = Fanout::of(in_flight, server);
            self.say(server.to_string());
            if let Some(report) = &mut self.report.bare {
                let bare = Fanout::of(in_flight, bare);
                report.ratios.extend(ratio(&server, &bare));
                report.fanout.push(bare);
            }
            self.report.fanout.push(server);
        }
        Ok(())
    }

    fn round(&mut self, side: Side, (round, in_flight): (u32, u32)) -> Result<Round, Failure> {
        let of = self.options.rounds;
        (self.progress)(Progress::Round { round, of, in_flight, of_what: side });
        let volley = self.volley(in_flight);
        match side {
            Side::Server => fanout::round(&mut self.stage, volley, self.meter),
            Side::Bare => Rival::round(&mut self.stage, volley),
        }
    }

    /// Holds the crowd idle, and the bare loop's crowd at the same time.
    fn hold(&mut self) -> Result<(), Failure> {
        if !self.options.hold.is_zero() {
            let interval = match self.stage.crowd.counts().ping_interval {
                0 => PING_SECONDS,
                seconds => seconds,
            };
            if let Some(rival) = &mut self.rival {
                rival.ping(interval)?;
            }
            let meters = (self.meter, self.rival.as_ref().map(|rival| rival.meter));
            let hold = nanos(self.options.hold);
            let (idle, bare) = idle::hold(&mut self.stage, hold, meters, self.progress)?;
            if let Some(rival) = &mut self.rival {
                rival.ping(0)?;
            }
            if let Some(report) = &mut self.report.bare {
                report.idle_core_percent = bare;
                let both = idle.server_core_percent.zip(bare.filter(|percent| *percent > 0.0));
                report.idle_ratio = both.map(|(server, bare)| server / bare);
            }
            self.say(idle.to_string());
            self.report.idle = Some(idle);
        }
        self.report.memory.note("end", &mut self.stage, self.meter)
    }

    /// Closes every connection and says what went wrong first.
    fn part(&mut self) -> Result<(), Failure> {
        if self.rival.is_some() && self.report.stopped.is_none() {
            Rival::leave(&mut self.stage)?;
        }
        let crowd = &mut self.stage.crowd;
        self.report.lost_clients = crowd.counts().lost;
        self.report.troubles = crowd.troubles().counts().clone();
        self.report.first_failure = crowd
            .troubles()
            .first(&self.target)
            .or_else(|| self.report.stopped.clone())
            .or_else(|| self.report.shortfall());
        crowd.leave();
        let give_up_at = self.stage.clock.now() + GOODBYE;
        while self.stage.crowd.counts().ready > 0 && self.stage.clock.now() < give_up_at {
            self.stage.turn(give_up_at)?;
        }
        self.stage.crowd.drop_rest();
        Ok(())
    }

    fn say(&mut self, sentence: String) {
        (self.progress)(Progress::Said(sentence));
    }
}

/// What every client of the crowd says.
fn speech(options: &Options, target: &Target, nonce: [u8; 16]) -> Result<Speech, Failure> {
    let (token, channel) = (options.token.clone().unwrap_or_default(), options.channel.clone());
    if Target::of_crowd(&options.url)?.1 {
        return Ok(Speech::Events(events_request(target, &token, &channel)));
    }
    let offer = match options.compressed {
        true => "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        false => "",
    };
    let key = request_key(nonce);
    let json = Upgrade::new(target, &key, offer);
    Ok(if options.upgrade_only {
        Speech::Upgrade(json)
    } else {
        let protobuf = Upgrade::new(target, &key, &format!("{offer}{PROTOBUF_HEADER}"));
        let (encoding, compressed) = (options.encoding, options.compressed);
        let upgrades = Upgrades { json, protobuf, encoding, compressed };
        Speech::Protocol { upgrades, token, channel }
    })
}

//! The event loop under a crowd, its publisher and a line to another process.

use std::io::ErrorKind;
use std::time::Duration;

use mio::{Events, Poll, Token};

use crate::clock::{Clock, Nanos};
use crate::crowd::{Crowd, Manners};
use crate::failure::Failure;
use crate::link::Link;
use crate::publisher::Publisher;

/// Events taken from the kernel at once; more wait for the next turn.
const EVENTS_PER_TURN: usize = 4096;
/// How late a client that takes too long may be noticed.
const PATIENCE_GRAIN: Nanos = 250_000_000;

const PUBLISHER: Token = Token(usize::MAX - 1);
const LINK: Token = Token(usize::MAX - 2);

#[derive(Debug)]
pub(crate) struct Stage {
    poll: Poll,
    events: Events,
    pub(crate) clock: Clock,
    pub(crate) crowd: Crowd,
    publisher: Option<Publisher>,
    link: Option<Link>,
}

impl Stage {
    pub(crate) fn new(manners: Manners, clock: Clock) -> Result<Self, Failure> {
        let poll = Poll::new().map_err(|error| broken(&error))?;
        let registry = poll.registry().try_clone().map_err(|error| broken(&error))?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            clock,
            crowd: Crowd::new(manners, registry, clock),
            publisher: None,
            link: None,
        })
    }

    pub(crate) fn set_publisher(&mut self, mut publisher: Publisher) -> Result<(), Failure> {
        publisher.register(self.poll.registry(), PUBLISHER)?;
        self.publisher = Some(publisher);
        Ok(())
    }

    pub(crate) fn set_link(&mut self, mut link: Link) -> Result<(), Failure> {
        link.register(self.poll.registry(), LINK).map_err(|error| broken(&error))?;
        self.link = Some(link);
        Ok(())
    }

    /// Whether the next publication may be sent.
    pub(crate) fn may_publish(&self) -> bool {
        self.publisher.as_ref().is_some_and(Publisher::is_ready)
    }

    /// Sends one publication with `size` bytes of data to everyone who is in.
    pub(crate) fn publish(&mut self, size: usize) -> Result<(), Failure> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        let audience = self.crowd.counts().ready;
        let number = self.crowd.ledger().publish(self.clock.now(), audience);
        publisher.publish(self.crowd.messages(), number, size)
    }

    /// Fails when the last publication was not even taken.
    pub(crate) fn check_publisher(&self) -> Result<(), Failure> {
        self.publisher.as_ref().and_then(Publisher::silence).map_or(Ok(()), Err)
    }

    /// Waits for events until a moment at most, and handles those that are there.
    pub(crate) fn turn(&mut self, until: Nanos) -> Result<(), Failure> {
        let mut wait = until.saturating_sub(self.clock.now());
        if self.crowd.counts().coming > 0 {
            wait = wait.min(PATIENCE_GRAIN);
        }
        match self.poll.poll(&mut self.events, Some(Duration::from_nanos(wait))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            outcome => outcome.map_err(|error| broken(&error))?,
        }
        for event in &self.events {
            match (event.token(), &mut self.publisher, &mut self.link) {
                (PUBLISHER, Some(publisher), _) => publisher.on_event()?,
                (LINK, _, Some(link)) => link.on_event().map_err(|error| cut(&error))?,
                (PUBLISHER | LINK, ..) => {}
                _ => self.crowd.on_event(event),
            }
        }
        self.crowd.expire();
        Ok(())
    }

    /// Turns until a moment.
    pub(crate) fn turn_until(&mut self, moment: Nanos) -> Result<(), Failure> {
        while self.clock.now() < moment {
            self.turn(moment)?;
        }
        Ok(())
    }

    /// Sends a line to the other process.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        let link = self.link.as_mut().expect("set_link() comes first");
        link.send(line).map_err(|error| cut(&error))
    }

    /// Turns until the other process says something; `None` when it ended.
    pub(crate) fn hear(&mut self, until: Nanos) -> Result<Option<String>, Failure> {
        loop {
            let link = self.link.as_mut().expect("set_link() comes first");
            if let Some(line) = link.next_line() {
                return Ok(Some(line));
            }
            if link.ended() {
                return Ok(None);
            }
            if self.clock.now() >= until {
                return Err(cut(&"it does not answer"));
            }
            self.turn(until)?;
        }
    }
}

fn broken(error: &std::io::Error) -> Failure {
    let next = "raise the limit of this shell: ulimit -n";
    Failure::new("the load cannot wait for events", error, next)
}

fn cut(why: &dyn std::fmt::Display) -> Failure {
    Failure::new("the load lost its other process", why, "run this again")
}

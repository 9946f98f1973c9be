//! Where publications go in: the server's API, or the bare loop's control connection.

mod api;

use mio::{Registry, Token};

pub(crate) use api::{Api, ApiPublisher};

use crate::failure::Failure;
use crate::link::Link;
use crate::message::Messages;

#[derive(Debug)]
pub(crate) enum Publisher {
    /// Requests over a connection that is kept.
    Api(ApiPublisher),
    /// Whole pushes for the bare loop to copy; `frame_bytes` is what one is to take on the wire.
    Bare { link: Link, frame_bytes: usize },
}

impl Publisher {
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> Result<(), Failure> {
        match self {
            Self::Api(api) => api.register(registry, token),
            Self::Bare { link, .. } => link.register(registry, token).map_err(cut),
        }
    }

    /// Whether the publication before this one has been taken.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Api(api) => api.is_ready(),
            Self::Bare { .. } => true,
        }
    }

    /// Sends one publication with `size` bytes of data.
    pub(crate) fn publish(
        &mut self,
        messages: &Messages,
        number: u32,
        size: usize,
    ) -> Result<(), Failure> {
        match self {
            Self::Api(api) => api.publish(&messages.publish_request(number, size)),
            Self::Bare { link, frame_bytes } => {
                // RFC 6455 5.2: a header takes two bytes below 126, four above.
                let payload = frame_bytes.saturating_sub(if *frame_bytes < 128 { 2 } else { 4 });
                link.send(&format!("publish {}", messages.push(number, payload))).map_err(cut)
            }
        }
    }

    /// The publication that is not taken, as a failure; `None` when all were.
    pub(crate) fn silence(&self) -> Option<Failure> {
        match self {
            Self::Api(api) => api.silence(),
            Self::Bare { .. } => None,
        }
    }

    pub(crate) fn on_event(&mut self) -> Result<(), Failure> {
        match self {
            Self::Api(api) => api.on_event(),
            Self::Bare { link, .. } => link.on_event().map_err(cut),
        }
    }
}

fn cut(error: std::io::Error) -> Failure {
    Failure::new("cannot order the bare loop to publish", error, "run this again")
}

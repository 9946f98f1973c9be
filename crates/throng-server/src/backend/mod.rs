//! The application's HTTP endpoints: what they are asked, what they answer, and the calls
//! themselves.
//!
//! A question and its answer are data with numbers, like those of the node: a session leaves a
//! [`Call`], the [`Switchboard`] makes it on the front's runtime, and the [`Answer`] comes back as
//! mail of the shard. A late answer to a connection that is gone is dropped.

mod answer;
mod cache;
mod line;
mod switchboard;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::BackendId;

#[cfg(test)]
pub(crate) use answer::read;
pub(crate) use answer::{Answer, Said, SaidSub};
pub(crate) use switchboard::Switchboard;

/// What a backend is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect,
    Refresh,
    Subscribe,
    Publish,
    Rpc,
    SubRefresh,
}

impl Kind {
    /// As a log line names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Rpc => "rpc",
            Self::SubRefresh => "sub_refresh",
        }
    }

    /// Whether asking twice does no harm: what was sent on a connection that broke may have
    /// arrived.
    fn only_asks(self) -> bool {
        !matches!(self, Self::Publish | Self::Rpc)
    }
}

/// One question to a backend.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) backend: BackendId,
    pub(crate) ask: Ask,
    /// Headers of the client that the backend's options name.
    pub(crate) headers: Headers,
    /// The client's address, where it is known.
    pub(crate) address: Option<IpAddr>,
}

/// Headers of a client.
pub(crate) type Headers = Box<[(HeaderName, HeaderValue)]>;

/// The body of a question; what does not belong to its kind is left out.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Ask {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) client: Box<str>,
    pub(crate) transport: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<Box<str>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) token: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) name: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) version: Box<str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<Box<RawValue>>,
}

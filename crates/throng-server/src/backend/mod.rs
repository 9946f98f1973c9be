//! The application's endpoints over HTTP and gRPC: what they are asked, what they answer, and the calls
//! themselves.
//!
//! A question and its answer are data with numbers, like those of the node: a session leaves a
//! [`Call`], the [`Switchboard`] makes it on the front's runtime, and the [`Answer`] comes back as
//! mail of the shard. A late answer to a connection that is gone is dropped.

mod answer;
mod cache;
mod dial;
mod grpc;
mod line;
mod meter;
mod switchboard;
mod trial;
mod verdict;

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;
use throng_wire::dialect::{Encoding, payload};

use crate::config::{Backend, BackendId};
use crate::token::BASE64;

pub(crate) use answer::{Answer, Said, SaidMode, SaidSub};
pub(crate) use dial::dial;
pub(crate) use meter::{Calls, Metered};
pub(crate) use switchboard::Switchboard;
pub use trial::{Came, NoTrial, Sent, Tried, Trying, attempt};
pub use verdict::{Outcome, Verdict};
#[cfg(test)]
pub(crate) use {answer::understand, trial::judged};

/// What a backend is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Connect,
    Refresh,
    Subscribe,
    Publish,
    Rpc,
    SubRefresh,
    MapPublish,
    MapRemove,
    /// What is there for the keys that clients track; of no client.
    SharedPollRefresh,
}

impl Kind {
    /// Their numbers are part of what is handed over in a restart: new ones come last.
    pub(crate) const ALL: [Self; 9] = [
        Self::Connect,
        Self::Refresh,
        Self::Subscribe,
        Self::Publish,
        Self::Rpc,
        Self::SubRefresh,
        Self::MapPublish,
        Self::MapRemove,
        Self::SharedPollRefresh,
    ];

    /// As a log line names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Rpc => "rpc",
            Self::SubRefresh => "sub_refresh",
            Self::MapPublish => "map_publish",
            Self::MapRemove => "map_remove",
            Self::SharedPollRefresh => "shared_poll_refresh",
        }
    }

    /// Whether asking twice does no harm: what was sent on a connection that broke may have
    /// arrived.
    fn only_asks(self) -> bool {
        !matches!(self, Self::Publish | Self::Rpc | Self::MapPublish | Self::MapRemove)
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

impl Call {
    /// A question, with those of the client's headers that this backend is to see.
    pub(crate) fn new(
        (kind, id): (Kind, BackendId),
        backend: &Backend,
        ask: Ask,
        (sent, emulated): (&Headers, &Headers),
        address: Option<IpAddr>,
    ) -> Self {
        let passed_on = match ask.transport {
            "uni_grpc" => &backend.grpc_metadata,
            _ => &backend.http_headers,
        };
        let is_sent = |name: &HeaderName| passed_on.contains(name);
        // What a client only says that it would send does not stand beside what it has sent.
        let is_emulated =
            |name: &HeaderName| backend.emulated_headers.contains(name) && !is_sent(name);
        let sent = sent.iter().filter(|(name, _)| is_sent(name));
        let emulated = emulated.iter().filter(|(name, _)| is_emulated(name));
        let headers = sent.chain(emulated).cloned().collect();
        Self { kind, backend: id, ask, headers, address }
    }
}

/// Headers of a client.
pub(crate) type Headers = Box<[(HeaderName, HeaderValue)]>;

/// The body of a question; what does not belong to its kind is left out.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Ask {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) client: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) transport: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) protocol: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<Box<str>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) token: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Box<RawValue>>,
    /// A payload that is no JSON, or is to travel so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) b64data: Option<Box<str>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) name: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) version: Box<str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) items: Vec<AskedKey>,
}

/// A key of a shared poll, and what is known of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AskedKey {
    pub(crate) key: Arc<str>,
    /// Left out where the application gives no versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
}

impl Ask {
    /// Who is this?
    pub(crate) fn connect(
        data: Option<&[u8]>,
        (name, version): (&str, &str),
        channels: Vec<Arc<str>>,
    ) -> Self {
        Self { name: name.into(), version: version.into(), channels, ..Self::default() }.with(data)
    }

    /// May this user go on?
    pub(crate) fn refresh(user: &Arc<str>) -> Self {
        Self { user: Some(Arc::clone(user)), ..Self::default() }
    }

    /// What is the answer to this remote call?
    pub(crate) fn rpc(user: &Arc<str>, method: &str, data: Option<&[u8]>) -> Self {
        Self { method: Some(method.into()), ..Self::refresh(user) }.with(data)
    }

    /// May this user subscribe?
    pub(crate) fn subscribe(
        user: &Arc<str>,
        channel: &Arc<str>,
        token: &str,
        data: Option<&[u8]>,
    ) -> Self {
        Self { token: token.into(), ..Self::sub_refresh(user, channel) }.with(data)
    }

    /// May this user publish this?
    pub(crate) fn publish(user: &Arc<str>, channel: &Arc<str>, data: Option<&[u8]>) -> Self {
        Self::sub_refresh(user, channel).with(data)
    }

    /// May this user write or remove this key?
    pub(crate) fn map_key(
        user: &Arc<str>,
        channel: &Arc<str>,
        key: &str,
        data: Option<&[u8]>,
    ) -> Self {
        Self { key: Some(key.into()), ..Self::sub_refresh(user, channel) }.with(data)
    }

    /// May this user's subscription go on?
    pub(crate) fn sub_refresh(user: &Arc<str>, channel: &Arc<str>) -> Self {
        Self { channel: Some(Arc::clone(channel)), ..Self::refresh(user) }
    }

    /// What is there for these keys?
    pub(crate) fn shared_poll_refresh(channel: &Arc<str>, items: Vec<AskedKey>) -> Self {
        Self { channel: Some(Arc::clone(channel)), items, ..Self::default() }
    }

    /// Said by this client, over this transport, in this encoding.
    pub(crate) fn said_by(
        self,
        client: String,
        transport: &'static str,
        encoding: Encoding,
    ) -> Self {
        let protocol = match encoding {
            Encoding::Json => "json",
            Encoding::Protobuf => "protobuf",
        };
        Self { client: client.into(), transport, protocol, encoding: "json", ..self }
    }

    /// With a payload, told as JSON where it is that.
    fn with(self, payload: Option<&[u8]>) -> Self {
        let Some(payload) = payload.filter(|payload| !payload.is_empty()) else { return self };
        match serde_json::from_slice(payload) {
            Ok(json) => Self { data: Some(json), ..self },
            Err(_) => Self { b64data: Some(BASE64.encode(payload::bytes(payload)).into()), ..self },
        }
    }

    /// With its payload as base64 in any case, as `binary_encoding` wants it.
    pub(crate) fn in_base64(mut self) -> Self {
        self.encoding = "binary";
        if let Some(json) = self.data.take() {
            self.b64data = Some(BASE64.encode(json.get()).into());
        }
        self
    }

    /// Whether it brings a payload.
    pub(crate) fn has_payload(&self) -> bool {
        self.data.is_some() || self.b64data.is_some()
    }
}

//! Publishing by a client.

use std::sync::Arc;

use bytes::Bytes;
use throng_hub::publication::ChannelName;
use throng_hub::request::{Publish, Request};

use super::access::{self, Asker};
use super::subscribe::{Shown, retention};
use super::{Awaited, Cx, Session, Step};
use crate::codes::{Disconnect, ErrorCode};
use crate::config::{ChannelError, ChannelOptions, DataFormat};

impl Session {
    pub(super) fn publish(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        channel: &str,
        data: &[u8],
    ) -> Step {
        if channel.is_empty() {
            self.refuse(cx, Disconnect::BAD_REQUEST, "publish names no channel");
            return Step::Done;
        }
        let verdict = self.may_publish(cx, channel, data);
        let options = match verdict {
            Ok(options) => options,
            Err((error, because)) => {
                self.deny(cx, id, error, &format!("{}: {because}", Shown(channel)));
                return Step::Done;
            }
        };
        // Invariant BOUNDED: a publishing client whose bytes have no room is simply not read.
        let Some(drawn) = cx.allowance.draw(data.len()) else {
            cx.effects.starved = Some(data.len());
            return Step::Retry;
        };
        let publish = Publish {
            channel: ChannelName::from(channel),
            data: Bytes::copy_from_slice(data),
            info: Some(self.client_info(None)),
            tags: Box::default(),
            draw: Some(Arc::new(drawn)),
            skip_history: false,
            delta: options.delta_publish,
            idempotency_key: None,
            version: 0,
            version_epoch: Box::default(),
            retention: retention(options),
        };
        match options.publish_backend {
            Some(backend) => {
                let format = options.publication_data_format;
                self.ask_publish(cx, (id, backend), publish, format);
            }
            None => self.ask_node(cx, Request::Publish(publish), Awaited::Publish { id }),
        }
        Step::Done
    }

    fn may_publish<'s>(
        &self,
        cx: &Cx<'s, '_>,
        channel: &str,
        data: &[u8],
    ) -> Result<&'s ChannelOptions, (ErrorCode, String)> {
        let settings = cx.settings;
        let resolved = settings.channel.resolve(channel).map_err(|error| match error {
            ChannelError::UnknownNamespace => (ErrorCode::UNKNOWN_CHANNEL, error.to_string()),
            _ => (ErrorCode::BAD_REQUEST, error.to_string()),
        })?;
        let options = resolved.options;
        if let Some(map) = &options.map {
            let because = format!(
                "subscription_type is {}, so what is published needs a key",
                map.kind.name()
            );
            return Err((ErrorCode::BAD_REQUEST, because));
        }
        if options.poll.is_some() {
            let because = "its subscription_type is shared_poll: nobody gets publications there";
            return Err((ErrorCode::NOT_AVAILABLE, because.to_owned()));
        }
        if let Err(because) = options.publication_data_format.check(data) {
            return Err((ErrorCode::BAD_REQUEST, because.to_owned()));
        }
        let asker = Asker {
            user: &self.user,
            subscriber: cx.registry.find(cx.out.conn.slot, channel).is_some(),
            insecure: cx.settings.client.insecure,
        };
        // Where a backend is asked, its word is what counts.
        if options.publish_backend.is_none() && !access::may_publish(options, asker) {
            let because = "the client may not publish: allow_publish_for_client is off, \
                           or allow_publish_for_subscriber or allow_publish_for_anonymous is \
                           what is missing";
            return Err((ErrorCode::PERMISSION_DENIED, because.to_owned()));
        }
        Ok(options)
    }
}

impl DataFormat {
    /// Whether a payload is what the option asks for.
    ///
    /// # Errors
    /// With the sentence for the log.
    pub fn check(self, data: &[u8]) -> Result<(), &'static str> {
        let json = || serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
        match self {
            Self::Binary => Ok(()),
            _ if data.is_empty() => Err("the payload is empty"),
            Self::NotEmpty => Ok(()),
            Self::Json if json() => Ok(()),
            Self::Json => Err("the payload is not JSON, and publication_data_format is json"),
            Self::JsonObject if data.trim_ascii_start().first() == Some(&b'{') && json() => Ok(()),
            Self::JsonObject => {
                Err("the payload is not a JSON object, and publication_data_format is json_object")
            }
        }
    }
}

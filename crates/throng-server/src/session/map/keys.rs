//! The keys of a map, written and removed by clients.

use std::sync::Arc;

use bytes::Bytes;
use throng_hub::map::{Ask, Call, KeyMode, Removal, Write};
use throng_hub::publication::ChannelName;
use throng_hub::request::Request;
use throng_wire::dialect::KeyRequest;

use crate::backend::{self, Said, SaidMode};
use crate::codes::{Disconnect, ErrorCode};
use crate::config::{BackendId, ChannelError, ClientKey, DataFormat, MapOptions};
use crate::session::access::{self, Asker};
use crate::session::backend::Asked;
use crate::session::subscribe::Shown;
use crate::session::{Awaited, Cx, Session, Step};

/// Characters of a key: what is a name, and no document.
const KEY_CHARS_MAX: usize = 1024;

/// Why a key is none; none: it is one.
pub(crate) fn wrong_key(key: &str) -> Option<String> {
    if key.is_empty() {
        return Some("the key is empty".to_owned());
    }
    let too_long = key.len() > KEY_CHARS_MAX && key.chars().nth(KEY_CHARS_MAX).is_some();
    too_long.then(|| format!("the key has more than {KEY_CHARS_MAX} characters"))
}

/// What a client wants done with a key, where it may.
struct Allowed<'s> {
    map: &'s MapOptions,
    format: DataFormat,
    key: Box<str>,
    backend: Option<BackendId>,
}

impl Session {
    /// A publish that speaks of a key.
    pub(in crate::session) fn publish_key(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        request: &KeyRequest<'_>,
    ) -> Step {
        let channel: &str = &request.channel;
        if channel.is_empty() {
            self.refuse(cx, Disconnect::BAD_REQUEST, "publish names no channel");
            return Step::Done;
        }
        let allowed = match self.may_change(cx, request) {
            Ok(allowed) => allowed,
            Err((error, because)) => {
                self.deny(cx, id, error, &format!("{}: {because}", Shown(channel)));
                return Step::Done;
            }
        };
        let Allowed { map, format, key, backend } = allowed;
        let channel = ChannelName::from(channel);
        let mut write = Write { key, ..Write::default() };
        if !request.removed {
            // Invariant BOUNDED: a publishing client whose bytes have no room is simply not read.
            let Some(drawn) = cx.allowance.draw(request.data.len()) else {
                cx.effects.starved = Some(request.data.len());
                return Step::Retry;
            };
            write.data = Bytes::copy_from_slice(&request.data);
            write.info = Some(self.client_info(None));
            write.draw = Some(Arc::new(drawn));
        }
        if let Some(backend) = backend {
            self.ask_key(cx, (id, backend), (channel, write, request.removed), format);
            return Step::Done;
        }
        let ask = match request.removed {
            true => Ask::Remove(Removal { key: write.key, ..Removal::default() }),
            false => Ask::Publish(write),
        };
        let call = Call { channel, rules: map.rules, ask, quiet: false };
        self.ask_node(cx, Request::Map(Box::new(call)), Awaited::Publish { id });
        Step::Done
    }

    fn may_change<'s>(
        &self,
        cx: &Cx<'s, '_>,
        request: &KeyRequest<'_>,
    ) -> Result<Allowed<'s>, (ErrorCode, String)> {
        let settings = cx.settings;
        let channel: &str = &request.channel;
        let resolved = settings.channel.resolve(channel).map_err(|error| match error {
            ChannelError::UnknownNamespace => (ErrorCode::UNKNOWN_CHANNEL, error.to_string()),
            _ => (ErrorCode::BAD_REQUEST, error.to_string()),
        })?;
        let options = &**resolved.options;
        let Some(map) = options.map.as_deref() else {
            let because = "what is published has a key, and the channel is no map: \
                           subscription_type is \"stream\"";
            return Err((ErrorCode::BAD_REQUEST, because.to_owned()));
        };
        let asker = Asker {
            user: &self.user,
            subscriber: cx.registry.find(cx.out.conn.slot, channel).is_some(),
            insecure: settings.client.insecure,
        };
        let (backend, may, what) = match request.removed {
            true => (map.remove_backend, access::may_remove_keys(map, asker), "remove"),
            false => (map.publish_backend, access::may_write_keys(map, asker), "publish"),
        };
        // Where a backend is asked, its word is what counts.
        if backend.is_none() && !may {
            let because = format!(
                "the client may not {what}: map.allow_{what}_for_client is off, or \
                 map.allow_{what}_for_subscriber or map.allow_{what}_for_anonymous is what is \
                 missing"
            );
            return Err((ErrorCode::PERMISSION_DENIED, because));
        }
        let key: Box<str> = match map.client_key {
            ClientKey::Own => Box::from(&*request.key),
            ClientKey::ClientId => self.client.to_string().into(),
            ClientKey::UserId if self.user.is_empty() => {
                let because = "map.client_key is \"user_id\", and the client has no user";
                return Err((ErrorCode::PERMISSION_DENIED, because.to_owned()));
            }
            ClientKey::UserId => Box::from(&*self.user),
        };
        // A backend may say which key it is.
        let is_open = backend.is_some() && key.is_empty();
        if let Some(because) = wrong_key(&key).filter(|_| !is_open) {
            return Err((ErrorCode::BAD_REQUEST, because));
        }
        let format = options.publication_data_format;
        if !request.removed && format != DataFormat::NotEmpty {
            let checked = format.check(&request.data);
            checked.map_err(|because| (ErrorCode::BAD_REQUEST, because.to_owned()))?;
        }
        Ok(Allowed { map, format, key, backend })
    }

    /// Asks whether a client may change this key, and how.
    fn ask_key(
        &mut self,
        cx: &mut Cx<'_, '_>,
        (id, backend): (u32, BackendId),
        (channel, write, removes): (ChannelName, Write, bool),
        format: DataFormat,
    ) {
        let kind = if removes { backend::Kind::MapRemove } else { backend::Kind::MapPublish };
        let data = (!removes).then_some(&*write.data);
        let ask = backend::Ask::map_key(&self.user, &channel, &write.key, data);
        let asked = Asked::Key { id, channel, write: Box::new(write), removes, format };
        self.ask_backend(cx, (kind, backend), ask, asked);
    }

    /// The application has said what is to become of a key.
    pub(in crate::session) fn key_answered(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        (channel, mut write, removes, format): (ChannelName, Write, bool, DataFormat),
        answer: backend::Answer,
    ) {
        let what = if removes { "map_remove" } else { "map_publish" };
        let said = match answer {
            backend::Answer::Said(said) => *said,
            backend::Answer::Nothing => return self.said_nothing(cx, id, what, &channel),
            refused => return self.refused_by(cx, id, what, refused),
        };
        let settings = cx.settings;
        // It was there when the backend was asked, but the settings may be a newer process's.
        let options = settings.channel.resolve(&channel).ok().map(|resolved| resolved.options);
        let Some(map) = options.and_then(|options| options.map.as_ref()) else {
            let because = format!("{}: it is no map any more", Shown(&channel));
            return self.deny(cx, id, ErrorCode::UNKNOWN_CHANNEL, &because);
        };
        let Said { key, tags, idempotency_key, score, mode, version, version_epoch, grant, .. } =
            said;
        if !key.is_empty() {
            write.key = key.into();
        }
        let mut wrong = wrong_key(&write.key);
        if let Some(data) = grant.data.filter(|_| !removes) {
            wrong = wrong.or(format.check(&data).err().map(str::to_owned));
            write.draw = Some(Arc::new(cx.allowance.hold(data.len())));
            write.data = data;
        }
        if let Some(because) = wrong {
            let because =
                format!("{}: what the {what} backend answered: {because}", Shown(&channel));
            return self.deny(cx, id, ErrorCode::INTERNAL, &because);
        }
        let idempotency_key = (!idempotency_key.is_empty()).then(|| idempotency_key.into());
        let ask = if removes {
            let tags = (!tags.is_empty()).then(|| tags.into());
            Ask::Remove(Removal { key: write.key, tags, idempotency_key })
        } else {
            write.mode = match mode {
                SaidMode::Always => KeyMode::Always,
                SaidMode::IfNew => KeyMode::IfNew,
                SaidMode::IfExists => KeyMode::IfExists,
            };
            (write.tags, write.score, write.idempotency_key) =
                (tags.into(), score, idempotency_key);
            (write.version, write.version_epoch) = (version, version_epoch.into());
            Ask::Publish(write)
        };
        let call = Call { channel, rules: map.rules, ask, quiet: false };
        self.ask_node(cx, Request::Map(Box::new(call)), Awaited::Publish { id });
    }
}

//! Maps of who is subscribed: a subscription shows in them under its connection's or its user's id.
//!
//! A connection's key goes with its subscription. A user's stays for its time, since the user may
//! have other connections, or be back at once.

use std::sync::Arc;

use throng_hub::map::{Ask, Call, KeyMode, Removal, Write};
use throng_hub::publication::{ChannelName, ClientInfo};
use throng_hub::registry::{Registry, SubFlags};
use throng_hub::request::Request;
use uuid::Uuid;

use crate::config::Settings;
use crate::session::{Cx, Session};

/// What takes away what maps show of a subscription that is over.
pub(in crate::session) fn hide<'s>(
    settings: &'s Settings,
    client: Uuid,
    channel: &str,
    flags: SubFlags,
) -> impl Iterator<Item = Call> + use<'s> {
    let options = settings.channel.resolve(channel).ok().map(|resolved| resolved.options);
    let shown = options
        .filter(|options| {
            flags.contains(SubFlags::SHOWS_CLIENT) && !options.map_clients_prefix.is_empty()
        })
        .map(|options| format!("{}{channel}", options.map_clients_prefix));
    let own = flags.contains(SubFlags::REMOVES).then(|| channel.to_owned());
    [shown, own].into_iter().flatten().filter_map(move |map| {
        let removal = Removal { key: client.to_string().into(), ..Removal::default() };
        quiet(settings, &map, Ask::Remove(removal))
    })
}

/// A change of a map that nobody waits for; none where there is no such map any more.
fn quiet(settings: &Settings, channel: &str, ask: Ask) -> Option<Call> {
    let options = settings.channel.resolve(channel).ok()?.options;
    let rules = options.map.as_ref()?.rules;
    Some(Call { channel: ChannelName::from(channel), rules, ask, quiet: true })
}

impl Session {
    /// What takes away what maps show of one of its subscriptions.
    pub(crate) fn hide<'s>(
        &self,
        settings: &'s Settings,
        channel: &str,
        flags: SubFlags,
    ) -> impl Iterator<Item = Call> + use<'s> {
        hide(settings, self.client, channel, flags)
    }

    /// Whether maps show any of its subscriptions.
    pub(crate) fn is_shown(&self, registry: &Registry, slot: u32) -> bool {
        registry.subscriptions(slot).any(|(_, one)| shows(one.flags))
    }

    /// Lets maps show a subscription that has begun.
    pub(in crate::session) fn show(
        &self,
        cx: &mut Cx<'_, '_>,
        channel: &ChannelName,
        flags: SubFlags,
        info: Option<&Arc<ClientInfo>>,
    ) {
        if !shows(flags) {
            return;
        }
        cx.effects.shown = true;
        let settings = cx.settings;
        let Ok(resolved) = settings.channel.resolve(channel) else { return };
        let options = resolved.options;
        let to = crate::session::reply_to(cx, 0);
        let clients = (SubFlags::SHOWS_CLIENT, &options.map_clients_prefix);
        let users = (SubFlags::SHOWS_USER, &options.map_users_prefix);
        for (flag, prefix) in [clients, users] {
            if !flags.contains(flag) || prefix.is_empty() {
                continue;
            }
            let is_client = flag == SubFlags::SHOWS_CLIENT;
            let key = if is_client { self.client.to_string() } else { self.user.to_string() };
            let write = Write {
                key: key.into(),
                info: info.filter(|_| is_client).cloned(),
                mode: KeyMode::IfNew,
                keeps_alive: true,
                ..Write::default()
            };
            let map = format!("{prefix}{channel}");
            if let Some(call) = quiet(settings, &map, Ask::Publish(write)) {
                cx.requests.push((Request::Map(Box::new(call)), to));
            }
        }
    }

    /// Says again that it is there, in all maps that show it.
    pub(crate) fn show_again(&self, cx: &mut Cx<'_, '_>) {
        let shown: Vec<_> = cx
            .registry
            .subscriptions(cx.out.conn.slot)
            .filter(|(_, one)| shows(one.flags))
            .map(|(channel, one)| (ChannelName::clone(channel), one.flags, one.info.clone()))
            .collect();
        for (channel, flags, info) in shown {
            self.show(cx, &channel, flags, info.as_ref());
        }
    }
}

fn shows(flags: SubFlags) -> bool {
    flags.contains(SubFlags::SHOWS_CLIENT) || flags.contains(SubFlags::SHOWS_USER)
}

//! What a shard tells about its clients when somebody looks.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use throng_hub::publication::ChannelName;

use super::Sessions;
use crate::control::Client;
use crate::session::Session;
use crate::shard::Crowd;

/// Channels of a client that are named; more are counted.
const NAMES_MAX: usize = 3;

/// Who is looked for; all that is given must fit.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    pub user: Option<Arc<str>>,
    pub channel: Option<ChannelName>,
    pub address: Option<IpAddr>,
    /// Only clients with bytes waiting, those with the most first.
    pub slow: bool,
    /// Clients that are told in full.
    pub limit: usize,
    /// Users whose newest connection is asked for, in this order.
    pub back: Vec<Arc<str>>,
}

/// What one shard saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How many fit.
    pub count: u64,
    /// What waits for all of them.
    pub waiting_bytes: u64,
    /// By what they are ordered: largest first.
    pub clients: Vec<(u64, Client)>,
    /// The number of the newest connection of each user asked for; 0: none is here.
    pub newest: Vec<u64>,
}

impl Sessions {
    pub(super) fn look(&self, crowd: &Crowd<Session>, wish: &Wish) -> Seen {
        let mut seen = Seen::default();
        let mut fit: Vec<(u64, u32)> = Vec::new();
        let mut meet = |slot: u32| {
            let Some(session) = crowd.session(slot) else { return };
            let waiting = crowd.waiting_bytes(slot) as u64;
            let is_meant = wish.user.as_ref().is_none_or(|user| session.user() == user)
                && wish.address.is_none_or(|wanted| Some(session.address()) == Some(wanted))
                && (!wish.slow || waiting > 0);
            if is_meant {
                seen.count += 1;
                seen.waiting_bytes += waiting;
                let number = crowd.conn_ref(slot).map_or(0, |conn| conn.number);
                fit.push((if wish.slow { waiting } else { number }, slot));
            }
        };
        match (&wish.channel, &wish.user) {
            // Nothing waits anywhere, so the crowd need not be gone through.
            _ if wish.slow && crowd.held_bytes() == 0 => {}
            (Some(channel), _) => self.registry.members(channel).for_each(&mut meet),
            (None, Some(user)) => self.users.slots(user).for_each(&mut meet),
            (None, None) => crowd.sessions().for_each(|(conn, _)| meet(conn.slot)),
        }
        // Of a large crowd only those who are told are put in order.
        if fit.len() > wish.limit {
            fit.select_nth_unstable_by_key(wish.limit, |(by, _)| Reverse(*by));
            fit.truncate(wish.limit);
        }
        fit.sort_unstable_by_key(|(by, _)| Reverse(*by));
        seen.clients = fit
            .into_iter()
            .filter_map(|(by, slot)| Some((by, self.client(crowd, slot)?)))
            .collect();
        seen.newest = wish.back.iter().map(|user| self.newest_of(crowd, user)).collect();
        seen
    }

    fn newest_of(&self, crowd: &Crowd<Session>, user: &str) -> u64 {
        let numbers = self.users.slots(user).filter_map(|slot| crowd.conn_ref(slot));
        numbers.map(|conn| conn.number).max().unwrap_or(0)
    }

    fn client(&self, crowd: &Crowd<Session>, slot: u32) -> Option<Client> {
        let session = crowd.session(slot)?;
        let now = crowd.now();
        let for_s = crowd.second().saturating_sub(session.since_s());
        Some(Client {
            user: session.user().to_string(),
            client: session.client().to_string(),
            transport: session.kind().over(crowd.framing(slot)?),
            connected: session.is_connected(),
            since_unix_s: now.unix_ms / 1000 - i64::from(for_s),
            for_s,
            channel_count: self.registry.count(slot) as u64,
            channels: self
                .registry
                .subscriptions(slot)
                .take(NAMES_MAX)
                .map(|(channel, _)| channel.to_string())
                .collect(),
            waiting_bytes: crowd.waiting_bytes(slot) as u64,
            address: Some(session.address()).map(|address| address.to_string()),
        })
    }
}

//! Who is in one channel.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use uuid::Uuid;

use crate::publication::ClientInfo;
use crate::request::PresenceStats;

/// The clients of one channel; a client is there once.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// In the order in which they are listed.
    clients: BTreeMap<Uuid, Arc<ClientInfo>>,
    /// How many clients each user has, so that counting users needs no list of them.
    users: HashMap<Arc<str>, u32, FixedState>,
}

impl Presence {
    pub(crate) fn enter(&mut self, info: &Arc<ClientInfo>) {
        self.leave(info.client);
        self.clients.insert(info.client, Arc::clone(info));
        *self.users.entry(Arc::clone(&info.user)).or_default() += 1;
    }

    pub(crate) fn leave(&mut self, client: Uuid) {
        let Some(info) = self.clients.remove(&client) else { return };
        let Some(count) = self.users.get_mut(&info.user) else { return };
        *count -= 1;
        if *count == 0 {
            self.users.remove(&info.user);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Sorted by client.
    pub(crate) fn list(&self) -> Vec<Arc<ClientInfo>> {
        self.clients.values().cloned().collect()
    }

    pub(crate) fn stats(&self) -> PresenceStats {
        PresenceStats { clients: count(self.clients.len()), users: count(self.users.len()) }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

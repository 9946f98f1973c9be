//! Which connections of a shard belong to a user.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// No connection.
const NONE: u32 = u32::MAX;

/// The connections of each user: a list threaded through the slots, so that one connection costs
/// twelve bytes and comes and goes without a search.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// Indices into `users`, by name.
    names: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    users: slab::Slab<User>,
    /// By slot.
    links: Vec<Link>,
}

#[derive(Debug)]
struct User {
    name: Arc<str>,
    first: u32,
    count: u32,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    user: u32,
    before: u32,
    after: u32,
}

const UNLINKED: Link = Link { user: NONE, before: NONE, after: NONE };

impl Users {
    /// An empty index.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Users and their numbers of connections, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u32)> {
        self.users.iter().map(|(_, user)| (&user.name, user.count))
    }

    /// Makes room for so many more connections, each of a user of its own.
    pub(crate) fn expect(&mut self, connections: usize) {
        self.links.reserve(connections);
        self.users.reserve(connections);
        let (hasher, users) = (&self.hasher, &self.users);
        self.names.reserve(connections, |key| hasher.hash_one(&*users[*key as usize].name));
    }

    /// Enters a connection; it must not be entered already.
    pub(crate) fn add(&mut self, slot: u32, name: &Arc<str>) {
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, UNLINKED);
        }
        debug_assert_eq!(self.links[at].user, NONE, "a connection has one user");
        let key = self.intern(name);
        let Some(user) = self.users.get_mut(key as usize) else { return };
        let after = std::mem::replace(&mut user.first, slot);
        user.count += 1;
        self.links[at] = Link { user: key, before: NONE, after };
        if let Some(next) = self.links.get_mut(after as usize) {
            next.before = slot;
        }
    }

    /// Takes a connection out, if it is in.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let Link { user: key, before, after } = std::mem::replace(link, UNLINKED);
        let Some(user) = self.users.get_mut(key as usize) else { return };
        user.count -= 1;
        if before == NONE {
            user.first = after;
        } else {
            self.links[before as usize].after = after;
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        if user.count == 0 {
            let hash = self.hasher.hash_one(&*user.name);
            if let Ok(entry) = self.names.find_entry(hash, |found| *found == key) {
                entry.remove();
            }
            self.users.remove(key as usize);
        }
    }

    /// The user's connections, the newest first.
    pub(crate) fn slots(&self, name: &str) -> impl Iterator<Item = u32> {
        let hash = self.hasher.hash_one(name);
        let first = self
            .names
            .find(hash, |key| &*self.users[*key as usize].name == name)
            .map_or(NONE, |key| self.users[*key as usize].first);
        std::iter::successors((first != NONE).then_some(first), |slot| {
            let after = self.links[*slot as usize].after;
            (after != NONE).then_some(after)
        })
    }

    fn intern(&mut self, name: &Arc<str>) -> u32 {
        let hash = self.hasher.hash_one(&**name);
        let users = &mut self.users;
        let hasher = &self.hasher;
        let found = self.names.entry(
            hash,
            |key| users[*key as usize].name == *name,
            |key| hasher.hash_one(&*users[*key as usize].name),
        );
        match found {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let user = User { name: Arc::clone(name), first: NONE, count: 0 };
                let key = u32::try_from(users.insert(user)).unwrap_or(NONE);
                entry.insert(key);
                key
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn agrees_with_a_map_of_sets(steps in prop::collection::vec((0_u32..20, 0_u8..5, any::<bool>()), 0..200)) {
            let mut users = Users::new();
            let mut model: BTreeMap<u32, String> = BTreeMap::new();
            for (slot, name, enter) in steps {
                users.remove(slot);
                model.remove(&slot);
                if enter {
                    let name = format!("user{name}");
                    users.add(slot, &name.as_str().into());
                    model.insert(slot, name);
                }
                for name in 0..5 {
                    let name = format!("user{name}");
                    let mut got: Vec<u32> = users.slots(&name).collect();
                    got.sort_unstable();
                    let want: Vec<u32> = model.iter().filter(|(_, user)| **user == name).map(|(slot, _)| *slot).collect();
                    prop_assert_eq!(got, want);
                }
                let distinct: std::collections::BTreeSet<&String> = model.values().collect();
                prop_assert_eq!(users.iter().count(), distinct.len());
            }
        }
    }
}

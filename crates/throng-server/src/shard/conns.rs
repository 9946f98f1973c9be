//! The records of a shard's connections, and of which of them another process, that is to take them
//! over, already knows all.
//!
//! Whoever takes a record to change it makes it one that is to be told again: nothing that changes a
//! connection can be forgotten. Who knows better takes it with [`Conns::peek_mut`].

use slab::Slab;

use super::conn::{Conn, Flags};
use super::turn::slot_of;

#[derive(Debug)]
pub(super) struct Conns<S> {
    slab: Slab<Conn<S>>,
    /// There while another process is told of connections.
    telling: Option<Box<Telling>>,
}

/// What the other process is still to be told. Bounded by the connections there are, and by those
/// that end in the seconds of a restart.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Slots of those that are new, or not as they were when they were told. Some may have gone, or
    /// stand there twice.
    pub(super) behind: Vec<u32>,
    /// Numbers of those that were told and have gone.
    pub(super) gone: Vec<u64>,
    /// Pieces that were written.
    pub(super) pieces: u64,
}

impl<S> Conns<S> {
    pub(super) fn new() -> Self {
        Self { slab: Slab::new(), telling: None }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub(super) fn get(&self, key: usize) -> Option<&Conn<S>> {
        self.slab.get(key)
    }

    /// A record that is about to change.
    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Conn<S>> {
        let conn = self.slab.get_mut(key)?;
        // One look at what is written to anyway.
        if conn.link.flags.is_told() {
            fall_behind(conn, key, &mut self.telling);
        }
        Some(conn)
    }

    /// A record of which nothing that moves is going to change; where it does after all,
    /// [`Conns::changed`] says so.
    pub(super) fn peek_mut(&mut self, key: usize) -> Option<&mut Conn<S>> {
        self.slab.get_mut(key)
    }

    /// A record that was taken with [`Conns::peek_mut`] has changed.
    pub(super) fn changed(&mut self, key: usize) {
        self.get_mut(key);
    }

    /// Where the next record will be put.
    pub(super) fn vacant_key(&self) -> usize {
        self.slab.vacant_key()
    }

    pub(super) fn insert(&mut self, mut conn: Conn<S>) -> usize {
        let key = self.slab.vacant_key();
        if let Some(telling) = &mut self.telling {
            conn.link.flags.set(Flags::BEHIND);
            telling.behind.push(slot_of(key));
        }
        self.slab.insert(conn)
    }

    pub(super) fn try_remove(&mut self, key: usize) -> Option<Conn<S>> {
        let conn = self.slab.try_remove(key)?;
        if let Some(telling) = &mut self.telling
            && conn.link.flags.has(Flags::TOLD)
        {
            telling.gone.push(conn.link.number);
        }
        Some(conn)
    }

    pub(super) fn iter(&self) -> slab::Iter<'_, Conn<S>> {
        self.slab.iter()
    }

    /// What is still to be told; none where nothing was told yet.
    pub(super) fn telling(&self) -> Option<&Telling> {
        self.telling.as_deref()
    }

    /// The same, from now on at the latest.
    pub(super) fn begin_telling(&mut self) -> &mut Telling {
        self.telling.get_or_insert_default()
    }

    /// A record stays to be told.
    pub(super) fn put_off(&mut self, slot: u32) {
        if let Some(conn) = self.slab.get_mut(slot as usize) {
            conn.link.flags.set(Flags::BEHIND);
            self.telling.get_or_insert_default().behind.push(slot);
        }
    }

    /// The other process knows all of a record.
    pub(super) fn told(&mut self, slot: u32) {
        if let Some(conn) = self.slab.get_mut(slot as usize) {
            conn.link.flags.set(Flags::TOLD);
            conn.link.flags.clear(Flags::BEHIND);
        }
    }

    /// There is no other process any more.
    pub(super) fn forget_told(&mut self) {
        self.telling = None;
        for (_, conn) in &mut self.slab {
            conn.link.flags.clear(Flags::COPIED | Flags::TOLD | Flags::BEHIND);
        }
    }
}

#[cold]
fn fall_behind<S>(conn: &mut Conn<S>, key: usize, telling: &mut Option<Box<Telling>>) {
    conn.link.flags.set(Flags::BEHIND);
    if let Some(telling) = telling {
        telling.behind.push(slot_of(key));
    }
}

//! A shard whose turns are taken by a test, one at a time.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use mio::Events;

use super::Handler;
use super::board::{Aboard, Boarded, LoadOrder, Manifest, NotAboard, Reserved};
use super::conn::State;
use super::freeze::{CopyOrder, Courier};
use super::turn::Shard;
use crate::addresses::Addresses;

/// Who is coming aboard.
#[derive(Debug, Default)]
pub(crate) struct ByHand(Aboard);

impl<H: Handler> Shard<H> {
    /// Takes a turn. Returns whether more is to be done without anything new from outside.
    pub(crate) fn step(&mut self) -> bool {
        let mut events = Events::with_capacity(64);
        self.turn(&mut events).unwrap();
        !events.is_empty()
            || !self.crowd.ready.is_empty()
            || self.letters.len() > 0
            || self.handler.has_work()
            || self.sweep.is_running()
            || !self.mailbox.is_empty()
    }

    /// As [`Shard::hold`] does until it arrives.
    pub(crate) fn empty(&mut self) {
        self.drain();
    }

    /// As [`Shard::hold`] does when it may write.
    pub(crate) fn dump(&mut self, courier: &dyn Courier, shard: u16) -> Vec<u8> {
        self.copy_rest(courier, shard).unwrap();
        self.write_down()
    }

    /// As [`Shard::hold`] does when it may go on.
    pub(crate) fn resume_turns(&mut self) {
        self.thaw();
    }

    /// As [`Shard::hold`] does when the other process has died.
    pub(crate) fn take_back_by_hand(
        &mut self,
        keeps: &(dyn Fn(u64, BorrowedFd<'_>) -> bool + Send + Sync),
    ) {
        self.take_back(keeps);
    }

    /// As [`Shard::board`] does.
    pub(crate) fn take_sockets(&mut self, reserved: Vec<Reserved>, aboard: &mut ByHand) {
        for each in reserved {
            self.reserve(each, &mut aboard.0).unwrap();
        }
    }

    /// As [`Shard::board`] does.
    pub(crate) fn take_over(
        &mut self,
        manifests: &Arc<Vec<Manifest>>,
        (shard, addresses): (usize, &Addresses),
        (aboard, is_last): (&mut ByHand, bool),
    ) -> Result<Boarded, NotAboard> {
        let order = LoadOrder {
            manifests: Arc::clone(manifests),
            shard,
            is_last,
            addresses: addresses.clone(),
            done: std::sync::mpsc::channel().0,
        };
        self.load(&order, &mut aboard.0)
    }

    /// As when it is told to copy its sockets, tell of its connections, or forget that it did.
    pub(crate) fn copy_by_hand(&mut self, order: CopyOrder) {
        self.begin_copying(order);
        while self.copying.is_some() {
            self.copy_some();
        }
    }

    /// How many connections are open, and how many bytes wait for all of them.
    pub(crate) fn crowd_size(&self) -> (usize, usize) {
        let open = self.crowd.conns.iter().filter(|(_, conn)| conn.link.state == State::Open);
        (open.count(), self.crowd.held)
    }
}

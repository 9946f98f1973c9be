//! Orders to restart or drain, on their way from who gives them to the one place that may.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::outcome::{Outcome, Step, Wish};
use crate::control::{DrainStep, Drained};

/// Orders that may wait; those beyond it are told to come again.
const ORDERS_MAX: usize = 8;
/// Steps that whoever gave an order has not read yet; a restart has fewer.
pub(crate) const STEPS_MAX: usize = 64;

/// One order. Who gave it may be gone before it is carried out.
#[derive(Debug)]
pub(crate) enum Order {
    Restart {
        wish: Wish,
        steps: mpsc::Sender<Step>,
        outcome: oneshot::Sender<Outcome>,
    },
    Drain {
        over: Option<Duration>,
        steps: mpsc::Sender<DrainStep>,
        drained: oneshot::Sender<Drained>,
    },
}

/// Where orders are given.
#[derive(Debug, Clone)]
pub(crate) struct Orders(mpsc::Sender<Order>);

impl Orders {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (give, take) = mpsc::channel(ORDERS_MAX);
        (Self(give), take)
    }

    /// Gives an order.
    ///
    /// # Errors
    /// In words, when too many wait already or the server is ending.
    pub(crate) fn give(&self, order: Order) -> Result<(), &'static str> {
        self.0.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "too many orders are waiting; try again",
            mpsc::error::TrySendError::Closed(_) => "the server is ending",
        })
    }
}

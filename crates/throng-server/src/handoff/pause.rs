//! The pause: whoever in the front wants something of the node or the shards passes here, and waits
//! while everything is frozen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::Outlet;

/// Who may pass. Waiting is bounded by the requests, connections and calls in progress, each of
/// which holds a permit.
#[derive(Default)]
pub(crate) struct Pause {
    state: Mutex<State>,
    /// Nobody is inside any more.
    empty: Condvar,
    /// It is open again, or everything has moved.
    over: Notify,
}

#[derive(Default)]
struct State {
    mode: Mode,
    inside: usize,
}

#[derive(Default, Clone)]
enum Mode {
    #[default]
    Open,
    Paused,
    Moved(Arc<dyn Outlet>),
}

/// Everything has moved to another process; what is left goes there.
#[derive(Clone)]
pub(crate) struct Moved(pub(crate) Arc<dyn Outlet>);

/// The right to use the node and the shards until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass<'a>(&'a Pause);

impl Pause {
    /// Passes, when nothing is frozen.
    pub(crate) async fn enter(&self) -> Result<Pass<'_>, Moved> {
        loop {
            let over = self.over.notified();
            if let Some(passed) = self.try_enter() {
                return passed;
            }
            over.await;
        }
    }

    /// Passes now; none: it is paused.
    pub(crate) fn try_enter(&self) -> Option<Result<Pass<'_>, Moved>> {
        let mut state = self.state.lock();
        match &state.mode {
            Mode::Open => {
                state.inside += 1;
                Some(Ok(Pass(self)))
            }
            Mode::Paused => None,
            Mode::Moved(outlet) => Some(Err(Moved(Arc::clone(outlet)))),
        }
    }

    /// Lets nobody in any more, and waits until those who are inside have left. False, and open
    /// again, where that takes longer than `patience`.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        state.mode = Mode::Paused;
        while state.inside > 0 {
            if self.empty.wait_until(&mut state, deadline).timed_out() && state.inside > 0 {
                drop(state);
                self.open();
                return false;
            }
        }
        true
    }

    /// Lets everybody in again.
    pub(crate) fn open(&self) {
        self.state.lock().mode = Mode::Open;
        self.over.notify_waiters();
    }

    /// Resolves when everything has moved to another process.
    pub(crate) async fn until_moved(&self) {
        loop {
            let over = self.over.notified();
            if matches!(self.state.lock().mode, Mode::Moved(_)) {
                return;
            }
            over.await;
        }
    }

    /// Everything has moved.
    pub(crate) fn moved(&self, outlet: Arc<dyn Outlet>) {
        self.state.lock().mode = Mode::Moved(outlet);
        self.over.notify_waiters();
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.inside -= 1;
        if state.inside == 0 {
            self.0.empty.notify_all();
        }
    }
}

impl std::fmt::Debug for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pause").field("inside", &self.state.lock().inside).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Moved")
    }
}

/// A process that has died, for tests: nothing that is passed on to it arrives.
#[cfg(test)]
pub(crate) struct Nowhere;

#[cfg(test)]
impl Outlet for Nowhere {
    fn arrival(&self, _: Vec<u8>, _: std::os::fd::OwnedFd) {}
    fn backend_answer(&self, _: Vec<u8>) {}
    fn call(
        &self,
        _: &str,
        _: crate::front::Asks,
        _: &[u8],
    ) -> tokio::sync::oneshot::Receiver<(u16, Vec<u8>)> {
        tokio::sync::oneshot::channel().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_during_the_pause_waits_for_its_end() {
        let pause = Arc::new(Pause::default());
        assert!(pause.close(Duration::ZERO));
        let waiting = tokio::spawn({
            let pause = Arc::clone(&pause);
            async move { pause.enter().await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && pause.try_enter().is_none());
        pause.open();
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn a_pause_waits_for_those_inside_and_gives_up_in_time() {
        let pause = Arc::new(Pause::default());
        let inside = pause.enter().await.unwrap();
        assert!(!pause.close(Duration::from_millis(1)), "somebody is inside");
        assert!(pause.try_enter().is_some(), "open again");
        let closing = std::thread::spawn({
            let pause = Arc::clone(&pause);
            move || pause.close(Duration::from_secs(20))
        });
        drop(inside);
        assert!(closing.join().unwrap());
        assert!(pause.try_enter().is_none());
    }

    #[tokio::test]
    async fn after_the_move_everybody_is_told_where_to() {
        let pause = Pause::default();
        assert!(pause.close(Duration::ZERO));
        pause.moved(Arc::new(Nowhere));
        assert!(pause.enter().await.is_err());
        pause.until_moved().await;
    }
}

//! Where the calls of all shards are made: on the front's runtime, each a task of its own.

use std::sync::Arc;
use std::time::Duration;

use throng_hub::request::ReplyTo;
use tokio::runtime::Handle;

use super::line::Line;
use super::{Answer, Call, Kind};
use crate::config::{Backends, Level};
use crate::log::{Line as LogLine, Log};
use crate::sessions::{Mail, ShardMailbox};
use crate::shard::Post;

/// How often connections that nobody uses are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(2);

/// All backends.
#[derive(Debug)]
pub(crate) struct Switchboard {
    runtime: Handle,
    /// In the order of the backends' numbers.
    lines: Vec<Line>,
    shards: Vec<Arc<ShardMailbox>>,
    log: Log,
}

impl Switchboard {
    pub(crate) fn start(
        backends: &Backends,
        shards: Vec<Arc<ShardMailbox>>,
        runtime: Handle,
        log: Log,
    ) -> Arc<Self> {
        let lines: Vec<Line> = backends.list.iter().cloned().map(Line::new).collect();
        let switchboard = Arc::new(Self { runtime, lines, shards, log });
        if !switchboard.lines.is_empty() {
            let weak = Arc::downgrade(&switchboard);
            switchboard.runtime.spawn(async move {
                let mut pace = tokio::time::interval(TIDY_EVERY);
                loop {
                    pace.tick().await;
                    let Some(switchboard) = weak.upgrade() else { return };
                    switchboard.lines.iter().for_each(Line::tidy);
                }
            });
        }
        switchboard
    }

    /// Makes a call and mails its answer. A connection has few calls under way at once, so the
    /// tasks are bounded by the crowd, and those that reach a backend by its `max_in_flight`.
    pub(crate) fn call(self: &Arc<Self>, call: Call, to: ReplyTo) {
        let switchboard = Arc::clone(self);
        self.runtime.spawn(async move {
            let answer = switchboard.answer(&call).await;
            if let Some(shard) = switchboard.shards.get(usize::from(to.mailbox)) {
                shard.post(Post::Mail(Mail::Backend { to, answer }));
            }
        });
    }

    async fn answer(&self, call: &Call) -> Answer {
        // A bug of ours, should it be missing: settings and lines are made from one list.
        let Some(line) = self.lines.get(usize::from(call.backend.0)) else {
            return Answer::Failed;
        };
        match line.call(call).await {
            Ok(answer) => answer,
            Err(why) => {
                self.say(call.kind, line, &why);
                Answer::Failed
            }
        }
    }

    /// Invariant NO-SILENCE: a call that came to nothing has a line that names the option.
    fn say(&self, kind: Kind, line: &Line, why: &str) {
        let key = match kind {
            Kind::Connect => "backend.connect",
            Kind::Refresh => "backend.refresh",
            Kind::Subscribe => "backend.subscribe",
            Kind::Publish => "backend.publish",
            Kind::Rpc => "backend.rpc",
            Kind::SubRefresh => "backend.sub_refresh",
        };
        let (name, endpoint) = (kind.name(), &line.backend.endpoint);
        let option = &line.backend.option;
        self.log.line(&LogLine {
            level: Level::Warn,
            key,
            message: format_args!("{name} backend {endpoint}: {why}; {option}.endpoint"),
            fields: &[],
        });
    }
}

//! Applies a changed configuration to the running server, as far as that can be done without a new
//! process: tokens, channels, backends, origins, the API's key, who is in front, and how much is logged.
//! The rest is named.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::config::{Loaded, Said, Settings, Sources, load};
use crate::front::Front;
use crate::log::line;
use crate::sessions::Mail;
use crate::shard::Post;

/// How long the shards may take to begin with other settings.
const SHARDS_PATIENCE: Duration = Duration::from_secs(2);

/// Where the configuration comes from, and what of it holds.
#[derive(Debug)]
pub(crate) struct Source {
    sources: Sources,
    /// Held while it is reloaded, so that two reloads come one after the other.
    said: Mutex<Said>,
}

impl Source {
    pub(crate) fn new(sources: Sources, said: Said) -> Self {
        Self { sources, said: Mutex::new(said) }
    }
}

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Options that hold from now on.
    pub applied: Vec<String>,
    /// Options that have changed and hold after `throng restart`.
    pub needs_restart: Vec<String>,
    /// Why nothing was applied.
    pub problems: Vec<String>,
    /// What should be known.
    pub warnings: Vec<String>,
}

impl Reloaded {
    fn nothing(why: impl Into<String>) -> Self {
        Self { problems: vec![why.into()], ..Self::default() }
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [first, rest @ ..] = &*self.problems {
            write!(f, "nothing changed: {first}")?;
            return rest.iter().try_for_each(|problem| write!(f, "\n                 {problem}"));
        }
        let restart = self.needs_restart.join(", ");
        match (self.applied.len(), self.needs_restart.len()) {
            (0, 0) => f.write_str("nothing changed: the configuration says what it said before"),
            (applied, 0) => write!(f, "{applied} applied; nothing else changed"),
            (applied, 1) => {
                write!(
                    f,
                    "{applied} applied; 1 ({restart}) needs throng restart; nothing else changed"
                )
            }
            (applied, more) => write!(
                f,
                "{applied} applied; {more} ({restart}) need throng restart; nothing else changed"
            ),
        }
    }
}

/// Reads the configuration again and applies what can be applied.
pub(crate) async fn reload(front: &Arc<Front>) -> Reloaded {
    let reloaded = Box::pin(read_again(front)).await;
    let log = &front.common.log;
    if reloaded.problems.is_empty() {
        let applied = reloaded.applied.join(", ");
        line!(log, Info, "reload", "the configuration was read again: {}", reloaded; applied = &*applied);
    } else {
        line!(log, Warn, "reload", "the configuration was read again: {}", reloaded);
    }
    for warning in &reloaded.warnings {
        line!(log, Warn, "config", "{}", warning);
    }
    // A log that was moved away goes on in a new file.
    log.reopen();
    reloaded
}

async fn read_again(front: &Arc<Front>) -> Reloaded {
    let Some(source) = front.source.get() else {
        return Reloaded::nothing("this server was not started from a configuration");
    };
    let mut said = source.said.lock().await;
    let old = front.settings();
    let sources = Sources { first_backend: old.backends.next(), ..source.sources.clone() };
    // It reads a file.
    let Ok(loaded) = tokio::task::spawn_blocking(|| load(sources)).await else {
        return Reloaded::nothing("a bug: reading the configuration panicked");
    };
    let Loaded { settings, problems, warnings, said: newer, file: _ } = loaded;
    let Some(new) = settings else {
        let problems = problems.iter().map(ToString::to_string).collect();
        return Reloaded { problems, ..Reloaded::default() };
    };
    let warnings = warnings.iter().map(ToString::to_string).collect();
    let (applied, needs_restart): (Vec<String>, Vec<String>) =
        said.changes(&newer).into_iter().partition(|path| Said::is_live(path));
    if !applied.is_empty()
        && let Err(why) = apply(front, with_live_of(&old, new)).await
    {
        return Reloaded::nothing(why);
    }
    said.take_live(&newer);
    Reloaded { applied, needs_restart, problems: Vec::new(), warnings }
}

/// What holds, with what a running server takes of `new`.
fn with_live_of(old: &Settings, new: Settings) -> Settings {
    let mut settings = old.clone();
    settings.client.allowed_origins = new.client.allowed_origins;
    settings.client.token = new.client.token;
    settings.client.subscription_token = new.client.subscription_token;
    settings.channel = new.channel;
    settings.shared_poll = new.shared_poll;
    settings.backends = new.backends;
    settings.rpc_ping = new.rpc_ping;
    settings.http_api.key = new.http_api.key;
    settings.proxies.trusted = new.proxies.trusted;
    settings.proxies.header = new.proxies.header;
    settings.log.level = new.log.level;
    if let (Some(api), Some(new)) = (&mut settings.grpc_api, new.grpc_api) {
        api.key = new.key;
    }
    settings
}

async fn apply(front: &Arc<Front>, settings: Settings) -> Result<(), String> {
    let settings = Arc::new(settings);
    let common = &front.common;
    // Not while everything stands still; who has handed over serves nobody.
    let Ok(_pass) = common.pause.enter().await else {
        return Err("another process serves by now; it read the file when it started".to_owned());
    };
    common.notary.reload(&settings).map_err(|error| format!("a thread for tokens: {error}"))?;
    // The backends first: nobody asks one that is not there yet.
    common.switchboard.reload(&settings.backends);
    common.log.set_level(settings.log.level);
    *common.current.write() = Arc::clone(&settings);
    let (ask, taken) = common.desk.collect(common.shards.len());
    for shard in &common.shards {
        let settings = Arc::clone(&settings);
        shard.post(Post::Mail(Mail::Settings { settings, ask }));
    }
    // Who is told that it holds finds it so. A shard that is stuck takes it when it goes on.
    if tokio::time::timeout(SHARDS_PATIENCE, taken).await.is_err() {
        common.desk.give_up(ask);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_it_is_one_sentence() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let said = |applied: &[&str], restart: &[&str]| {
            let (applied, needs_restart) = (names(applied), names(restart));
            Reloaded { applied, needs_restart, ..Reloaded::default() }.to_string()
        };
        assert_eq!(
            said(&["a", "b"], &["http_server.port"]),
            "2 applied; 1 (http_server.port) needs throng restart; nothing else changed"
        );
        assert_eq!(
            said(&[], &["a", "b"]),
            "0 applied; 2 (a, b) need throng restart; nothing else changed"
        );
        assert_eq!(said(&["a"], &[]), "1 applied; nothing else changed");
        assert_eq!(said(&[], &[]), "nothing changed: the configuration says what it said before");
        assert_eq!(Reloaded::nothing("a.toml:1: x").to_string(), "nothing changed: a.toml:1: x");
    }
}

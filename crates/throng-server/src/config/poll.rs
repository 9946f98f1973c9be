//! Shared polls: which keys may be tracked, and how an application is asked for them.

use std::fmt;
use std::time::Duration;

use super::backends::{BackendId, Backends, named_or_default};
use super::read::Reader;
use super::settings::{ChannelOptions, Settings};
use crate::log::Redacted;
use crate::polls::KEY_BYTES_MAX;
use crate::polls::signature::{self, Claim};
use crate::polls::watch::is_key;

/// Calls of all shared polls that may be under way at once, at most.
const CONCURRENCY_MAX: usize = 4_096;
/// Keys of one call, at most: an answer has its bounds, too.
const BATCH_MAX: usize = 10_000;
/// Keys of one connection, at most: what one connection costs is bounded by it.
const KEYS_MAX: usize = 20_000;
/// Polling more often than that is not polling.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// `shared_poll`: what all of them have in common.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SharedPoll {
    /// `shared_poll.hmac_secret_key`: the application signs with it which keys a user may track.
    pub hmac_secret_key: String,
    pub hmac_previous_secret_key: String,
    /// Unix seconds; 0: for ever.
    pub hmac_previous_secret_key_valid_until: i64,
    /// `shared_poll.concurrency_limit`: calls under way at once, of all channels together.
    pub concurrency_limit: usize,
}

impl SharedPoll {
    /// The application's word that `user` may track these keys of `channel`, in this order, as one
    /// would sign it at `now_s`: for `ttl`, or for ever.
    ///
    /// # Errors
    /// There is no key to sign with, or a key that nobody can track.
    pub fn sign(
        &self,
        (user, channel): (&str, &str),
        keys: &[&str],
        ttl: Option<Duration>,
        now_s: i64,
    ) -> Result<String, String> {
        if self.hmac_secret_key.is_empty() {
            return Err("shared_poll.hmac_secret_key is not set".to_owned());
        }
        if let Some(key) = keys.iter().find(|key| !is_key(key)) {
            return Err(format!("{key:?} is no key: those have 1 to {KEY_BYTES_MAX} bytes"));
        }
        let exp = ttl.map_or(0, |ttl| now_s.saturating_add_unsigned(ttl.as_secs()));
        let claim = Claim { user, channel, keys };
        Ok(signature::sign(self.hmac_secret_key.as_bytes(), claim, (now_s, exp)))
    }
}

/// Keys are left out: whoever shows settings shows no secret.
impl fmt::Debug for SharedPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedPoll")
            .field("hmac_secret_key", &Redacted(&self.hmac_secret_key))
            .field("hmac_previous_secret_key", &Redacted(&self.hmac_previous_secret_key))
            .field("valid_until", &self.hmac_previous_secret_key_valid_until)
            .field("concurrency_limit", &self.concurrency_limit)
            .finish()
    }
}

/// `shared_poll` of a namespace whose `subscription_type` is that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollOptions {
    /// Who is asked.
    pub backend: BackendId,
    /// How often it is asked for a key.
    pub refresh_interval: Duration,
    /// Keys of one call.
    pub refresh_batch_size: usize,
    /// Keys that one connection may track in one channel.
    pub max_keys_per_connection: usize,
    /// The application numbers what it answers; else what it says is compared.
    pub versioned: bool,
    /// How long a key that nobody tracks any more is remembered.
    pub channel_shutdown_delay: Duration,
    /// How long after its signature ran out a key is tracked on.
    pub track_expired_extra_delay: Duration,
    /// Whether `shared_poll_publish` may be used.
    pub publish_enabled: bool,
}

/// What all shared polls have in common.
pub(super) fn shared_poll(r: &mut Reader<'_>) -> SharedPoll {
    SharedPoll {
        hmac_secret_key: r.text("shared_poll.hmac_secret_key"),
        hmac_previous_secret_key: r.text("shared_poll.hmac_previous_secret_key"),
        hmac_previous_secret_key_valid_until: r
            .int("shared_poll.hmac_previous_secret_key_valid_until"),
        concurrency_limit: within(r, "shared_poll.concurrency_limit", CONCURRENCY_MAX),
    }
}

/// The options of a namespace, where it is one of shared polls. They are read in any case, so that
/// what is wrong is told.
pub(super) fn of_channel(
    r: &mut Reader<'_>,
    backends: &mut Backends,
    prefix: &str,
) -> Option<PollOptions> {
    let at = |name: &str| format!("{prefix}shared_poll.{name}");
    let kind = format!("{prefix}subscription_type");
    let versions = [("", false), ("versionless", false), ("versioned", true)];
    let refresh_interval = match r.duration(&at("refresh_interval")) {
        interval if interval < INTERVAL_MIN => {
            r.wrong(&at("refresh_interval"), "too short; at least 50ms")
        }
        interval => interval,
    };
    let read = PollOptions {
        backend: BackendId(0),
        refresh_interval,
        refresh_batch_size: within(r, &at("refresh_batch_size"), BATCH_MAX),
        max_keys_per_connection: within(r, &at("max_keys_per_connection"), KEYS_MAX),
        versioned: r.word(&at("mode"), &versions),
        channel_shutdown_delay: r.duration(&at("channel_shutdown_delay")),
        track_expired_extra_delay: r.duration(&at("track_expired_extra_delay")),
        publish_enabled: r.bool(&at("publish_enabled")),
    };
    let name = at("proxy_name");
    // What it else may be is said in `maps`.
    if r.text(&kind) != "shared_poll" {
        // Read, so that what is no text is told.
        r.text(&name);
        return None;
    }
    if read.publish_enabled && !read.versioned {
        let what = "what is published must be newer than what was polled, so both need numbers: \
                    set mode = \"versioned\" beside it";
        let _: () = r.wrong(&at("publish_enabled"), what);
    }
    let backend =
        named_or_default(r, backends, (&kind, &name), "channel.proxy.shared_poll_refresh")?;
    Some(PollOptions { backend, ..read })
}

/// A number from 1 to `most`.
fn within(r: &mut Reader<'_>, path: &str, most: usize) -> usize {
    match r.count(path) {
        count if (1..=most).contains(&count) => count,
        _ => r.wrong(path, &format!("must be from 1 to {most}")),
    }
}

/// What a shared poll needs beside its own options, and what it has no use for.
pub(super) fn check(r: &mut Reader<'_>, settings: &Settings) {
    let channels = &settings.channel;
    let named = channels.namespaces.iter();
    let named = named.map(|(name, options)| (format!("channel.namespaces.{name}."), options));
    let all =
        std::iter::once(("channel.without_namespace.".to_owned(), &channels.without_namespace));
    let polls: Vec<_> = all.chain(named).filter(|(_, options)| options.poll.is_some()).collect();
    if let Some((prefix, _)) = polls.first()
        && settings.shared_poll.hmac_secret_key.is_empty()
    {
        let what = "needs shared_poll.hmac_secret_key: your application signs with it which keys \
                    a user may track. Make one: openssl rand -hex 32";
        let _: () = r.wrong(&format!("{prefix}subscription_type"), what);
    }
    for (prefix, options) in polls {
        let ChannelOptions { presence, join_leave, history_size, publish_backend, .. } = &**options;
        let without_effect = [
            (*presence, "presence"),
            (*join_leave, "join_leave"),
            (*history_size > 0, "history_size"),
            (options.allow_publish_for_client, "allow_publish_for_client"),
            (publish_backend.is_some(), "publish_proxy_enabled"),
        ];
        for (_, name) in without_effect.into_iter().filter(|(on, _)| *on) {
            let what = "has no effect in a namespace of shared polls; remove it";
            r.doubt(&format!("{prefix}{name}"), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};

    fn loaded(toml: &str) -> (Vec<String>, Vec<String>) {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("throng-poll-{}-{number}.toml", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, toml).unwrap();
        let loaded = load(Sources { file: Some(file.clone()), ..Sources::default() });
        std::fs::remove_file(&file).unwrap();
        let shown = |list: &[super::super::Problem]| list.iter().map(ToString::to_string).collect();
        (shown(&loaded.problems), shown(&loaded.warnings))
    }

    const GOOD: &str = r#"
        shared_poll.hmac_secret_key = "k"
        channel.proxy.shared_poll_refresh.endpoint = "http://127.0.0.1:1/x"
        [channel.without_namespace]
        subscription_type = "shared_poll"
    "#;

    #[test]
    fn what_is_missing_is_told_with_what_to_write() {
        assert_eq!(loaded(GOOD), (Vec::new(), Vec::new()));
        for (from, to, told) in [
            ("shared_poll.hmac_secret_key", "# ", "needs shared_poll.hmac_secret_key"),
            ("channel.proxy", "# ", "needs an address to ask"),
            ("\"shared_poll\"", "\"shared_polls\"", "not known; write"),
        ] {
            let (problems, _) = loaded(&GOOD.replacen(from, to, 1));
            assert!(problems.iter().any(|problem| problem.contains(told)), "{told}: {problems:?}");
        }
        for (option, told) in [
            ("shared_poll.publish_enabled = true", "mode = \"versioned\""),
            ("shared_poll.refresh_interval = \"10ms\"", "at least 50ms"),
            ("shared_poll.refresh_batch_size = 0", "from 1 to 10000"),
            ("shared_poll.max_keys_per_connection = 1000000", "from 1 to 20000"),
            ("shared_poll.proxy_name = \"other\"", "add it to proxies"),
            ("shared_poll.mode = \"none\"", "mode"),
        ] {
            let (problems, _) = loaded(&format!("{GOOD}\n{option}"));
            assert!(problems.iter().any(|problem| problem.contains(told)), "{told}: {problems:?}");
        }
        let (_, warnings) = loaded(&format!("{GOOD}\npresence = true"));
        assert!(
            warnings[0].contains("has no effect in a namespace of shared polls"),
            "{warnings:?}"
        );
    }
}

//! Channels that are maps: `subscription_type` and the options beginning with `map.`.

use std::sync::Arc;
use std::time::Duration;

use throng_hub::map::Rules;
use throng_hub::request::Retention;

use super::backends::{BackendId, Backends, of_map};
use super::read::Reader;
use super::settings::{ChannelOptions, Channels};

/// Changes of a map that are kept where `map.stream_size` says nothing.
const STREAM_SIZE: u32 = 100;
/// How long they are where `map.stream_ttl` says nothing.
const STREAM_TTL: Duration = Duration::from_secs(60);
/// A map outlives its last use by so many times the life of a change.
const META_TTL_TIMES: u32 = 10;
/// Changes of an ephemeral map that a client on its way into it may have missed: only these are
/// kept, and only as long as it may take.
const EPHEMERAL_SIZE: u32 = 4096;
/// Keys or changes in a page: unless said otherwise, at least, and at most.
const PAGE_SIZES: [usize; 3] = [100, 100, 1000];
/// How long a client may take from the first page to the last.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Which maps a namespace's channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// Anybody's.
    Map,
    /// Who is subscribed elsewhere, by connection.
    Clients,
    /// The same, by user.
    Users,
}

impl MapKind {
    /// As a subscribe command names it.
    pub fn number(self) -> i32 {
        match self {
            Self::Map => 1,
            Self::Clients => 2,
            Self::Users => 3,
        }
    }

    /// As `subscription_type` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Clients => "map_clients",
            Self::Users => "map_users",
        }
    }
}

/// Which key a client writes, whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientKey {
    /// The one that it says.
    #[default]
    Own,
    ClientId,
    UserId,
}

/// What a namespace's maps are, and who may do what with them.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own in the file")]
pub struct MapOptions {
    pub kind: MapKind,
    pub rules: Rules,
    /// Take what a client wrote under its own id away when it leaves.
    pub remove_client_on_unsubscribe: bool,
    pub client_key: ClientKey,
    pub allow_publish_for_client: bool,
    pub allow_publish_for_subscriber: bool,
    pub allow_publish_for_anonymous: bool,
    pub allow_remove_for_client: bool,
    pub allow_remove_for_subscriber: bool,
    pub allow_remove_for_anonymous: bool,
    pub publish_backend: Option<BackendId>,
    pub remove_backend: Option<BackendId>,
    pub page_default: usize,
    pub page_min: usize,
    pub page_max: usize,
    /// Changes that the last step into a map may bring.
    pub live_max: usize,
    /// From the first page to the last.
    pub catch_up_timeout: Duration,
}

impl MapOptions {
    /// How much a page has that is asked for with this limit.
    pub fn page(&self, limit: i32) -> usize {
        let asked = usize::try_from(limit).unwrap_or(0);
        let asked = if asked == 0 { self.page_default } else { asked };
        asked.clamp(self.page_min, self.page_max)
    }
}

/// `subscription_type` and what belongs to it; none for a stream.
pub(super) fn map_options(
    r: &mut Reader<'_>,
    backends: &mut Backends,
    prefix: &str,
) -> Option<Arc<MapOptions>> {
    let at = |name: &str| format!("{prefix}map.{name}");
    let path = format!("{prefix}subscription_type");
    let kind = kind(r, &path);
    let said = rules(r, &at);
    let [page_default, page_min, page_max] = pages(r, &at);
    let live_max = match r.count(&at("live_transition_max_publication_limit")) {
        0 => page_max,
        limit => limit,
    };
    let options = MapOptions {
        kind: kind.unwrap_or(MapKind::Map),
        rules: said.rules,
        remove_client_on_unsubscribe: r.bool(&at("remove_client_on_unsubscribe")),
        client_key: r.word(
            &at("client_key"),
            &[
                ("", ClientKey::Own),
                ("client_id", ClientKey::ClientId),
                ("user_id", ClientKey::UserId),
            ],
        ),
        allow_publish_for_client: r.bool(&at("allow_publish_for_client")),
        allow_publish_for_subscriber: r.bool(&at("allow_publish_for_subscriber")),
        allow_publish_for_anonymous: r.bool(&at("allow_publish_for_anonymous")),
        allow_remove_for_client: r.bool(&at("allow_remove_for_client")),
        allow_remove_for_subscriber: r.bool(&at("allow_remove_for_subscriber")),
        allow_remove_for_anonymous: r.bool(&at("allow_remove_for_anonymous")),
        publish_backend: of_map(r, backends, prefix, "publish"),
        remove_backend: of_map(r, backends, prefix, "remove"),
        page_default,
        page_min,
        page_max,
        live_max,
        catch_up_timeout: match r.duration(&at("subscribe_catch_up_timeout")) {
            Duration::ZERO => CATCH_UP_TIMEOUT,
            timeout => timeout,
        },
    };
    // Read in any case, so that a value that cannot be is told of.
    let Some(kind) = kind else {
        if options.remove_client_on_unsubscribe {
            let what = "there is no map to remove it from: set subscription_type to \"map\"";
            r.doubt(&at("remove_client_on_unsubscribe"), what);
        }
        return None;
    };
    check(r, &at, &said, kind);
    let asks = [(options.publish_backend, "publish"), (options.remove_backend, "remove")];
    for (_, question) in asks.into_iter().filter(|(backend, _)| backend.is_some()) {
        if options.client_key != ClientKey::Own {
            let what = format!(
                "does not go together with map.{question}_proxy_enabled: your application says \
                 which key it is"
            );
            let _: () = r.wrong(&at("client_key"), &what);
        }
    }
    Some(Arc::new(options))
}

/// None for a stream.
fn kind(r: &mut Reader<'_>, path: &str) -> Option<MapKind> {
    match r.text(path).as_str() {
        // What a shared poll is is said in `poll`.
        "" | "stream" | "shared_poll" => None,
        "map" => Some(MapKind::Map),
        "map_clients" => Some(MapKind::Clients),
        "map_users" => Some(MapKind::Users),
        _ => {
            let what = "not known; write one of \"stream\", \"shared_poll\", \"map\", \
                        \"map_clients\", \"map_users\"";
            r.wrong(path, what)
        }
    }
}

/// What is said of what a map keeps.
struct SaidRules {
    mode: Mode,
    key_ttl: Duration,
    stream_size: u32,
    stream_ttl: Duration,
    meta_ttl: Duration,
    rules: Rules,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Missing,
    Ephemeral,
    Recoverable,
    Persistent,
}

fn rules(r: &mut Reader<'_>, at: &dyn Fn(&str) -> String) -> SaidRules {
    let mode = r.word(
        &at("mode"),
        &[
            ("", Mode::Missing),
            ("ephemeral", Mode::Ephemeral),
            ("recoverable", Mode::Recoverable),
            ("persistent", Mode::Persistent),
        ],
    );
    let key_ttl = r.duration(&at("key_ttl"));
    let stream_size: u32 = r.small(&at("stream_size"), "4294967295");
    let stream_ttl = r.duration(&at("stream_ttl"));
    let meta_ttl = r.duration(&at("meta_ttl"));
    let recoverable = mode != Mode::Ephemeral;
    let changes = if recoverable {
        let size = if stream_size == 0 { STREAM_SIZE } else { stream_size };
        let ttl = if stream_ttl.is_zero() { STREAM_TTL } else { stream_ttl };
        let meta_ttl = match meta_ttl {
            Duration::ZERO if mode != Mode::Persistent => {
                key_ttl.max(ttl.saturating_mul(META_TTL_TIMES))
            }
            said => said,
        };
        Retention { size, ttl_ms: millis(ttl), meta_ttl_ms: millis(meta_ttl) }
    } else {
        let ttl = 2 * match r.duration(&at("subscribe_catch_up_timeout")) {
            Duration::ZERO => CATCH_UP_TIMEOUT,
            timeout => timeout,
        };
        let meta_ttl_ms = millis(ttl.max(key_ttl));
        Retention { size: EPHEMERAL_SIZE, ttl_ms: millis(ttl), meta_ttl_ms }
    };
    let keys_max = match r.count(&at("max_keys")) {
        0 => r.wrong(&at("max_keys"), "must be 1 or more"),
        keys => keys,
    };
    let bytes_max = match r.bytes(&at("max_bytes")) {
        0 => r.wrong(&at("max_bytes"), "must be 1 or more"),
        bytes => bytes,
    };
    let key_ttl_ms = millis(key_ttl);
    let rules = Rules { recoverable, key_ttl_ms, changes, keys_max, bytes_max };
    SaidRules { mode, key_ttl, stream_size, stream_ttl, meta_ttl, rules }
}

/// Whether what is said of a map goes together.
fn check(r: &mut Reader<'_>, at: &dyn Fn(&str) -> String, said: &SaidRules, kind: MapKind) {
    match said.mode {
        Mode::Missing => {
            let what = "is missing: \"ephemeral\" for what is worth nothing when it is old, \
                        \"recoverable\" where clients catch up, \"persistent\" where keys stay";
            return r.wrong(&at("mode"), what);
        }
        Mode::Ephemeral | Mode::Recoverable if said.key_ttl.is_zero() => {
            let what = "is missing: unless map.mode is \"persistent\" every key has an end";
            let _: () = r.wrong(&at("key_ttl"), what);
        }
        Mode::Ephemeral | Mode::Recoverable => {}
        Mode::Persistent => check_persistent(r, at, said, kind),
    }
    if said.mode == Mode::Ephemeral {
        let given = [
            (said.stream_size > 0, "stream_size"),
            (!said.stream_ttl.is_zero(), "stream_ttl"),
            (!said.meta_ttl.is_zero(), "meta_ttl"),
        ];
        for (_, name) in given.into_iter().filter(|(is_given, _)| *is_given) {
            let what = "needs map.mode \"recoverable\" or \"persistent\": an ephemeral map keeps \
                        no changes";
            let _: () = r.wrong(&at(name), what);
        }
        return;
    }
    let ttl_ms = u128::from(said.rules.changes.ttl_ms);
    if !said.meta_ttl.is_zero() && said.meta_ttl.as_millis() < ttl_ms {
        let what = "must not be less than map.stream_ttl (1m if not set): changes would outlive \
                    their places";
        let _: () = r.wrong(&at("meta_ttl"), what);
    }
    if !said.meta_ttl.is_zero() && said.meta_ttl < said.key_ttl {
        let what = "must not be less than map.key_ttl: keys would outlive their map";
        let _: () = r.wrong(&at("meta_ttl"), what);
    }
}

fn check_persistent(
    r: &mut Reader<'_>,
    at: &dyn Fn(&str) -> String,
    said: &SaidRules,
    kind: MapKind,
) {
    if !said.key_ttl.is_zero() {
        let what = "does not go together with map.mode \"persistent\", whose keys have no end";
        let _: () = r.wrong(&at("key_ttl"), what);
    }
    if !said.meta_ttl.is_zero() {
        let what = "does not go together with map.mode \"persistent\": keys that have no end would \
                    outlive their map";
        let _: () = r.wrong(&at("meta_ttl"), what);
    }
    if kind != MapKind::Map {
        let what = "does not go together with this subscription_type: who is gone would stay; \
                    write \"ephemeral\" or \"recoverable\"";
        let _: () = r.wrong(&at("mode"), what);
    }
    let what = "is kept in this server's memory: it survives `throng restart`, but no crash and no \
                stop";
    r.doubt(&at("mode"), what);
}

/// Default, least and most.
fn pages(r: &mut Reader<'_>, at: &dyn Fn(&str) -> String) -> [usize; 3] {
    let names = ["default_page_size", "min_page_size", "max_page_size"];
    let said = names.map(|name| r.count(&at(name)));
    let pairs = [(1, 2), (0, 2), (1, 0)];
    for (small, large) in pairs {
        if said[small] > 0 && said[large] > 0 && said[small] > said[large] {
            let what = format!("must not be less than map.{}", names[small]);
            let _: () = r.wrong(&at(names[large]), &what);
        }
    }
    let [default, min, max] = [0, 1, 2].map(|each| match said[each] {
        0 => PAGE_SIZES[each],
        size => size,
    });
    // What is said counts before what is not.
    let max = if said[2] == 0 { max.max(min).max(said[0]) } else { max };
    let min = if said[1] == 0 { min.min(max).min(default) } else { min };
    // Where they cross, that was said.
    let min = min.min(max);
    [default.clamp(min, max), min, max]
}

/// Whether what `…_presence_channel_prefix` says leads to maps of that kind.
pub(super) fn check_presence(
    r: &mut Reader<'_>,
    channels: &Channels,
    (path, prefix): (&str, &str),
    kind: MapKind,
) {
    if prefix.is_empty() {
        return;
    }
    let boundary = channels.namespace_boundary.as_str();
    let namespace = if boundary.is_empty() { None } else { prefix.split_once(boundary) };
    let found = match namespace {
        None => Some(&channels.without_namespace),
        Some((name, _)) => channels.namespaces.get(name),
    };
    let is_right =
        |options: &Arc<ChannelOptions>| options.map.as_ref().is_some_and(|map| map.kind == kind);
    if !found.is_some_and(is_right) {
        let name = kind.name();
        let what = format!(
            "must begin with a namespace that has subscription_type = \"{name}\", such as \
             \"online:\""
        );
        let _: () = r.wrong(path, &what);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

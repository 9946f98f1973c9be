//! The application's own endpoints that are asked who may do what: their options, read and
//! checked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::read::{self, Reader};
use super::tree::{Syntax, Value};
use super::written::RPC_NAMESPACES;

/// Calls to one endpoint that may be under way at once, where nothing else is said.
const CALLS_MAX: usize = 65_536;

/// Headers that throng sets itself, or that belong to one connection: never copied from a client.
const NEVER_COPIED: [&str; 14] = [
    "x-real-ip",
    "x-forwarded-for",
    "forwarded",
    "host",
    "content-type",
    "content-length",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "accept-encoding",
    "expect",
];

/// A backend's number in [`Backends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendId(pub u16);

/// Every backend that something asks.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    /// In the order of their numbers.
    pub list: Vec<Backend>,
    /// The number of the first. Settings that take the place of others number theirs from there on,
    /// so that a call that was made by the old ones never reaches another backend.
    pub first: u16,
    /// `client.proxy.connect`, when enabled.
    pub connect: Option<BackendId>,
    /// `client.proxy.refresh`, when enabled.
    pub refresh: Option<BackendId>,
    /// `rpc.without_namespace.proxy_enabled`: who answers remote calls.
    pub rpc: Option<BackendId>,
    /// `rpc.namespaces`, and who answers the calls of each.
    pub rpc_namespaces: BTreeMap<String, Option<BackendId>>,
    /// `rpc.namespace_boundary`.
    pub rpc_boundary: String,
    /// All `http_headers` together: what is kept of a client's handshake.
    pub http_headers: Vec<HeaderName>,
    /// All `emulated_headers` together.
    pub emulated_headers: Vec<HeaderName>,
    /// All `grpc_metadata` together: what is kept of the request of a client over gRPC.
    pub grpc_metadata: Vec<HeaderName>,
}

/// One endpoint and how it is asked.
#[derive(Clone, PartialEq)]
pub struct Backend {
    /// The option that a log line names, such as `client.proxy.connect`.
    pub option: String,
    pub endpoint: Endpoint,
    /// How long one answer may take.
    pub timeout: Duration,
    /// Copied from the client's handshake.
    pub http_headers: Vec<HeaderName>,
    /// Taken from what the client says in its connect command.
    pub emulated_headers: Vec<HeaderName>,
    /// Copied from the request of a client over gRPC.
    pub grpc_metadata: Vec<HeaderName>,
    pub include_connection_meta: bool,
    /// Payloads travel as base64, JSON too.
    pub binary_encoding: bool,
    pub static_headers: Vec<(HeaderName, HeaderValue)>,
    /// What calls over gRPC carry: `grpc.static_metadata`, and the credentials.
    pub static_metadata: Vec<(HeaderName, HeaderValue)>,
    pub transforms: Vec<Transform>,
    /// `max_in_flight` (throng's own): calls under way at once.
    pub max_in_flight: usize,
    /// `cache_ttl` (throng's own): how long a connect answer may be used again.
    pub cache_ttl: Duration,
    /// `stale_if_error` (throng's own): how long after that, while the backend fails.
    pub stale_if_error: Duration,
}

/// Where a backend listens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoint {
    pub scheme: Scheme,
    pub host: String,
    pub port: u16,
    /// With its query.
    pub path: String,
}

/// How a backend is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// JSON over HTTP/1.1.
    #[default]
    Http,
    /// `CentrifugoProxy` of `proto/proxy.proto`.
    Grpc,
}

/// What a status that is not 200 is turned into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transform {
    pub status: u16,
    pub to: Transformed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transformed {
    Error { code: u32, message: String, temporary: bool },
    Disconnect { code: u16, reason: String },
}

impl Backends {
    /// The backend of this number.
    pub fn get(&self, id: BackendId) -> Option<&Backend> {
        self.list.get(usize::from(id.0.wrapping_sub(self.first)))
    }

    /// Who answers a remote call.
    ///
    /// # Errors
    /// The namespace of its method, where there is no such one.
    pub fn rpc_of<'m>(&self, method: &'m str) -> Result<RpcOf<'m>, &'m str> {
        let parts = match self.rpc_boundary.as_str() {
            "" => None,
            boundary => method.split_once(boundary),
        };
        let Some((namespace, _)) = parts else {
            return Ok(RpcOf { namespace: "", backend: self.rpc });
        };
        let backend = self.rpc_namespaces.get(namespace).ok_or(namespace)?;
        Ok(RpcOf { namespace, backend: *backend })
    }

    /// Whether any remote call can be answered by a backend.
    pub fn answer_rpc(&self) -> bool {
        self.rpc.is_some() || self.rpc_namespaces.values().any(Option::is_some)
    }

    fn add(&mut self, backend: Backend) -> Option<BackendId> {
        if let Some(at) = self.list.iter().position(|known| known.option == backend.option) {
            return Some(self.id(u16::try_from(at).ok()?));
        }
        let id = u16::try_from(self.list.len()).ok()?;
        for (all, some) in [
            (&mut self.http_headers, &backend.http_headers),
            (&mut self.emulated_headers, &backend.emulated_headers),
            (&mut self.grpc_metadata, &backend.grpc_metadata),
        ] {
            for name in some {
                if !all.contains(name) {
                    all.push(name.clone());
                }
            }
        }
        self.list.push(backend);
        Some(self.id(id))
    }

    /// The first number that none of them has.
    pub(crate) fn next(&self) -> u16 {
        self.first.wrapping_add(u16::try_from(self.list.len()).unwrap_or(u16::MAX))
    }

    fn id(&self, place: u16) -> BackendId {
        BackendId(self.first.wrapping_add(place))
    }
}

/// What the namespace of a remote call says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcOf<'m> {
    /// Empty: without one.
    pub namespace: &'m str,
    /// None: nobody answers it.
    pub backend: Option<BackendId>,
}

impl RpcOf<'_> {
    /// Where its options stand.
    pub fn option(&self) -> String {
        match self.namespace {
            "" => "rpc.without_namespace".to_owned(),
            name => format!("the rpc.namespaces {name}"),
        }
    }
}

/// Whether a client's header of this name is never passed on.
pub fn never_copied(name: &HeaderName) -> bool {
    NEVER_COPIED.contains(&name.as_str())
}

/// Without the query, which may be a secret.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        match self.scheme {
            Scheme::Http => write!(f, "http://{}:{}{path}", self.host, self.port),
            Scheme::Grpc => write!(f, "grpc://{}:{}", self.host, self.port),
        }
    }
}

/// Values of headers are left out: whoever shows settings shows no secret.
impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("option", &self.option)
            .field("endpoint", &self.endpoint.to_string())
            .field("timeout", &self.timeout)
            .field("max_in_flight", &self.max_in_flight)
            .finish_non_exhaustive()
    }
}

/// Backends of clients and remote calls; those of channels are added by [`of_channel`].
pub(super) fn backends(r: &mut Reader<'_>, first: u16) -> Backends {
    let mut backends = Backends { first, ..Backends::default() };
    let cache_ttl = r.duration("client.proxy.connect.cache_ttl");
    let stale_if_error = r.duration("client.proxy.connect.stale_if_error");
    if !stale_if_error.is_zero() && cache_ttl.is_zero() {
        let what = "nothing is remembered without client.proxy.connect.cache_ttl; set both";
        let _: () = r.wrong("client.proxy.connect.stale_if_error", what);
    }
    if r.bool("client.proxy.connect.enabled") {
        let backend = Backend { cache_ttl, stale_if_error, ..backend(r, "client.proxy.connect") };
        backends.connect = backends.add(backend);
    }
    if r.bool("client.proxy.refresh.enabled") {
        let backend = backend(r, "client.proxy.refresh");
        backends.refresh = backends.add(backend);
    }
    backends.rpc = chosen(
        r,
        &mut backends,
        ("rpc.without_namespace.proxy_enabled", "rpc.without_namespace.proxy_name"),
        "rpc.proxy",
    );
    let names: Vec<String> = r.written.rpc_namespaces.iter().cloned().collect();
    for name in names {
        let at = |option: &str| format!("{RPC_NAMESPACES}.{name}.{option}");
        let (switch, chooser) = (at("proxy_enabled"), at("proxy_name"));
        let backend = chosen(r, &mut backends, (&switch, &chooser), "rpc.proxy");
        backends.rpc_namespaces.insert(name, backend);
    }
    backends.rpc_boundary = r.text("rpc.namespace_boundary");
    backends
}

/// The backend of one of a namespace's questions: `subscribe`, `publish` or `sub_refresh`.
pub(super) fn of_channel(
    r: &mut Reader<'_>,
    backends: &mut Backends,
    at: &str,
    question: &str,
) -> Option<BackendId> {
    let switch = format!("{at}{question}_proxy_enabled");
    let name = format!("{at}{question}_proxy_name");
    chosen(r, backends, (&switch, &name), &format!("channel.proxy.{question}"))
}

/// The backend of one of a map's questions: `publish` or `remove`.
pub(super) fn of_map(
    r: &mut Reader<'_>,
    backends: &mut Backends,
    at: &str,
    question: &str,
) -> Option<BackendId> {
    let switch = format!("{at}map.{question}_proxy_enabled");
    let name = format!("{at}map.{question}_proxy_name");
    chosen(r, backends, (&switch, &name), &format!("channel.proxy.map_{question}"))
}

/// Where it is switched on: the default one, or the one of that name.
fn chosen(
    r: &mut Reader<'_>,
    backends: &mut Backends,
    (switch, name): (&str, &str),
    default: &str,
) -> Option<BackendId> {
    if !r.bool(switch) {
        let _ = r.text(name);
        return None;
    }
    named_or_default(r, backends, (switch, name), default)
}

/// The default one, or the one of that name; `switch` is who asks for it.
pub(super) fn named_or_default(
    r: &mut Reader<'_>,
    backends: &mut Backends,
    (switch, name): (&str, &str),
    default: &str,
) -> Option<BackendId> {
    let named = r.text(name);
    if named == "default" || named.is_empty() {
        if r.text(&format!("{default}.endpoint")).is_empty() {
            let what = format!("needs an address to ask: set {default}.endpoint");
            return r.wrong(switch, &what);
        }
        let backend = backend(r, default);
        return backends.add(backend);
    }
    if !r.written.proxies.contains(&named) {
        return r.wrong(name, "there is no such backend; add it to proxies");
    }
    let backend = backend(r, &format!("proxies.{named}"));
    backends.add(backend)
}

fn backend(r: &mut Reader<'_>, at: &str) -> Backend {
    let path = |name: &str| format!("{at}.{name}");
    let endpoint = endpoint(r, &path("endpoint"));
    if endpoint.scheme == Scheme::Grpc {
        judge_grpc(r, at);
    }
    let static_metadata = static_metadata(r, at);
    Backend {
        option: at.to_owned(),
        endpoint,
        static_metadata,
        timeout: match r.duration(&path("timeout")) {
            Duration::ZERO => r.wrong(&path("timeout"), "must be more than 0"),
            timeout => timeout,
        },
        http_headers: header_names(r, &path("http_headers")),
        emulated_headers: header_names(r, &path("emulated_headers")),
        grpc_metadata: header_names(r, &path("grpc_metadata")),
        include_connection_meta: r.bool(&path("include_connection_meta")),
        binary_encoding: r.bool(&path("binary_encoding")),
        static_headers: static_headers(r, &path("http.static_headers")),
        transforms: transforms(r, &path("http.status_to_code_transforms")),
        max_in_flight: match r.count(&path("max_in_flight")) {
            calls @ 1..=CALLS_MAX => calls,
            _ => r.wrong(&path("max_in_flight"), "must be from 1 to 65536"),
        },
        cache_ttl: Duration::ZERO,
        stale_if_error: Duration::ZERO,
    }
}

fn endpoint(r: &mut Reader<'_>, path: &str) -> Endpoint {
    match read_endpoint(&r.text(path)) {
        Ok(endpoint) => endpoint,
        Err(what) => r.wrong(path, what),
    }
}

/// What cannot be had of gRPC.
fn judge_grpc(r: &mut Reader<'_>, at: &str) {
    let path = |name: &str| format!("{at}.{name}");
    if r.bool(&path("grpc.tls.enabled")) {
        let what = "TLS to backends is not supported yet; remove it and let the backend listen on \
                    this machine or network";
        let _: () = r.wrong(&path("grpc.tls.enabled"), what);
    }
    if r.bool(&path("grpc.compression")) {
        r.doubt(&path("grpc.compression"), "not there yet; calls are sent uncompressed");
    }
}

/// What calls over gRPC carry.
fn static_metadata(r: &mut Reader<'_>, at: &str) -> Vec<(HeaderName, HeaderValue)> {
    let path = |name: &str| format!("{at}.{name}");
    let mut metadata = static_headers(r, &path("grpc.static_metadata"));
    let key = r.text(&path("grpc.credentials_key"));
    let value = r.text(&path("grpc.credentials_value")).parse();
    if !key.is_empty() {
        let name = HeaderName::from_bytes(key.as_bytes());
        match name.ok().zip(value.ok()) {
            Some(pair) => metadata.push(pair),
            None => r.wrong(&path("grpc.credentials_key"), "it or its value cannot be metadata"),
        }
    }
    metadata
}

fn read_endpoint(text: &str) -> Result<Endpoint, &'static str> {
    if text.is_empty() {
        return Err(
            "no address to ask; write for example \"http://127.0.0.1:3000/throng/connect\"",
        );
    }
    if text.starts_with("https://") {
        return Err(
            "TLS to backends is not supported yet; give the backend an address of http:// \
                    on this machine or network",
        );
    }
    let no_address = "not an address; it begins with http:// or grpc://";
    let uri: Uri = text.parse().map_err(|_| no_address)?;
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("grpc") => Scheme::Grpc,
        _ => return Err(no_address),
    };
    let authority = uri.authority().ok_or(no_address)?;
    if authority.as_str().contains('@') {
        return Err("holds a name and password, which belong into http.static_headers");
    }
    if scheme == Scheme::Grpc {
        let port = authority.port_u16().ok_or("has no port; write grpc://host:port")?;
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(
                "has a path, which gRPC has not: it has one service; write grpc://host:port",
            );
        }
        let (host, path) = (authority.host().to_owned(), String::new());
        return Ok(Endpoint { scheme, host, port, path });
    }
    Ok(Endpoint {
        scheme,
        host: authority.host().to_owned(),
        port: authority.port_u16().unwrap_or(80),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
    })
}

fn header_names(r: &mut Reader<'_>, path: &str) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for text in r.texts(path) {
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if never_copied(&name) => {}
            Ok(name) => names.push(name),
            Err(_) => r.wrong(path, &format!("{text:?} is not a header's name")),
        }
    }
    names
}

fn static_headers(r: &mut Reader<'_>, path: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, node) in rows(r, path) {
        let text = match node {
            Value::Text(text) => text,
            Value::Int(number) => number.to_string(),
            _ => {
                let _: () = r.wrong(path, "a header's value is a text; put it in quotes");
                continue;
            }
        };
        let pair = HeaderName::from_bytes(name.as_bytes()).ok().zip(text.parse().ok());
        match pair {
            Some(pair) => headers.push(pair),
            None => r.wrong(path, &format!("{name:?} or its value cannot be a header")),
        }
    }
    headers
}

/// A map, which the environment writes as JSON.
fn rows(r: &mut Reader<'_>, path: &str) -> Vec<(String, Value)> {
    let value = r.written.given.get(path).map(|given| given.node.value.clone());
    match value.and_then(of_json) {
        None => Vec::new(),
        Some(Value::Table(rows)) => {
            rows.into_iter().map(|(name, node)| (name, node.value)).collect()
        }
        Some(_) => r.wrong(path, "not a map of names and values"),
    }
}

/// What a text says in JSON; an empty one says nothing.
pub(super) fn of_json(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Text(text) if text.trim().is_empty() => None,
        Value::Text(text) => {
            Some(Syntax::Json.parse(&text).map_or(Value::Text(text), |node| node.value))
        }
        value => Some(value),
    }
}

fn transforms(r: &mut Reader<'_>, path: &str) -> Vec<Transform> {
    let value = r.written.given.get(path).map(|given| given.node.value.clone());
    let list = match value.and_then(of_json) {
        None => return Vec::new(),
        Some(Value::List(list)) => list,
        Some(_) => return r.wrong(path, "not a list"),
    };
    let read: Option<Vec<Transform>> = list.iter().map(|node| transform(&node.value)).collect();
    let what = "each has a status_code, and either to_error with a code from 400 to 1999 and a \
                message, or to_disconnect with a code from 4000 to 4999 and a reason";
    read.unwrap_or_else(|| r.wrong(path, what))
}

fn transform(value: &Value) -> Option<Transform> {
    let status = u16::try_from(read::as_int(field(value, "status_code")?)?).ok()?;
    let number = |value: &Value| read::as_int(field(value, "code")?);
    let words = |value: &Value, name: &str| match field(value, name) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let switched_on = |value: &&Value| number(value).is_some_and(|code| code > 0);
    let to = match (
        field(value, "to_error").filter(switched_on),
        field(value, "to_disconnect").filter(switched_on),
    ) {
        (Some(error), None) => Transformed::Error {
            code: u32::try_from(number(error)?).ok().filter(|code| (400..=1999).contains(code))?,
            message: words(error, "message"),
            temporary: field(error, "temporary").and_then(read::as_bool).unwrap_or(false),
        },
        (None, Some(close)) => Transformed::Disconnect {
            code: u16::try_from(number(close)?).ok().filter(|code| (4000..=4999).contains(code))?,
            reason: words(close, "reason"),
        },
        _ => return None,
    };
    Some(Transform { status, to })
}

pub(super) fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let Value::Table(rows) = value else { return None };
    rows.iter().find(|(key, _)| key == name).map(|(_, node)| &node.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_of_http() {
        let read = |text| read_endpoint(text).map(|endpoint| endpoint.to_string());
        assert_eq!(read("http://app/login?key=x").unwrap(), "http://app:80/login");
        assert_eq!(read("http://[::1]:3000").unwrap(), "http://[::1]:3000/");
        assert!(read("https://app").unwrap_err().contains("TLS"));
        assert_eq!(read("grpc://app:1").unwrap(), "grpc://app:1");
        assert!(read("grpc://app").unwrap_err().contains("port"));
        assert!(read("grpc://app:1/connect").unwrap_err().contains("path"));
        for bad in ["", "app:80", "ftp://x", "http://", "http://a:b@app/", "grpc://a:b@app:1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

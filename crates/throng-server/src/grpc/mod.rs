//! gRPC: remote calls over HTTP/2 with messages in Protobuf. What is called and what is said is in
//! JSON everywhere else in the server, so a [`schema`] read from the .proto texts that users have,
//! too, and one [`transcode`] between the two forms is all that a service needs.

pub(crate) mod frame;
pub(crate) mod schema;
pub(crate) mod status;
pub(crate) mod transcode;

use std::sync::OnceLock;

use self::schema::Schema;

/// The server API, `proto/api.proto`.
pub(crate) fn api() -> &'static Schema {
    static API: OnceLock<Schema> = OnceLock::new();
    API.get_or_init(|| Schema::read(include_str!("../../proto/api.proto")))
}

/// Clients that only listen, `proto/unistream.proto`.
pub(crate) fn unistream() -> &'static Schema {
    static UNISTREAM: OnceLock<Schema> = OnceLock::new();
    UNISTREAM.get_or_init(|| Schema::read(include_str!("../../proto/unistream.proto")))
}

/// What backends are asked, `proto/proxy.proto`.
pub(crate) fn proxy() -> &'static Schema {
    static PROXY: OnceLock<Schema> = OnceLock::new();
    PROXY.get_or_init(|| Schema::read(include_str!("../../proto/proxy.proto")))
}

//! The ports of gRPC.

use std::fmt;

use super::read::Reader;

/// Bytes of one message where nothing else is said; so have gRPC's own servers.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// And of what strangers may say; so have the other transports.
const REQUEST_BYTES: usize = 64 * 1024;
/// What the HTTP API takes of one request.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// `grpc_api`: the server API over gRPC.
#[derive(Clone)]
pub struct GrpcApi {
    /// Empty: every address.
    pub address: String,
    /// 0: any free one.
    pub port: u16,
    /// What callers say in `authorization: apikey KEY`.
    pub key: String,
    /// `grpc_api.insecure` (throng's own): no key is asked for.
    pub insecure: bool,
    /// `error_mode`: errors are statuses of gRPC.
    pub error_mode_transport: bool,
    /// `max_receive_message_size`: bytes of one request.
    pub message_max: usize,
}

/// The key is left out.
impl fmt::Debug for GrpcApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcApi")
            .field("address", &self.address)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// The server API over gRPC, when it is enabled.
pub(super) fn grpc_api(r: &mut Reader<'_>) -> Option<GrpcApi> {
    let api = GrpcApi {
        address: r.text("grpc_api.address"),
        port: r.small("grpc_api.port", "65535"),
        key: r.text("grpc_api.key"),
        insecure: r.bool("grpc_api.insecure"),
        error_mode_transport: r.word("grpc_api.error_mode", &[("", false), ("transport", true)]),
        message_max: message_max(r, "grpc_api.max_receive_message_size", MESSAGE_BYTES),
    };
    if !r.bool("grpc_api.enabled") {
        return None;
    }
    if api.key.is_empty() && !api.insecure {
        let what = "needs a key that callers show: set grpc_api.key, or grpc_api.insecure where \
                    nobody else can connect";
        let _: () = r.wrong("grpc_api.enabled", what);
    }
    Some(api)
}

/// `uni_grpc`: clients over gRPC that only listen.
#[derive(Debug, Clone)]
pub struct UniGrpc {
    /// Empty: every address.
    pub address: String,
    /// 0: any free one.
    pub port: u16,
    /// `max_receive_message_size`: bytes of one connect request.
    pub message_max: usize,
}

/// Clients over gRPC, when they are enabled.
pub(super) fn uni_grpc(r: &mut Reader<'_>) -> Option<UniGrpc> {
    let uni = UniGrpc {
        address: r.text("uni_grpc.address"),
        port: r.small("uni_grpc.port", "65535"),
        message_max: message_max(r, "uni_grpc.max_receive_message_size", REQUEST_BYTES),
    };
    r.bool("uni_grpc.enabled").then_some(uni)
}

fn message_max(r: &mut Reader<'_>, path: &str, unsaid: usize) -> usize {
    match r.count(path) {
        0 => unsaid,
        bytes @ 1..=MESSAGE_BYTES_MAX => bytes,
        _ => r.wrong(path, "too large; at most 16777216, which is 16 MiB"),
    }
}

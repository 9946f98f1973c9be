//! Why a visitor did not become a client, as a label: short, and of a closed set.

/// What is told, and its label.
const REASONS: &[(&str, &str)] = &[
    ("server full", "full"),
    ("too many clients come at once", "rate"),
    ("too many connections of your address", "address"),
    ("the page's origin is not in client.allowed_origins", "origin"),
    ("development mode lets in loopback names only", "dev"),
    ("the server is stopping", "stopping"),
    ("the request came without its Upgrade headers", "upgrade"),
    ("the handshake is wrong", "handshake"),
    // As an earlier version said, whose counts a restart may hand over.
    ("the handshake is wrong, or asks for Protobuf", "handshake"),
    ("the request that opens a stream is wrong", "stream"),
    ("the request's head is too large", "head_too_large"),
    ("the request's head did not come in time", "head_late"),
    ("what came is not a request of HTTP", "not_http"),
    ("the system has no randomness", OTHER),
    ("refused", OTHER),
];

/// Everything else.
const OTHER: &str = "other";

/// The label of a reason.
pub(super) fn label(reason: &str) -> &'static str {
    REASONS.iter().find(|(words, _)| *words == reason).map_or(OTHER, |(_, label)| label)
}

/// Whether somebody thought of a label for it.
pub(crate) fn is_known(reason: &str) -> bool {
    REASONS.iter().any(|(words, _)| *words == reason)
}

/// Every label.
pub(super) fn labels() -> impl Iterator<Item = &'static str> {
    REASONS.iter().map(|(_, label)| *label)
}

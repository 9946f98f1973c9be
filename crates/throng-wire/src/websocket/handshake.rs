//! The key by which a server shows that it understood the upgrade.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

// RFC 6455 1.3: a fixed string that no server ignorant of WebSocket would append.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` that answers this `Sec-WebSocket-Key`.
pub fn accept_key(sec_websocket_key: &str) -> String {
    // RFC 6455 4.2.2: surrounding whitespace of the header's value is no part of the key.
    let digest = Sha1::new().chain_update(sec_websocket_key.trim()).chain_update(GUID).finalize();
    STANDARD.encode(digest)
}

/// The `Sec-WebSocket-Key` of a client whose 16 random bytes these are.
pub fn request_key(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

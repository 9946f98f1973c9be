//! What RFC 6455 demands of the decoder and of the frames sent.

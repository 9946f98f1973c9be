//! The shard with real sockets.

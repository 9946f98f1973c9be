//! The JSON of the protocol, in both directions.

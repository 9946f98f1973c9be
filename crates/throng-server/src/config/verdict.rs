//! What is said when a file asks for something that is not there yet: whoever would get messages
//! that he should not, lose what should survive, or send in the clear what should be encrypted, is
//! not started; for the rest a warning is enough.

/// What becomes of a start whose configuration asks for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Leaving it out would change who receives a message, what survives, or what is encrypted or
    /// checked.
    Stops(&'static str),
    /// Leaving it out is noticed at once by whoever wants it, or does no harm.
    Warns(&'static str),
}

use Verdict::{Stops, Warns};

/// The verdict of a name in the table of options.
pub(super) fn verdict(name: &str) -> Option<Verdict> {
    VERDICTS.iter().find(|(known, _)| *known == name).map(|(_, verdict)| *verdict)
}

/// Where an option only counts together with another: the switch of the second.
pub(super) fn gate(path: &str) -> Option<&'static str> {
    match path {
        "broker.type" => Some("broker.enabled"),
        "presence_manager.type" => Some("presence_manager.enabled"),
        "uni_websocket.write_timeout" => Some("uni_websocket.enabled"),
        "uni_grpc.tls.enabled" => Some("uni_grpc.enabled"),
        "grpc_api.tls.enabled" | "grpc_api.reflection" => Some("grpc_api.enabled"),
        _ => None,
    }
}

const VERDICTS: &[(&str, Verdict)] = &[
    (
        "engine",
        Stops(
            "not supported yet; two nodes would each reach only their own clients. \
             Remove it to run one node with its memory",
        ),
    ),
    (
        "broker",
        Stops(
            "not supported yet; two nodes would each reach only their own clients. \
             Remove it to run one node with its memory",
        ),
    ),
    (
        "presence_manager",
        Stops(
            "not supported yet; each node would know only its own clients as present. \
             Remove it to run one node with its memory",
        ),
    ),
    (
        "controller",
        Stops(
            "not supported yet; commands such as disconnect would reach this node's clients only. \
             Remove it to run one node",
        ),
    ),
    (
        "tls",
        Stops(
            "not supported yet; clients would talk to the server unencrypted. \
             Let a proxy in front end TLS and remove it here",
        ),
    ),
    ("http3", Warns("not supported yet; clients use HTTP/1.1")),
    ("h2c", Warns("not supported yet; clients use HTTP/1.1")),
    (
        "subscribe_proxy",
        Stops(
            "not supported yet; your backend would not be asked who may subscribe. \
             Use subscription tokens",
        ),
    ),
    (
        "consumers",
        Stops(
            "not supported yet; what waits in that queue would not be published. \
             Publish through the server API",
        ),
    ),
    (
        "map_broker",
        Stops(
            "not supported yet; two nodes would each have maps of their own. \
             Remove it to run one node with its memory",
        ),
    ),
    ("transport", Warns("this transport is not there yet; its path answers 404")),
    ("endpoint", Warns("this is not there yet; its path answers 404 and nothing is exported")),
    ("reflection", Warns("not there yet; give tools the file proto/api.proto")),
    ("buffers", Warns("has no effect; the buffers here need no tuning")),
    (
        "write_timeout",
        Warns("has no effect; a client that does not read is closed by client.queue_max_size"),
    ),
    (
        "join_push",
        Warns("has no effect; each push has a message of its own, and several go out in one write"),
    ),
    ("concurrency", Warns("has no effect; the commands of one client are answered in order")),
    ("position_lag", Warns("has no effect; on one node there is no lag")),
    ("usage_stats", Warns("has no effect; nothing is ever reported to anybody")),
    ("metrics_interval", Warns("has no effect; there is one node, whose metrics are always new")),
    ("always_counted", Warns("has no effect; this is always counted, and costs next to nothing")),
    (
        "native_histograms",
        Warns("has no effect; histograms have fixed buckets, which every Prometheus reads"),
    ),
    ("unreleased", Warns("has no effect")),
];

#[cfg(test)]
mod tests {
    use super::super::options::{Status, options};
    use super::*;

    #[test]
    fn every_name_in_the_table_has_its_sentence_and_none_is_left_over() {
        let used: Vec<&str> = options()
            .all
            .values()
            .filter_map(|spec| match spec.status {
                Status::Judged(name) => Some(name),
                Status::Supported | Status::Quiet => None,
            })
            .collect();
        for name in &used {
            assert!(verdict(name).is_some(), "{name}");
        }
        for (name, _) in VERDICTS {
            assert!(used.contains(name), "{name}");
        }
    }
}

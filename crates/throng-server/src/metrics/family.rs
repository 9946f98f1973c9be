//! Every family that there is: its name, what it is, and what it says.

use crate::config::Names;

/// What kind of numbers a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Where a family's name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Centrifugo has it, too: `centrifugo_` before it where that is asked for.
    Shared,
    /// The same, and there it has a longer name.
    SharedAs(&'static str),
    /// throng's alone.
    Own,
    /// What exporters of every kind call it.
    Everybodys,
}

#[derive(Debug)]
pub(super) struct Family {
    /// Without what stands before it.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) origin: Origin,
    pub(super) help: &'static str,
}

impl Family {
    /// Its whole name.
    pub(super) fn full_name(&self, names: Names) -> String {
        match (self.origin, names) {
            (Origin::Everybodys, _) => self.name.to_owned(),
            (Origin::Shared, Names::Centrifugo) => format!("centrifugo_{}", self.name),
            (Origin::SharedAs(name), Names::Centrifugo) => format!("centrifugo_{name}"),
            _ => format!("throng_{}", self.name),
        }
    }
}

/// The names of those that Centrifugo has, too, as they are called there.
#[cfg(test)]
pub(crate) fn centrifugos() -> impl Iterator<Item = String> {
    let shared = |family: &&&Family| matches!(family.origin, Origin::Shared | Origin::SharedAs(_));
    ALL.iter().filter(shared).map(|family| family.full_name(Names::Centrifugo))
}

/// Declares each family once: a constant, and its place on the page.
macro_rules! families {
    ($($(#[$origin:ident $($as:literal)?])? $id:ident = $kind:ident $name:literal; $help:literal)*) => {
        $(pub(super) const $id: Family = Family {
            name: $name,
            kind: Kind::$kind,
            origin: families!(@ $($origin $($as)?)?),
            help: $help,
        };)*
        /// In the order of the page.
        #[cfg(test)]
        pub(super) const ALL: &[&Family] = &[$(&$id),*];
    };
    (@) => { Origin::Shared };
    (@ own) => { Origin::Own };
    (@ everybodys) => { Origin::Everybodys };
    (@ shared $as:literal) => { Origin::SharedAs($as) };
}

families! {
    NUM_CLIENTS = Gauge "node_num_clients"; "Clients that are connected."
    NUM_USERS = Gauge "node_num_users"; "Different users of those clients; all anonymous ones are one."
    NUM_SUBSCRIPTIONS = Gauge "node_num_subscriptions"; "Subscriptions of all clients, but those to shared polls."
    NUM_CHANNELS = Gauge "node_num_channels"; "Channels with subscribers."
    NUM_NODES = Gauge "node_num_nodes"; "Nodes that work together."
    BUILD = Gauge "node_build"; "Always 1; its label is the version."
    MESSAGES_SENT = Counter "node_messages_sent_count"; "Publications, joins and leaves that were given to the broker."
    MESSAGES_RECEIVED = Counter "node_messages_received_count"; "Publications, joins and leaves that came from the broker."
    ACTIONS = Counter "node_action_count"; "How often the node did what."
    BROADCAST = Histogram "node_broadcast_duration_seconds"; "Fan-out: from a publication's coming into its channel until the last subscriber of a shard was written to. One for each publication and shard with subscribers."
    TAGS_FILTER_DROPPED = Counter "node_tags_filter_dropped_publications"; "Publications that subscribers' tags filters held back, one for each subscriber."
    CONNECTION_LIMIT = Counter "node_client_connection_limit"; "Clients that were refused because no more fitted."
    HTTP_REQUESTS = Counter "node_incoming_http_requests_total"; "Requests over HTTP that were answered, or became a client's connection."

    CONNECTIONS_ACCEPTED = Counter "client_connections_accepted"; "Clients that have connected."
    CONNECTIONS_INFLIGHT = Gauge "client_connections_inflight"; "Clients that are connected, by what they speak."
    SUBSCRIPTIONS_ACCEPTED = Counter "client_subscriptions_accepted"; "Subscriptions that clients were given."
    SUBSCRIPTIONS_INFLIGHT = Gauge "client_subscriptions_inflight"; "Subscriptions that clients have."
    #[shared "client_command_duration_seconds_histogram"]
    COMMAND_DURATION = Histogram "client_command_duration_seconds"; "From a client's command having been read until it was answered, whoever was asked between."
    REPLY_ERRORS = Counter "client_num_reply_errors"; "Commands that were answered with an error."
    SERVER_DISCONNECTS = Counter "client_num_server_disconnects"; "Connections that the server ended."
    SERVER_UNSUBSCRIBES = Counter "client_num_server_unsubscribes"; "Subscriptions that the server ended."
    RECOVER = Counter "client_recover"; "Subscriptions that asked for what they had missed."
    RECOVERED_PUBLICATIONS = Histogram "client_recovered_publications"; "Publications that a recovered subscription had missed."
    PING_PONG = Histogram "client_ping_pong_duration_seconds"; "From a ping until its answer. It counts from the moment at which a second's pings began."

    TRANSPORT_SENT = Counter "transport_messages_sent"; "Messages that were said to clients."
    TRANSPORT_SENT_SIZE = Counter "transport_messages_sent_size"; "Bytes of those messages."
    TRANSPORT_RECEIVED = Counter "transport_messages_received"; "Messages that clients said."
    TRANSPORT_RECEIVED_SIZE = Counter "transport_messages_received_size"; "Bytes of those messages."
    OUTGOING_CLOSE = Counter "transport_outgoing_close_count"; "Close frames that were sent to clients."

    #[shared "api_command_duration_seconds_histogram"]
    API_DURATION = Histogram "api_command_duration_seconds"; "How long calls of the server API took."
    API_ERRORS = Counter "api_command_errors_total"; "Calls of the server API that failed."

    #[shared "proxy_duration_seconds_histogram"]
    PROXY_DURATION = Histogram "proxy_duration_seconds"; "How long calls to your backends took."
    PROXY_ERRORS = Counter "proxy_errors"; "Calls to your backends that came to nothing."
    PROXY_INFLIGHT = Gauge "proxy_inflight_requests"; "Calls to your backends that are under way."

    POLL_CHANNELS = Gauge "shared_poll_num_channels"; "Channels of shared polls that clients are subscribed to, or were lately."
    POLL_KEYS = Gauge "shared_poll_num_keys"; "Keys that clients track, or did lately."
    #[own]
    POLL_BYTES = Gauge "shared_poll_data_bytes"; "Bytes of data that are remembered for clients that come later."
    #[own]
    POLL_TRACKINGS = Gauge "shared_poll_num_trackings"; "Keys that clients track, each client's counted."
    POLL_DURATION = Histogram "shared_poll_handler_duration_seconds"; "How long your application took to answer for keys, by why it was asked: timer or urgent."
    POLL_ERRORS = Counter "shared_poll_handler_error_count"; "Questions for keys that came to nothing."
    POLL_ITEMS = Counter "shared_poll_items_count"; "Items of answers, by what became of them."
    POLL_PUBLISHED = Counter "shared_poll_publish_count"; "Calls of shared_poll_publish, by what became of them."

    #[own]
    CLIENTS_MAX = Gauge "clients_max"; "Clients that fit, as the limit of descriptors and the options stand now."
    #[own]
    BUDGET = Gauge "budget_descriptors"; "Descriptors that there are to spend."
    #[own]
    BUDGET_USED = Gauge "budget_used_descriptors"; "Descriptors that are spent, by what for."
    #[own]
    BUDGET_GUARANTEED = Gauge "budget_guaranteed_descriptors"; "Descriptors that are kept free for something, whatever else wants them."
    #[own]
    FULL_IN = Gauge "full_in_seconds"; "When no more client will fit, if it goes on as in the last ten minutes; +Inf while it does not grow."
    #[own]
    REFUSED = Counter "refused_total"; "Visitors that did not become clients, by why."
    #[own]
    RESET = Counter "reset_total"; "Connections that had asked nothing and were reset to make room for others."
    #[own]
    ACCEPT_QUEUE = Gauge "accept_queue_length"; "Connections that wait with the kernel until they are accepted."
    #[own]
    ACCEPT_QUEUE_MAX = Gauge "accept_queue_max"; "How many may wait there."
    #[own]
    LISTEN_OVERFLOWS = Counter "listen_overflows_total"; "Connections that the kernel dropped because an accept queue was full: of all programs in this network namespace, since the machine was started."
    #[own]
    OUTBOXES = Gauge "outboxes"; "Clients that do not keep up: something waits for their socket."
    #[own]
    OUTBOX_BYTES = Gauge "outbox_bytes"; "Bytes that wait for the sockets of those clients."
    #[own]
    OUTBOX_LARGEST = Gauge "outbox_largest_bytes"; "Bytes that wait for the slowest of them."
    #[own]
    BUFFER_BYTES = Gauge "buffer_bytes"; "Bytes in use of limits.buffer_bytes."
    #[own]
    BUFFER_MAX = Gauge "buffer_max_bytes"; "That is limits.buffer_bytes."
    #[own]
    SHARD_SILENCE = Gauge "shard_silent_seconds"; "How long a shard has given no sign of life; above 10 it is stuck."
    #[own]
    SHARD_CLIENTS = Gauge "shard_clients"; "Clients of each shard that are connected."
    #[own]
    PANICS = Counter "panics_total"; "Bugs: inputs that could not be handled, each of which cost one client its connection."
    #[own]
    RESETS = Counter "client_resets_total"; "Clients whose socket took nothing and was reset."
    #[own]
    LATE_ANSWERS = Counter "late_answers_total"; "Answers that came for a client that had gone."
    #[own]
    LOG_DROPPED = Counter "log_lines_dropped_total"; "Lines that found the log full."
    #[own]
    RESTARTS = Counter "restarts_total"; "Restarts that the connections of this server have outlived."
    #[own]
    FROZEN = Gauge "restart_frozen_seconds"; "How long clients waited in the last of them."

    #[everybodys]
    CPU = Counter "process_cpu_seconds_total"; "Processor time that this process has used."
    #[everybodys]
    RESIDENT = Gauge "process_resident_memory_bytes"; "Memory of this process that is in RAM."
    #[everybodys]
    OPEN_FDS = Gauge "process_open_fds"; "Descriptors that this process has open."
    #[everybodys]
    MAX_FDS = Gauge "process_max_fds"; "Descriptors that it may have open."
    #[everybodys]
    START_TIME = Gauge "process_start_time_seconds"; "When this process was started, in seconds since 1970. A restart starts another."
}

//! What a message is called in metrics.

use throng_wire::dialect::{Push, Reply, Request};

/// What is said to a client, or by it. The numbers of those that stand here are part of what is
/// handed over in a restart: new ones come last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Frame {
    #[default]
    Unknown,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Send,
    Rpc,
    Refresh,
    SubRefresh,
    ServerPing,
    ClientPong,
    PushConnect,
    PushSubscribe,
    PushPublication,
    PushJoin,
    PushLeave,
    PushUnsubscribe,
    PushMessage,
    PushRefresh,
    PushDisconnect,
}

/// How many there are.
pub(crate) const FRAMES: usize = 23;
/// Those of them that are methods, first of all.
pub(crate) const METHODS: usize = 12;

impl Frame {
    pub(crate) const ALL: [Self; FRAMES] = [
        Self::Unknown,
        Self::Connect,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::Presence,
        Self::PresenceStats,
        Self::History,
        Self::Send,
        Self::Rpc,
        Self::Refresh,
        Self::SubRefresh,
        Self::ServerPing,
        Self::ClientPong,
        Self::PushConnect,
        Self::PushSubscribe,
        Self::PushPublication,
        Self::PushJoin,
        Self::PushLeave,
        Self::PushUnsubscribe,
        Self::PushMessage,
        Self::PushRefresh,
        Self::PushDisconnect,
    ];

    /// What a client asks for.
    pub(crate) fn of_request(request: &Request<'_>) -> Self {
        match request {
            Request::Connect(_) => Self::Connect,
            Request::Subscribe(_) => Self::Subscribe,
            Request::Unsubscribe { .. } => Self::Unsubscribe,
            Request::Publish { .. } | Request::PublishKey(_) => Self::Publish,
            Request::Presence { .. } => Self::Presence,
            Request::PresenceStats { .. } => Self::PresenceStats,
            Request::History(_) => Self::History,
            Request::Rpc { .. } => Self::Rpc,
            Request::Send { .. } => Self::Send,
            Request::Refresh { .. } => Self::Refresh,
            Request::SubRefresh { .. } => Self::SubRefresh,
            Request::Pong => Self::ClientPong,
            Request::Unknown => Self::Unknown,
        }
    }

    /// What a reply is to; that of an error, it does not say.
    pub(crate) fn of_reply(reply: &Reply<'_>) -> Option<Self> {
        Some(match reply {
            Reply::Error { .. } => return None,
            Reply::Connect(_) => Self::Connect,
            Reply::Subscribe(_) => Self::Subscribe,
            Reply::Unsubscribe => Self::Unsubscribe,
            Reply::Publish => Self::Publish,
            Reply::Presence(_) => Self::Presence,
            Reply::PresenceStats { .. } => Self::PresenceStats,
            Reply::History { .. } => Self::History,
            Reply::Rpc { .. } => Self::Rpc,
            Reply::Refresh(_) => Self::Refresh,
            Reply::SubRefresh { .. } => Self::SubRefresh,
        })
    }

    pub(crate) fn of_push(push: &Push<'_>) -> Self {
        match push {
            Push::Publication { .. } => Self::PushPublication,
            Push::Join { .. } => Self::PushJoin,
            Push::Leave { .. } => Self::PushLeave,
            Push::Unsubscribe { .. } => Self::PushUnsubscribe,
            Push::Message { .. } => Self::PushMessage,
            Push::Subscribe { .. } => Self::PushSubscribe,
            Push::Connect(_) => Self::PushConnect,
            Push::Disconnect { .. } => Self::PushDisconnect,
            Push::Refresh { .. } => Self::PushRefresh,
            Push::Ping => Self::ServerPing,
        }
    }

    /// As Centrifugo names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History => "history",
            Self::Send => "send",
            Self::Rpc => "rpc",
            Self::Refresh => "refresh",
            Self::SubRefresh => "sub_refresh",
            Self::ServerPing => "server_ping",
            Self::ClientPong => "client_pong",
            Self::PushConnect => "push_connect",
            Self::PushSubscribe => "push_subscribe",
            Self::PushPublication => "push_publication",
            Self::PushJoin => "push_join",
            Self::PushLeave => "push_leave",
            Self::PushUnsubscribe => "push_unsubscribe",
            Self::PushMessage => "push_message",
            Self::PushRefresh => "push_refresh",
            Self::PushDisconnect => "push_disconnect",
        }
    }
}

/// The client libraries that are told apart. What a client calls itself is its own choice, so
/// everything else is one more of those that nobody knows: no client can make a new series.
pub(crate) const LIBRARIES: [&str; 8] =
    ["unregistered", "js", "dart", "swift", "java", "python", "go", "csharp"];

/// The place of a client's name among those.
pub(crate) fn library(name: &str) -> u8 {
    let at = LIBRARIES.iter().position(|known| *known == name).unwrap_or(0);
    u8::try_from(at).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_where_its_number_says_and_methods_come_first() {
        for (at, frame) in Frame::ALL.into_iter().enumerate() {
            assert_eq!(frame as usize, at);
            let is_method = !frame.name().starts_with("push_")
                && !matches!(frame, Frame::ServerPing | Frame::ClientPong);
            assert_eq!(is_method, at < METHODS, "{frame:?}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_no_new_one() {
        assert_eq!(LIBRARIES[usize::from(library("js"))], "js");
        assert_eq!(LIBRARIES[usize::from(library("JS"))], "unregistered");
        assert_eq!(LIBRARIES[usize::from(library(""))], "unregistered");
    }
}

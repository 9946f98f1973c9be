//! What the two processes of a restart tell each other.

use serde::{Deserialize, Serialize};

use super::heir::Proof;
use crate::front::Asks;

/// Versions of this conversation that this program speaks, the first and the last.
pub(crate) const CONVERSATION: (u32, u32) = (1, TELLS_AHEAD);
/// From this one on, connections are told of ahead.
pub(crate) const TELLS_AHEAD: u32 = 2;

/// What the new process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromNew {
    /// The first message.
    Hello(Hello),
    /// So many of what was sent have arrived: the acknowledgement of a batch.
    Got(u64),
    /// Everything that was sent ahead is in its place.
    Ready { sockets: u64 },
    /// Said by the process between the two, where there is one: the number of the new one.
    Born { pid: u32 },
    /// It cannot go on, and ends.
    Refused(String),
    /// Everything is loaded and checked, and this process serves from now on: the one message
    /// after which the other never serves again.
    Serving { connections: u64 },
    /// After the commit: whatever becomes of this process, the other must not come back, because this
    /// one ends as it was told to, or hands over to a third.
    Settled,
    /// The answer to a call of the API; its body in a sealed file.
    Reply { id: u64, status: u16 },
}

/// Who the new process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    #[serde(flatten)]
    pub(crate) proof: Proof,
    /// How many descriptors it may have.
    pub(crate) descriptors: u64,
}

/// What the old process says. Descriptors come beside the message that speaks of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromOld {
    /// The answer to hello: what will be spoken, and how long this server has been up, in
    /// milliseconds. With the way to the keeper, if there is one.
    Welcome { speaks: u32, uptime_ms: u64, has_keeper: bool },
    /// The sockets that are listened on; by door.
    Listeners(Vec<Doorway>),
    /// Sockets of connections.
    Sockets(Vec<Tag>),
    /// A part of the history, in a sealed file.
    History,
    /// Some connections of a shard as they are now, in a sealed file. Their sockets went before.
    Connections { shard: usize },
    /// Everything that could go ahead has gone.
    Ahead,
    /// The freeze: everything else, in sealed files that come one by one in this order: changes of
    /// the history, what all share, and each shard. With the list for connections that are used.
    Cargo { shards: usize },
    /// One of those files.
    Part,
    /// It was only a rehearsal: end.
    Enough,
    /// After the commit: a connection that was being upgraded. Its state and its socket.
    Arrival,
    /// After the commit: a backend's answer, in a sealed file.
    BackendAnswer,
    /// After the commit: a request of the API that came to the old process, its body in a sealed
    /// file. Whoever made it had the right to.
    Call(Call),
}

/// A request of the API. Its body comes in a sealed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// By which its reply is known.
    pub(crate) id: u64,
    /// Empty for the old form, in which the body names it.
    pub(crate) method: String,
    pub(crate) asks: Asks,
}

/// A listener's door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doorway {
    Both,
    Public,
    Internal,
    GrpcApi,
    UniGrpc,
}

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) number: u64,
    pub(crate) cookie: u64,
    pub(crate) shard: u16,
}

/// The newest conversation that both speak.
pub(crate) fn common(theirs: (u32, u32)) -> Option<u32> {
    let newest = theirs.1.min(CONVERSATION.1);
    (newest >= theirs.0.max(CONVERSATION.0)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_conversation_that_both_speak_is_spoken() {
        let (first, last) = CONVERSATION;
        assert_eq!(common((first, first)), Some(first));
        assert_eq!(common((first, last + 5)), Some(last));
        assert_eq!(common((last + 1, last + 5)), None);
        assert_eq!(common((0, 0)), None);
    }

    #[test]
    fn what_a_later_version_adds_to_hello_is_skipped() {
        let text =
            r#"{"hello":{"version":"9","speaks":[1,9],"state":[1,4],"descriptors":5,"new":{}}}"#;
        let FromNew::Hello(hello) = serde_json::from_str(text).unwrap() else { panic!() };
        assert_eq!((hello.proof.speaks, hello.proof.state), ((1, 9), (1, 4)));
    }
}

//! What can happen to one client of the crowd, counted by kind; the first is kept whole.

use std::collections::BTreeMap;
use std::io;

use throng_limits::room::nginx::Nginx;
use throng_wire::websocket::Violation;

use crate::failure::Failure;
use crate::handshake::Refusal;
use crate::target::Target;

/// Why a client could not come in, or left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("connection refused")]
    Refused,
    #[error("no descriptor left in this process (EMFILE)")]
    OwnDescriptors,
    #[error("no source port left for this destination")]
    OwnPorts,
    #[error("no answer while {step}, {seconds} s long")]
    Timeout { step: &'static str, seconds: u64 },
    #[error("the connection ended while {step}")]
    Cut { step: &'static str },
    #[error("{source} while {step}")]
    Io { step: &'static str, source: io::Error },
    #[error(transparent)]
    Handshake(#[from] Refusal),
    #[error("{command} was answered with error {code} ({message})")]
    Command { command: &'static str, code: u32, message: String },
    #[error("closed by the server with {code} ({reason})")]
    Closed { code: u16, reason: String },
    #[error("unsubscribed by the server with {code} ({reason})")]
    Unsubscribed { code: u32, reason: String },
    #[error("the server broke the protocol: {0}")]
    Violation(String),
}

impl Trouble {
    pub(crate) fn of_io(step: &'static str, error: io::Error) -> Self {
        // Linux errno(3): 24 EMFILE, 23 ENFILE, 99 EADDRNOTAVAIL, 98 EADDRINUSE.
        match error.raw_os_error() {
            Some(23 | 24) => Self::OwnDescriptors,
            Some(98 | 99) => Self::OwnPorts,
            _ if error.kind() == io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Io { step, source: error },
        }
    }

    /// By what the counts of a report are grouped.
    fn kind(&self) -> String {
        match self {
            Self::Refused => "refused".to_owned(),
            Self::OwnDescriptors => "own_descriptors".to_owned(),
            Self::OwnPorts => "own_ports".to_owned(),
            Self::Timeout { step, .. } => format!("timeout_{}", step.replace(' ', "_")),
            Self::Cut { step } => format!("cut_{}", step.replace(' ', "_")),
            Self::Io { source, .. } => format!("{:?}", source.kind()).to_lowercase(),
            Self::Handshake(Refusal::Status { status, .. }) => format!("status_{status}"),
            Self::Handshake(_) => "handshake".to_owned(),
            Self::Command { code, .. } => format!("error_{code}"),
            Self::Closed { code, .. } => format!("closed_{code}"),
            Self::Unsubscribed { code, .. } => format!("unsubscribed_{code}"),
            Self::Violation(_) => "protocol".to_owned(),
        }
    }

    /// What to run or change next.
    fn next(&self, target: &Target) -> String {
        match self {
            Self::OwnDescriptors => "raise the hard limit of this shell (ulimit -Hn), or measure \
                                     with fewer --clients"
                .to_owned(),
            Self::OwnPorts => "wait a minute for closed connections to be forgotten, or measure \
                               from more addresses"
                .to_owned(),
            Self::Handshake(Refusal::Status { status: 401 | 403, .. }) => {
                "give a --token, or allow this client's origin and address".to_owned()
            }
            Self::Handshake(Refusal::Status { status: 500, server, .. })
                if server.starts_with("nginx") =>
            {
                nginx(target).unwrap_or_else(|| NGINX.to_owned())
            }
            Self::Handshake(Refusal::Status { status: 404, .. } | Refusal::NotHttp(_)) => {
                "check the path of the URL (throng: /connection/websocket)".to_owned()
            }
            Self::Command { code: 101 | 103 | 109, .. } => {
                "give a --token whose user may subscribe, or another --channel".to_owned()
            }
            Self::Command { code, .. } => format!("throng explain {code}"),
            Self::Closed { code, .. } => format!("throng explain {code}"),
            Self::Unsubscribed { code, .. } => format!("throng explain {code}"),
            Self::Violation(_) | Self::Handshake(Refusal::WrongAccept { .. }) => {
                format!(
                    "connect to ws://{}{} with one client first",
                    target.authority(),
                    target.path
                )
            }
            // An nginx without a place for the connection ends it, or lets it wait.
            Self::Timeout { .. } | Self::Cut { .. } | Self::Io { .. } => {
                nginx(target).unwrap_or_else(|| LIMITS.to_owned())
            }
            Self::Refused | Self::Handshake(_) => LIMITS.to_owned(),
        }
    }
}

impl From<Violation> for Trouble {
    fn from(violation: Violation) -> Self {
        Self::Violation(format!("{violation:?}"))
    }
}

/// Where to look when a server takes no more.
const LIMITS: &str = "compare the server's log with its limit: grep 'open files' /proc/PID/limits, \
                      ls /proc/PID/fd | wc -l";

/// The same for an nginx that answers itself, and cannot be looked at from here.
const NGINX: &str = "nginx could not connect to the server behind it: its error.log says why; where \
                     it says worker_connections are not enough, set worker_connections and \
                     worker_rlimit_nofile higher (the 768 of Debian are 384 clients a worker)";

/// What an nginx of this machine has room for, if it is one.
fn nginx(target: &Target) -> Option<String> {
    let nginx = Nginx::at(target.address)?;
    Some(format!("{nginx}; {}", nginx.fix()))
}

/// All troubles of a crowd.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    counts: BTreeMap<String, u64>,
    first: Option<(u32, Trouble)>,
}

impl Troubles {
    /// Notes what happened to the client with this number, counted from 1.
    pub(crate) fn note(&mut self, client: u32, trouble: Trouble) {
        *self.counts.entry(trouble.kind()).or_default() += 1;
        self.first.get_or_insert((client, trouble));
    }

    pub(crate) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    pub(crate) fn first(&self, target: &Target) -> Option<Failure> {
        let (client, trouble) = self.first.as_ref()?;
        let what = match trouble {
            Trouble::Closed { .. } | Trouble::Unsubscribed { .. } | Trouble::Violation(_) => {
                format!("client {client} was lost")
            }
            Trouble::Cut { step: "holding" } | Trouble::Io { step: "holding", .. } => {
                format!("client {client} was lost")
            }
            Trouble::Command { .. } => format!("client {client} could not subscribe"),
            _ => format!("client {client} could not connect"),
        };
        Some(Failure::new(what, trouble, trouble.next(target)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(trouble: Trouble) -> String {
        let target = Target::websocket("ws://127.0.0.1:8000/ws").unwrap();
        let mut troubles = Troubles::default();
        troubles.note(1013, trouble);
        troubles.note(1014, Trouble::Refused);
        troubles.first(&target).unwrap().to_string()
    }

    #[test]
    fn the_first_is_named_with_what_to_run_next() {
        assert_eq!(
            told(Trouble::of_io("connecting", io::ErrorKind::ConnectionRefused.into())),
            format!("client 1013 could not connect — connection refused — {LIMITS}")
        );
        assert_eq!(
            told(Trouble::Closed { code: 3012, reason: "no pong".to_owned() }),
            "client 1013 was lost — closed by the server with 3012 (no pong) — throng explain 3012"
        );
        let refusal =
            Refusal::Status { status: 503, body: "full".to_owned(), server: String::new() };
        assert_eq!(
            told(Trouble::Handshake(refusal)),
            format!("client 1013 could not connect — the server answered 503: full — {LIMITS}")
        );
    }

    #[test]
    fn an_nginx_that_has_no_room_is_told_apart() {
        let (body, server) = ("<html>\r\n<h1>500".to_owned(), "nginx/1.22.1".to_owned());
        let told = told(Trouble::Handshake(Refusal::Status { status: 500, body, server }));
        let wanted =
            "client 1013 could not connect — nginx/1.22.1 answered 500 with a page — nginx";
        assert!(told.starts_with(wanted) && told.contains("worker_connections"), "{told}");
    }

    #[test]
    fn running_out_here_is_not_the_servers_fault() {
        let told = told(Trouble::of_io("connecting", io::Error::from_raw_os_error(24)));
        assert!(told.contains("in this process") && told.contains("ulimit"), "{told}");
    }

    #[test]
    fn troubles_are_counted_by_kind() {
        let mut troubles = Troubles::default();
        troubles.note(1, Trouble::Timeout { step: "upgrading", seconds: 10 });
        troubles.note(2, Trouble::Refused);
        troubles.note(3, Trouble::Refused);
        let counts: Vec<_> = troubles.counts().iter().collect();
        assert_eq!(counts, [(&"refused".to_owned(), &2), (&"timeout_upgrading".to_owned(), &1)]);
    }
}

//! The log lines of sessions and shards.

use std::net::IpAddr;

use uuid::Uuid;

use crate::config::Level;
use crate::log::{Line, Log, Value};

/// Whom a line is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub user: &'a str,
    pub client: Uuid,
    pub address: IpAddr,
}

impl Log {
    /// One client was refused something or was closed; counted by code, so that a crowd that is
    /// refused for one reason costs a line and a number.
    pub(crate) fn client(&self, code: u32, message: &str, who: Who<'_>) {
        if !self.wants(Level::Info) {
            return;
        }
        let fields = [
            ("user", Value::Text(who.user)),
            ("client", Value::Shown(&who.client)),
            ("addr", Value::Shown(&who.address)),
        ];
        self.line(&Line {
            level: Level::Info,
            key: key_of(code),
            message: format_args!("{message}"),
            fields: &fields,
        });
    }

    /// Something that must not happen did.
    pub(crate) fn error(&self, key: &'static str, message: &str) {
        self.line(&Line {
            level: Level::Error,
            key,
            message: format_args!("{message}"),
            fields: &[],
        });
    }
}

/// What lines about a code are counted under.
fn key_of(code: u32) -> &'static str {
    match code {
        100 => "client.100",
        102 => "client.102",
        103 => "client.103",
        104 => "client.104",
        105 => "client.105",
        106 => "client.106",
        107 => "client.107",
        108 => "client.108",
        109 => "client.109",
        110 => "client.110",
        111 => "client.111",
        112 => "client.112",
        1002 => "client.1002",
        1007 => "client.1007",
        1009 => "client.1009",
        2500 => "client.2500",
        2501 => "client.2501",
        3004 => "client.3004",
        3005 => "client.3005",
        3006 => "client.3006",
        3008 => "client.3008",
        3010 => "client.3010",
        3012 => "client.3012",
        3500 => "client.3500",
        3501 => "client.3501",
        3502 => "client.3502",
        3503 => "client.3503",
        3504 => "client.3504",
        3505 => "client.3505",
        3507 => "client.3507",
        3508 => "client.3508",
        _ => "client.other",
    }
}

//! What a channel's name says: its namespace, whether it is private, and whom it is limited to.

use std::sync::Arc;

use super::settings::{ChannelOptions, Channels};

/// A channel's name, understood.
#[derive(Debug, Clone)]
pub struct Resolved<'a, 'c> {
    /// Empty for a channel without one.
    pub namespace: &'c str,
    pub options: &'a Arc<ChannelOptions>,
    /// Begins with the private prefix: only a subscription token lets anybody in.
    pub private: bool,
    /// The users named behind the user boundary, where the namespace gives that a meaning.
    pub users: Option<UserList<'a, 'c>>,
}

/// The users that a channel's own name allows, such as `dialog#42,77`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserList<'a, 'c> {
    text: &'c str,
    separator: &'a str,
}

impl UserList<'_, '_> {
    /// Whether the user is on the list. Nobody is not: `dialog#` does not let anonymous users in.
    pub fn contains(&self, user: &str) -> bool {
        if user.is_empty() {
            return false;
        }
        if self.separator.is_empty() {
            return self.text == user;
        }
        self.text.split(self.separator).any(|listed| listed == user)
    }
}

/// Why a name is no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    #[error("the channel's name is empty")]
    Empty,
    #[error("the channel's name is longer than channel.max_length")]
    TooLong,
    #[error("the channel's namespace is not in channel.namespaces")]
    UnknownNamespace,
    #[error("the channel's name has characters that are not allowed")]
    Malformed,
}

impl Channels {
    /// What the name says. In the order in which a client is answered: empty, too long, unknown
    /// namespace, malformed.
    ///
    /// # Errors
    /// When there is no such channel.
    pub fn resolve<'a, 'c>(&'a self, channel: &'c str) -> Result<Resolved<'a, 'c>, ChannelError> {
        if channel.is_empty() {
            return Err(ChannelError::Empty);
        }
        if channel.len() > self.max_length {
            return Err(ChannelError::TooLong);
        }
        let stripped = match self.private_prefix.as_str() {
            "" => None,
            prefix => channel.strip_prefix(prefix),
        };
        let name = stripped.unwrap_or(channel);
        let parts = match self.namespace_boundary.as_str() {
            "" => None,
            boundary => name.split_once(boundary),
        };
        let (namespace, options, rest) = match parts {
            None => ("", &self.without_namespace, name),
            Some((namespace, rest)) => {
                let options = self.namespaces.get(namespace);
                (namespace, options.ok_or(ChannelError::UnknownNamespace)?, rest)
            }
        };
        // `*` is kept for patterns.
        let allowed = match &options.channel_regex {
            Some(regex) => regex.is_match(rest),
            None => channel.is_ascii(),
        };
        if !allowed || channel.contains('*') {
            return Err(ChannelError::Malformed);
        }
        Ok(Resolved {
            namespace,
            options,
            private: stripped.is_some(),
            users: self.users(options, rest),
        })
    }

    fn users<'a, 'c>(
        &'a self,
        options: &ChannelOptions,
        rest: &'c str,
    ) -> Option<UserList<'a, 'c>> {
        if !options.allow_user_limited_channels || self.user_boundary.is_empty() {
            return None;
        }
        let (_, text) = rest.rsplit_once(self.user_boundary.as_str())?;
        Some(UserList { text, separator: &self.user_separator })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use regex_lite::Regex;

    use super::*;

    fn channels() -> Channels {
        let options = |regex: Option<&str>, limited| {
            Arc::new(ChannelOptions {
                channel_regex: regex.map(|r| Regex::new(r).unwrap()),
                allow_user_limited_channels: limited,
                ..ChannelOptions::default()
            })
        };
        Channels {
            without_namespace: options(None, true),
            namespaces: BTreeMap::from([
                ("news".to_owned(), options(None, false)),
                ("room".to_owned(), options(Some("^[0-9ä]+$"), false)),
            ]),
            max_length: 20,
            private_prefix: "$".to_owned(),
            namespace_boundary: ":".to_owned(),
            user_boundary: "#".to_owned(),
            user_separator: ",".to_owned(),
        }
    }

    #[test]
    fn the_namespace_is_what_stands_before_the_first_boundary() {
        let channels = channels();
        assert_eq!(channels.resolve("index").unwrap().namespace, "");
        assert_eq!(channels.resolve("news:a:b").unwrap().namespace, "news");
        let private = channels.resolve("$news:a").unwrap();
        assert_eq!((private.namespace, private.private), ("news", true));
        assert!(!channels.resolve("news:$a").unwrap().private);
    }

    #[test]
    fn a_bad_name_says_which_way_it_is_bad() {
        let channels = channels();
        let error = |name: &str| channels.resolve(name).map(|_| ()).unwrap_err();
        assert_eq!(error(""), ChannelError::Empty);
        assert_eq!(error(&"x".repeat(21)), ChannelError::TooLong);
        assert_eq!(error("nwes:a"), ChannelError::UnknownNamespace);
        assert_eq!(error("caf\u{e9}"), ChannelError::Malformed);
        assert_eq!(error("news:*"), ChannelError::Malformed);
        assert_eq!(error("room:x"), ChannelError::Malformed);
        assert!(channels.resolve("room:1\u{e4}").is_ok());
    }

    #[test]
    fn users_are_named_only_where_the_option_is_on() {
        let mut channels = channels();
        let list = channels.resolve("dialog#42,77").unwrap().users.unwrap();
        assert!(list.contains("42") && list.contains("77"));
        assert!(!list.contains("4") && !list.contains("") && !list.contains("42,77"));
        assert!(!channels.resolve("dialog#").unwrap().users.unwrap().contains(""));
        assert!(channels.resolve("news:a#42").unwrap().users.is_none());
        assert!(channels.resolve("dialog").unwrap().users.is_none());
        channels.user_separator.clear();
        assert!(channels.resolve("d#42,77").unwrap().users.unwrap().contains("42,77"));
    }

    #[test]
    fn an_empty_boundary_turns_the_rule_off() {
        let channels = Channels {
            namespace_boundary: String::new(),
            private_prefix: String::new(),
            user_boundary: String::new(),
            ..channels()
        };
        let resolved = channels.resolve("$nwes:a#1").unwrap();
        assert_eq!((resolved.namespace, resolved.private), ("", false));
        assert!(resolved.users.is_none());
    }
}

//! Who may do what in a channel.

use crate::config::{ChannelOptions, MapOptions};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) user: &'a str,
    /// Of the channel in question.
    pub(super) subscriber: bool,
    /// `client.insecure`: everything is allowed to everybody.
    pub(super) insecure: bool,
}

/// One kind of access: three options of a namespace.
#[derive(Debug, Clone, Copy)]
struct Rule {
    client: bool,
    subscriber: bool,
    anonymous: bool,
}

impl Rule {
    fn allows(self, asker: Asker<'_>) -> bool {
        if asker.insecure {
            return true;
        }
        let known = !asker.user.is_empty() || self.anonymous;
        known && (self.client || (self.subscriber && asker.subscriber))
    }
}

pub(super) fn may_publish(options: &ChannelOptions, asker: Asker<'_>) -> bool {
    Rule {
        client: options.allow_publish_for_client,
        subscriber: options.allow_publish_for_subscriber,
        anonymous: options.allow_publish_for_anonymous,
    }
    .allows(asker)
}

/// Whether a client may write the keys of a map.
pub(super) fn may_write_keys(options: &MapOptions, asker: Asker<'_>) -> bool {
    Rule {
        client: options.allow_publish_for_client,
        subscriber: options.allow_publish_for_subscriber,
        anonymous: options.allow_publish_for_anonymous,
    }
    .allows(asker)
}

/// Whether a client may remove the keys of a map.
pub(super) fn may_remove_keys(options: &MapOptions, asker: Asker<'_>) -> bool {
    Rule {
        client: options.allow_remove_for_client,
        subscriber: options.allow_remove_for_subscriber,
        anonymous: options.allow_remove_for_anonymous,
    }
    .allows(asker)
}

pub(super) fn may_see_presence(options: &ChannelOptions, asker: Asker<'_>) -> bool {
    Rule {
        client: options.allow_presence_for_client,
        subscriber: options.allow_presence_for_subscriber,
        anonymous: options.allow_presence_for_anonymous,
    }
    .allows(asker)
}

pub(super) fn may_see_history(options: &ChannelOptions, asker: Asker<'_>) -> bool {
    Rule {
        client: options.allow_history_for_client,
        subscriber: options.allow_history_for_subscriber,
        anonymous: options.allow_history_for_anonymous,
    }
    .allows(asker)
}

/// Whether a client may subscribe without a token; else the option that is in the way.
pub(super) fn may_subscribe(
    options: &ChannelOptions,
    user: &str,
    insecure: bool,
) -> Result<(), &'static str> {
    if insecure {
        return Ok(());
    }
    if !options.allow_subscribe_for_client {
        return Err("allow_subscribe_for_client");
    }
    if user.is_empty() && !options.allow_subscribe_for_anonymous {
        return Err("allow_subscribe_for_anonymous");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(user: &str, subscriber: bool) -> Asker<'_> {
        Asker { user, subscriber, insecure: false }
    }

    #[test]
    fn an_anonymous_client_needs_the_option_for_it() {
        let mut options =
            ChannelOptions { allow_publish_for_client: true, ..ChannelOptions::default() };
        assert!(may_publish(&options, asker("ann", false)));
        assert!(!may_publish(&options, asker("", false)));
        options.allow_publish_for_anonymous = true;
        assert!(may_publish(&options, asker("", false)));
    }

    #[test]
    fn a_subscriber_may_where_only_subscribers_may() {
        let options =
            ChannelOptions { allow_history_for_subscriber: true, ..ChannelOptions::default() };
        assert!(may_see_history(&options, asker("ann", true)));
        assert!(!may_see_history(&options, asker("ann", false)));
        assert!(!may_see_presence(&options, asker("ann", true)));
        assert!(may_see_presence(&options, Asker { insecure: true, ..asker("", false) }));
    }

    #[test]
    fn the_option_in_the_way_of_a_subscribe_is_named() {
        let mut options = ChannelOptions::default();
        assert_eq!(may_subscribe(&options, "ann", false), Err("allow_subscribe_for_client"));
        options.allow_subscribe_for_client = true;
        assert_eq!(may_subscribe(&options, "ann", false), Ok(()));
        assert_eq!(may_subscribe(&options, "", false), Err("allow_subscribe_for_anonymous"));
    }
}

//! What tokens say: their claims, as they are written and as they are meant.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::config::ChannelOptions;
use crate::keyed::Keyed;

/// What a connection token says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionClaims {
    /// Empty: anonymous.
    pub user: String,
    /// Unix seconds at which the connection's right ends; none: never.
    pub expire_at: Option<i64>,
    /// Shown to others beside the user's id.
    pub info: Option<Bytes>,
    /// Server-side subscriptions without settings of their own.
    pub channels: Vec<String>,
    /// Server-side subscriptions, sorted by channel.
    pub subs: Vec<(String, Grant)>,
    /// For the backend only; JSON.
    pub meta: Option<Bytes>,
}

/// What a subscription token says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionClaims {
    /// Must be the connection's user.
    pub user: String,
    /// Must be the channel subscribed to.
    pub channel: String,
    /// Must be the connection's client id; empty: any.
    pub client: String,
    /// Unix seconds at which the subscription's right ends; none: never.
    pub expire_at: Option<i64>,
    pub grant: Grant,
}

/// What a token gives to one subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Shown to others in this channel.
    pub info: Option<Bytes>,
    /// Handed to the client with the subscription's reply.
    pub data: Option<Bytes>,
    pub overrides: Override,
}

/// Channel options that a token sets otherwise than the namespace does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Override {
    #[serde(deserialize_with = "boxed_bool")]
    pub presence: Option<bool>,
    #[serde(deserialize_with = "boxed_bool")]
    pub join_leave: Option<bool>,
    #[serde(deserialize_with = "boxed_bool")]
    pub force_push_join_leave: Option<bool>,
    #[serde(deserialize_with = "boxed_bool")]
    pub force_positioning: Option<bool>,
    #[serde(deserialize_with = "boxed_bool")]
    pub force_recovery: Option<bool>,
}

impl Override {
    /// Whether it leaves everything as the namespace has it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The namespace's options as they are for this subscription.
    pub fn over(&self, options: &ChannelOptions) -> ChannelOptions {
        let mut options = options.clone();
        let set = |option: &mut bool, value: Option<bool>| *option = value.unwrap_or(*option);
        set(&mut options.presence, self.presence);
        set(&mut options.join_leave, self.join_leave);
        set(&mut options.force_push_join_leave, self.force_push_join_leave);
        set(&mut options.force_positioning, self.force_positioning);
        set(&mut options.force_recovery, self.force_recovery);
        options
    }
}

/// The claims of both kinds of token.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Claims {
    #[serde(deserialize_with = "text")]
    pub(super) sub: String,
    #[serde(deserialize_with = "seconds")]
    pub(super) exp: Option<i64>,
    #[serde(deserialize_with = "seconds")]
    pub(super) nbf: Option<i64>,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) aud: Vec<String>,
    #[serde(deserialize_with = "text")]
    pub(super) iss: String,
    pub(super) info: Option<Box<RawValue>>,
    #[serde(deserialize_with = "text")]
    pub(super) b64info: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channels: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) subs: BTreeMap<String, SubClaims>,
    pub(super) meta: Option<Box<RawValue>>,
    #[serde(deserialize_with = "seconds")]
    pub(super) expire_at: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(super) channel: String,
    #[serde(deserialize_with = "text")]
    pub(super) client: String,
    pub(super) data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "text")]
    pub(super) b64data: String,
    #[serde(rename = "override", deserialize_with = "or_default")]
    pub(super) overrides: Override,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct SubClaims {
    pub(super) info: Option<Box<RawValue>>,
    pub(super) b64info: String,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: String,
    #[serde(rename = "override", deserialize_with = "or_default")]
    pub(super) overrides: Override,
}

pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    value: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(value).map(Option::unwrap_or_default)
}

fn text<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    or_default(value)
}

/// Seconds since 1970; RFC 7519 allows a fraction, which is dropped.
pub(crate) fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Whole(i64),
        Fraction(f64),
    }
    // 2^53, beyond which an f64 is no longer exact.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match Option::<Seconds>::deserialize(value)? {
        None => Ok(None),
        Some(Seconds::Whole(whole)) => Ok(Some(whole)),
        Some(Seconds::Fraction(fraction)) if fraction.abs() < EXACT_MAX =>
        {
            #[allow(clippy::cast_possible_truncation, reason = "the range is checked above")]
            Ok(Some(fraction.floor() as i64))
        }
        Some(Seconds::Fraction(_)) => Err(serde::de::Error::custom("a time out of range")),
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Audience>::deserialize(value)? {
        None => Vec::new(),
        Some(Audience::One(one)) => vec![one],
        Some(Audience::Many(many)) => many,
    })
}

/// `{"value": true}`.
fn boxed_bool<'de, D: Deserializer<'de>>(value: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    struct Boxed {
        #[serde(default)]
        value: bool,
    }
    Ok(Option::<Keyed<Boxed>>::deserialize(value)?.map(|Keyed(boxed)| boxed.value))
}

//! Reads and makes the signed tokens (JWT) that say who a client is and what it may listen to.
//!
//! The header is parsed here rather than by a library, so that the choice of algorithm is a closed
//! match on what is supported: `none` and public-key algorithms cannot be reached with a shared key.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use throng_wire::dialect::payload;

use crate::config::{ChannelOptions, Token};

/// A token comes inside one message of a client, whose default limit this is.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// `b64info` and `b64data`: the standard alphabet; some libraries leave the padding out.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whether a token's signature counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    Verify,
    /// `client.insecure_skip_token_signature_verify`: whoever writes a token is believed.
    Skip,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Past `exp`, or before `nbf`: a fresh token will do, so the client is told to fetch one.
    #[error("the token is expired, or not valid yet")]
    Expired,
    /// The reason is for the log, never for the client.
    #[error("{0}")]
    Invalid(String),
}

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

impl Token {
    /// Whether any key is set, without which no token is accepted.
    pub fn has_key(&self) -> bool {
        !self.hmac_secret_key.is_empty()
    }

    /// Reads a connection token.
    ///
    /// # Errors
    /// When it is expired, or not to be believed.
    pub fn connection(
        &self,
        raw: &str,
        now_unix_s: i64,
        signature: Signature,
    ) -> Result<ConnectionClaims, TokenError> {
        let (claims, user) = self.claims(raw, now_unix_s, signature)?;
        if !claims.channel.is_empty() {
            return invalid("a subscription token was sent where a connection token belongs");
        }
        let mut subs = Vec::with_capacity(claims.subs.len());
        for (channel, sub) in claims.subs {
            let info = payload(sub.info, &sub.b64info, "subs.b64info")?;
            let data = payload(sub.data, &sub.b64data, "subs.b64data")?;
            subs.push((channel, Grant { info, data, overrides: sub.overrides }));
        }
        Ok(ConnectionClaims {
            user,
            expire_at: right_ends(claims.exp, claims.expire_at),
            info: payload(claims.info, &claims.b64info, "b64info")?,
            channels: claims.channels,
            subs,
            meta: claims.meta.as_deref().map(one_line),
        })
    }

    /// Reads a subscription token; that it is for this user, channel and client is the caller's to
    /// check.
    ///
    /// # Errors
    /// When it is expired, or not to be believed.
    pub fn subscription(
        &self,
        raw: &str,
        now_unix_s: i64,
        signature: Signature,
    ) -> Result<SubscriptionClaims, TokenError> {
        let (claims, user) = self.claims(raw, now_unix_s, signature)?;
        if claims.channel.is_empty() {
            return invalid("a connection token was sent where a subscription token belongs");
        }
        Ok(SubscriptionClaims {
            user,
            channel: claims.channel,
            client: claims.client,
            expire_at: right_ends(claims.exp, claims.expire_at),
            grant: Grant {
                info: payload(claims.info, &claims.b64info, "b64info")?,
                data: payload(claims.data, &claims.b64data, "b64data")?,
                overrides: claims.overrides,
            },
        })
    }

    /// Makes a connection token that this configuration accepts; no `ttl`: it never expires.
    ///
    /// # Errors
    /// When there is no key to sign with.
    pub fn issue_connection(
        &self,
        user: &str,
        ttl: Option<Duration>,
        now_unix_s: i64,
    ) -> Result<String, TokenError> {
        self.sign(self.issued(user, ttl, now_unix_s))
    }

    /// Makes a subscription token that this configuration accepts; no `ttl`: it never expires.
    ///
    /// # Errors
    /// When there is no key to sign with.
    pub fn issue_subscription(
        &self,
        user: &str,
        channel: &str,
        ttl: Option<Duration>,
        now_unix_s: i64,
    ) -> Result<String, TokenError> {
        let mut claims = self.issued(user, ttl, now_unix_s);
        claims.insert("channel".to_owned(), channel.into());
        self.sign(claims)
    }

    /// What every kind of token is checked for.
    fn claims(
        &self,
        raw: &str,
        now: i64,
        signature: Signature,
    ) -> Result<(Claims, String), TokenError> {
        let parts = Parts::split(raw)?;
        if signature == Signature::Verify {
            self.verify(&parts, now)?;
        }
        let json = decode_part(parts.claims, "claims")?;
        let claims: Claims = serde_json::from_slice(&json)
            .map_err(|e| TokenError::Invalid(format!("the token's claims cannot be read: {e}")))?;
        if claims.exp.is_some_and(|exp| exp <= now) || claims.nbf.is_some_and(|nbf| nbf > now) {
            return Err(TokenError::Expired);
        }
        self.meant_for_us(&claims)?;
        let user = if self.user_id_claim.is_empty() {
            claims.sub.clone()
        } else {
            claim_text(&json, &self.user_id_claim)?
        };
        Ok((claims, user))
    }

    fn verify(&self, parts: &Parts<'_>, now: i64) -> Result<(), TokenError> {
        let algorithm = parts.algorithm()?;
        if !self.has_key() {
            return invalid("no client.token.hmac_secret_key is set, so no token can be checked");
        }
        let signed_with = |key: &str| {
            let key = DecodingKey::from_secret(key.as_bytes());
            let message = parts.signed.as_bytes();
            jsonwebtoken::crypto::verify(parts.signature, message, &key, algorithm).unwrap_or(false)
        };
        let previous_until = self.hmac_previous_secret_key_valid_until;
        let previous_counts = !self.hmac_previous_secret_key.is_empty()
            && (previous_until == 0 || now <= previous_until);
        if signed_with(&self.hmac_secret_key)
            || (previous_counts && signed_with(&self.hmac_previous_secret_key))
        {
            return Ok(());
        }
        invalid("the token's signature does not fit: it was made with another key, or changed")
    }

    fn meant_for_us(&self, claims: &Claims) -> Result<(), TokenError> {
        let audience = &self.audience;
        if !audience.is_empty() && !claims.aud.iter().any(|aud| aud == audience) {
            return invalid("the token's aud is not client.token.audience");
        }
        if let Some(regex) = &self.audience_regex
            && !claims.aud.iter().any(|aud| regex.is_match(aud))
        {
            return invalid("the token's aud does not match client.token.audience_regex");
        }
        if !self.issuer.is_empty() && claims.iss != self.issuer {
            return invalid("the token's iss is not client.token.issuer");
        }
        if let Some(regex) = &self.issuer_regex
            && !regex.is_match(&claims.iss)
        {
            return invalid("the token's iss does not match client.token.issuer_regex");
        }
        Ok(())
    }

    fn issued(
        &self,
        user: &str,
        ttl: Option<Duration>,
        now: i64,
    ) -> serde_json::Map<String, serde_json::Value> {
        let mut claims = serde_json::Map::new();
        let user_claim = if self.user_id_claim.is_empty() { "sub" } else { &self.user_id_claim };
        claims.insert(user_claim.to_owned(), user.into());
        claims.insert("iat".to_owned(), now.into());
        if let Some(ttl) = ttl {
            let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            claims.insert("exp".to_owned(), now.saturating_add(ttl).into());
        }
        if !self.audience.is_empty() {
            claims.insert("aud".to_owned(), self.audience.as_str().into());
        }
        if !self.issuer.is_empty() {
            claims.insert("iss".to_owned(), self.issuer.as_str().into());
        }
        claims
    }

    fn sign(&self, claims: impl Serialize) -> Result<String, TokenError> {
        if !self.has_key() {
            return invalid("no client.token.hmac_secret_key is set, so no token can be made");
        }
        let failed = |e: &dyn std::fmt::Display| {
            TokenError::Invalid(format!("the token could not be made: {e}"))
        };
        let claims = serde_json::to_vec(&claims).map_err(|e| failed(&e))?;
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(self.hmac_secret_key.as_bytes());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256)
            .map_err(|e| failed(&e))?;
        Ok(format!("{signed}.{signature}"))
    }
}

/// A token taken apart.
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// Header and claims, as they were signed.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn split(raw: &'a str) -> Result<Self, TokenError> {
        if raw.len() > TOKEN_BYTES_MAX {
            return invalid("the token is larger than 64 KiB");
        }
        let shape = || TokenError::Invalid("the token is not three parts with dots".to_owned());
        let (signed, signature) = raw.rsplit_once('.').ok_or_else(shape)?;
        let (header, claims) = signed.split_once('.').ok_or_else(shape)?;
        if claims.contains('.') {
            return Err(shape());
        }
        Ok(Self { header, claims, signature, signed })
    }

    fn algorithm(&self) -> Result<Algorithm, TokenError> {
        let json = decode_part(self.header, "header")?;
        let header: Header = serde_json::from_slice(&json)
            .map_err(|e| TokenError::Invalid(format!("the token's header cannot be read: {e}")))?;
        // RFC 7515 4.1.11: what is critical and not understood makes the token invalid.
        if header.crit.is_some() {
            return invalid("the token's header demands an extension (crit) that is not known");
        }
        match header.alg.as_str() {
            "HS256" => Ok(Algorithm::HS256),
            "HS384" => Ok(Algorithm::HS384),
            "HS512" => Ok(Algorithm::HS512),
            other => Err(TokenError::Invalid(format!(
                "the token is signed with {:?}, which is not accepted: use HS256, HS384 or HS512",
                other.chars().take(16).collect::<String>()
            ))),
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<Box<RawValue>>,
}

/// The claims of both kinds of token.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Claims {
    #[serde(deserialize_with = "text")]
    sub: String,
    #[serde(deserialize_with = "seconds")]
    exp: Option<i64>,
    #[serde(deserialize_with = "seconds")]
    nbf: Option<i64>,
    #[serde(deserialize_with = "one_or_many")]
    aud: Vec<String>,
    #[serde(deserialize_with = "text")]
    iss: String,
    info: Option<Box<RawValue>>,
    #[serde(deserialize_with = "text")]
    b64info: String,
    #[serde(deserialize_with = "or_default")]
    channels: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    subs: BTreeMap<String, SubClaims>,
    meta: Option<Box<RawValue>>,
    #[serde(deserialize_with = "seconds")]
    expire_at: Option<i64>,
    #[serde(deserialize_with = "text")]
    channel: String,
    #[serde(deserialize_with = "text")]
    client: String,
    data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "text")]
    b64data: String,
    #[serde(rename = "override", deserialize_with = "or_default")]
    overrides: Override,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SubClaims {
    info: Option<Box<RawValue>>,
    b64info: String,
    data: Option<Box<RawValue>>,
    b64data: String,
    #[serde(rename = "override", deserialize_with = "or_default")]
    overrides: Override,
}

fn invalid<T>(reason: &str) -> Result<T, TokenError> {
    Err(TokenError::Invalid(reason.to_owned()))
}

fn decode_part(part: &str, name: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part.trim_end_matches('='))
        .map_err(|_| TokenError::Invalid(format!("the token's {name} is not base64url")))
}

/// `expire_at` overrides `exp` for the connection's life; zero or less is for ever.
fn right_ends(exp: Option<i64>, expire_at: Option<i64>) -> Option<i64> {
    expire_at.or(exp).filter(|at| *at > 0)
}

fn payload(
    json: Option<Box<RawValue>>,
    base64: &str,
    claim: &str,
) -> Result<Option<Bytes>, TokenError> {
    if base64.is_empty() {
        return Ok(json.as_deref().map(one_line));
    }
    let bytes = BASE64
        .decode(base64)
        .map_err(|_| TokenError::Invalid(format!("the token's {claim} is not base64")))?;
    Ok(Some(payload::sealed(&bytes).into_owned().into()))
}

/// Payloads travel in frames of one JSON object per line; inside a JSON text a line break can only
/// be white space between values.
pub(crate) fn one_line(json: &RawValue) -> Bytes {
    json.get().bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect()
}

fn claim_text(json: &[u8], name: &str) -> Result<String, TokenError> {
    let claims: BTreeMap<String, &RawValue> = serde_json::from_slice(json)
        .map_err(|e| TokenError::Invalid(format!("the token's claims cannot be read: {e}")))?;
    let Some(claim) = claims.get(name) else {
        return Err(TokenError::Invalid(format!("the token has no {name}, the user's id here")));
    };
    serde_json::from_str(claim.get())
        .map_err(|_| TokenError::Invalid(format!("the token's {name} is not a string")))
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
    Ok(Option::<Boxed>::deserialize(value)?.map(|boxed| boxed.value))
}

#[cfg(test)]
mod tests;

//! Reads and makes the signed tokens (JWT) that say who a client is and what it may listen to.
//!
//! The header is parsed here rather than by a library, so that the choice of algorithm is a closed
//! match on what is supported: there is no `none`, and which key a token is checked with follows from
//! the configuration and the algorithm's family together, so a public key never serves as a secret.

mod claims;
mod judge;
mod key;
mod set;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use throng_wire::dialect::payload;

use crate::config::{KeysUrl, Token, group};

pub use claims::{ConnectionClaims, Grant, Override, SubscriptionClaims};
pub(crate) use claims::{or_default, seconds};
pub use judge::{Judged, Refused, judge};
pub use key::{Algorithm, Family, Mismatch, PrivateKey, PublicKey};
pub(crate) use set::{KeySet, SetKey};

use self::claims::Claims;

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
    /// It was looked at already, or `client.insecure_skip_token_signature_verify` is on: whoever
    /// writes a token is believed.
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
    /// Nobody knows: its key is not to be had now. The same token may be good later.
    #[error("{0}")]
    Unchecked(String),
    /// Too many signatures wait to be looked at.
    #[error("too many tokens wait to be checked")]
    Busy,
}

/// How the signature of one token is looked at.
#[derive(Debug)]
pub(crate) enum Way<'k> {
    /// With a secret; this takes less time than asking somebody.
    Secret(Algorithm),
    /// With a public key of the configuration.
    Key(Algorithm, &'k Arc<PublicKey>),
    /// With a key of a set that is to be fetched.
    Set { algorithm: Algorithm, url: KeysUrl, kid: String },
}

/// What a token is signed with.
#[derive(Debug, Clone, Copy)]
pub enum Signer<'k> {
    /// The configuration's secret.
    Secret,
    Key {
        key: &'k PrivateKey,
        /// None: what the key signs with unless told otherwise.
        algorithm: Option<Algorithm>,
        /// Names the key in a set of them.
        kid: Option<&'k str>,
    },
}

impl Token {
    /// Whether tokens can be made with this configuration: with the secret that checks them.
    pub fn has_key(&self) -> bool {
        !self.hmac_secret_key.is_empty()
    }

    /// Whether any key is set, without which no token is accepted.
    pub fn accepts_any(&self) -> bool {
        self.has_key() || self.has_public_key()
    }

    /// Whether tokens may be signed with a private key.
    pub fn has_public_key(&self) -> bool {
        self.rsa_public_key.is_some()
            || self.ecdsa_public_key.is_some()
            || self.jwks_public_endpoint.is_some()
    }

    /// Such as `client.token.audience`.
    fn at(&self, name: &str) -> String {
        let option = if self.option.is_empty() { "client.token" } else { self.option };
        format!("{option}.{name}")
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

    /// Makes a connection token; no `ttl`: it never expires.
    ///
    /// # Errors
    /// When there is no key to sign with.
    pub fn issue_connection(
        &self,
        user: &str,
        ttl: Option<Duration>,
        now_unix_s: i64,
        signer: Signer<'_>,
    ) -> Result<String, TokenError> {
        self.sign(&self.issued(user, ttl, now_unix_s), signer)
    }

    /// Makes a subscription token; no `ttl`: it never expires.
    ///
    /// # Errors
    /// When there is no key to sign with.
    pub fn issue_subscription(
        &self,
        (user, channel): (&str, &str),
        ttl: Option<Duration>,
        now_unix_s: i64,
        signer: Signer<'_>,
    ) -> Result<String, TokenError> {
        let mut claims = self.issued(user, ttl, now_unix_s);
        claims.insert("channel".to_owned(), channel.into());
        self.sign(&claims, signer)
    }

    /// What every kind of token is checked for.
    fn claims(
        &self,
        raw: &str,
        now: i64,
        signature: Signature,
    ) -> Result<(Claims, String), TokenError> {
        let parts = Parts::split(raw)?;
        let json = decode_object(parts.claims, "claims")?;
        let claims: Claims = serde_json::from_slice(&json).map_err(|e| unreadable("claims", &e))?;
        if signature == Signature::Verify {
            self.verify(&parts, now)?;
        }
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

    /// How the signature of this token is to be looked at. Only the header is read, and of the claims
    /// what the URL of keys takes from them; nothing of it is proven.
    ///
    /// # Errors
    /// When no key of the configuration can be the one it was signed with.
    pub(crate) fn way(&self, raw: &str) -> Result<Way<'_>, TokenError> {
        self.way_of(&Parts::split(raw)?)
    }

    fn way_of(&self, parts: &Parts<'_>) -> Result<Way<'_>, TokenError> {
        let Signed { algorithm, kid } = parts.header()?;
        if let Some(endpoint) = &self.jwks_public_endpoint {
            if algorithm.family() == Family::Hmac {
                return Err(TokenError::Invalid(format!(
                    "the token is signed with {}, a shared secret, and the keys of {} are public: \
                     RS256, ES256 or EdDSA",
                    algorithm.name(),
                    self.at("jwks_public_endpoint")
                )));
            }
            let kid = kid.filter(|kid| !kid.is_empty()).ok_or_else(|| {
                let at = self.at("jwks_public_endpoint");
                TokenError::Invalid(format!(
                    "the token's header has no kid, by which its key is found at {at}"
                ))
            })?;
            let url = self.url_of_keys(parts, endpoint)?;
            return Ok(Way::Set { algorithm, url, kid });
        }
        let found = match algorithm.family() {
            Family::Hmac => self.has_key().then_some(Way::Secret(algorithm)),
            Family::Rsa => self.rsa_public_key.as_ref().map(|key| Way::Key(algorithm, key)),
            Family::Ecdsa => self.ecdsa_public_key.as_ref().map(|key| Way::Key(algorithm, key)),
            Family::EdDsa => None,
        };
        found.ok_or_else(|| self.no_key_for(algorithm))
    }

    fn no_key_for(&self, algorithm: Algorithm) -> TokenError {
        let secret = self.at("hmac_secret_key");
        if !self.accepts_any() {
            return TokenError::Invalid(format!(
                "no {secret} and no public key is set, so no token can be checked"
            ));
        }
        let names = [
            (self.has_key(), "hmac_secret_key"),
            (self.rsa_public_key.is_some(), "rsa_public_key"),
            (self.ecdsa_public_key.is_some(), "ecdsa_public_key"),
        ];
        let set: Vec<&str> =
            names.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        let wanted = match algorithm.family() {
            Family::Hmac => secret,
            Family::Rsa => self.at("rsa_public_key"),
            Family::Ecdsa => self.at("ecdsa_public_key"),
            Family::EdDsa => self.at("jwks_public_endpoint"),
        };
        TokenError::Invalid(format!(
            "the token is signed with {}, which needs {wanted}, and only {} is set",
            algorithm.name(),
            set.join(" and ")
        ))
    }

    /// Where the key of this token is.
    fn url_of_keys(
        &self,
        parts: &Parts<'_>,
        endpoint: &crate::config::JwksEndpoint,
    ) -> Result<KeysUrl, TokenError> {
        if endpoint.names().next().is_none() {
            return endpoint.url(&|_| None).map_err(TokenError::Invalid);
        }
        let json = decode_object(parts.claims, "claims")?;
        let claims: Claims = serde_json::from_slice(&json).map_err(|e| unreadable("claims", &e))?;
        self.meant_for_us(&claims)?;
        let issuer = self.issuer_regex.as_ref().and_then(|regex| regex.captures(&claims.iss));
        let audience = self.audience_regex.as_ref();
        let audience =
            audience.and_then(|regex| claims.aud.iter().find_map(|aud| regex.captures(aud)));
        let value =
            |name: &str| group(issuer.as_ref(), name).or_else(|| group(audience.as_ref(), name));
        endpoint.url(&value).map_err(TokenError::Invalid)
    }

    /// Looks at a signature with a key of a set.
    pub(crate) fn verify_with(
        raw: &str,
        algorithm: Algorithm,
        key: &SetKey,
    ) -> Result<(), TokenError> {
        let parts = Parts::split(raw)?;
        let verified = key.verify(algorithm, parts.signed.as_bytes(), &parts.signature()?);
        verified.map_err(|mismatch| unfit(mismatch, algorithm, &key.algorithms()))
    }

    /// Looks at a signature, unless its key must be fetched.
    ///
    /// # Errors
    /// When it does not count.
    pub(crate) fn prove(&self, raw: &str, now: i64) -> Result<(), TokenError> {
        self.verify(&Parts::split(raw)?, now)
    }

    fn verify(&self, parts: &Parts<'_>, now: i64) -> Result<(), TokenError> {
        let way = self.way_of(parts)?;
        let message = parts.signed.as_bytes();
        let signature = parts.signature()?;
        let algorithm = match way {
            Way::Key(algorithm, key) => {
                let verified = key.verify(algorithm, message, &signature);
                return verified.map_err(|mismatch| unfit(mismatch, algorithm, &key.algorithms()));
            }
            Way::Set { url, .. } => {
                return Err(TokenError::Unchecked(format!(
                    "the keys of {url} are not fetched here"
                )));
            }
            Way::Secret(algorithm) => algorithm,
        };
        let Some(hash) = hash(algorithm) else { return Err(self.no_key_for(algorithm)) };
        let signed_with = |secret: &str| {
            let key = hmac::Key::new(hash, secret.as_bytes());
            hmac::verify(&key, message, &signature).is_ok()
        };
        let previous_until = self.hmac_previous_secret_key_valid_until;
        let previous_counts = !self.hmac_previous_secret_key.is_empty()
            && (previous_until == 0 || now <= previous_until);
        if signed_with(&self.hmac_secret_key)
            || (previous_counts && signed_with(&self.hmac_previous_secret_key))
        {
            return Ok(());
        }
        Err(unfit(Mismatch::Signature, algorithm, ""))
    }

    fn meant_for_us(&self, claims: &Claims) -> Result<(), TokenError> {
        let not_ours = |what: &str, option: &str| {
            let shown = shown(if what == "iss" {
                vec![&*claims.iss]
            } else {
                claims.aud.iter().map(String::as_str).collect()
            });
            Err(TokenError::Invalid(format!(
                "the token's {what} ({shown}) is not what {} asks for",
                self.at(option)
            )))
        };
        if !self.audience.is_empty() && !claims.aud.contains(&self.audience) {
            return not_ours("aud", "audience");
        }
        if let Some(regex) = &self.audience_regex
            && !claims.aud.iter().any(|aud| regex.is_match(aud))
        {
            return not_ours("aud", "audience_regex");
        }
        if !self.issuer.is_empty() && claims.iss != self.issuer {
            return not_ours("iss", "issuer");
        }
        if let Some(regex) = &self.issuer_regex
            && !regex.is_match(&claims.iss)
        {
            return not_ours("iss", "issuer_regex");
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

    fn sign(&self, claims: &impl Serialize, signer: Signer<'_>) -> Result<String, TokenError> {
        if let Signer::Key { key, algorithm, kid } = signer {
            let algorithm = algorithm.unwrap_or(key.algorithm());
            let sign = |message: &[u8]| key.sign(algorithm, message);
            return compact(&header_json(algorithm, kid), claims, sign);
        }
        if !self.has_key() {
            return Err(TokenError::Invalid(format!(
                "no {} is set, so no token can be made without a private key",
                self.at("hmac_secret_key")
            )));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.hmac_secret_key.as_bytes());
        let sign = |message: &[u8]| Some(hmac::sign(&key, message).as_ref().to_vec());
        compact(&header_json(Algorithm::Hs256, None), claims, sign)
    }
}

fn header_json(algorithm: Algorithm, kid: Option<&str>) -> serde_json::Value {
    let mut header = serde_json::json!({"alg": algorithm.name(), "typ": "JWT"});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    header
}

/// A signed token, in its compact form (RFC 7515 3.1).
fn compact(
    header: &serde_json::Value,
    claims: &impl Serialize,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<String, TokenError> {
    let claims = serde_json::to_vec(claims)
        .map_err(|e| TokenError::Invalid(format!("the token could not be made: {e}")))?;
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", part(header.to_string().as_bytes()), part(&claims));
    let Some(signature) = sign(signed.as_bytes()) else {
        return invalid("the key cannot sign with this algorithm");
    };
    Ok(format!("{signed}.{}", part(&signature)))
}

fn hash(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
        Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
        Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn unfit(mismatch: Mismatch, algorithm: Algorithm, served: &str) -> TokenError {
    TokenError::Invalid(match mismatch {
        Mismatch::Signature => {
            "the token's signature does not fit: it was made with another key, or changed"
                .to_owned()
        }
        Mismatch::Algorithm => format!(
            "the token is signed with {}, and its key is for {served} only",
            algorithm.name()
        ),
    })
}

/// What is quoted is left out: a stranger wrote it, as long as he liked.
fn unreadable(part: &str, error: &serde_json::Error) -> TokenError {
    let text = error.to_string();
    let text = match (text.find('"'), text.rfind('"')) {
        (Some(from), Some(to)) => format!("{}…{}", &text[..from], &text[to + 1..]),
        _ => text,
    };
    let text: String = text.chars().take(120).collect();
    TokenError::Invalid(format!("the token's {part} cannot be read: {text}"))
}

/// What a token says, bounded and without control characters: a stranger may have written it.
fn shown(texts: Vec<&str>) -> String {
    if texts.iter().all(|text| text.is_empty()) {
        return "none".to_owned();
    }
    let text = texts.join(", ");
    let mut shown: String =
        text.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
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

    fn header(&self) -> Result<Signed, TokenError> {
        let json = decode_object(self.header, "header")?;
        let header: Header = serde_json::from_slice(&json).map_err(|e| unreadable("header", &e))?;
        // RFC 7515 4.1.11: what is critical and not understood makes the token invalid.
        if header.crit.is_some() {
            return invalid("the token's header demands an extension (crit) that is not known");
        }
        if header.kid.as_ref().is_some_and(|kid| kid.len() > set::KID_BYTES_MAX) {
            return invalid("the token's kid is longer than 512 bytes");
        }
        let algorithm = Algorithm::named(&header.alg).ok_or_else(|| {
            TokenError::Invalid(format!(
                "the token is signed with {:?}, which is not accepted: use {}",
                header.alg.chars().take(16).collect::<String>(),
                key::either(Algorithm::ALL.into_iter().map(Algorithm::name))
            ))
        })?;
        Ok(Signed { algorithm, kid: header.kid })
    }

    fn signature(&self) -> Result<Vec<u8>, TokenError> {
        decode_part(self.signature, "signature")
    }
}

/// What a token's header says.
struct Signed {
    algorithm: Algorithm,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    crit: Option<Box<RawValue>>,
}

fn invalid<T>(reason: &str) -> Result<T, TokenError> {
    Err(TokenError::Invalid(reason.to_owned()))
}

fn decode_part(part: &str, name: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part.trim_end_matches('='))
        .map_err(|_| TokenError::Invalid(format!("the token's {name} is not base64url")))
}

fn decode_object(part: &str, name: &str) -> Result<Vec<u8>, TokenError> {
    let json = decode_part(part, name)?;
    // RFC 7519 7.2: both are JSON objects. A list would be read as the fields in their order.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(TokenError::Invalid(format!("the token's {name} is not a JSON object")));
    }
    Ok(json)
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
    let claims: BTreeMap<String, &RawValue> =
        serde_json::from_slice(json).map_err(|e| unreadable("claims", &e))?;
    let Some(claim) = claims.get(name) else {
        return Err(TokenError::Invalid(format!("the token has no {name}, the user's id here")));
    };
    serde_json::from_str(claim.get())
        .map_err(|_| TokenError::Invalid(format!("the token's {name} is not a string")))
}

#[cfg(test)]
mod tests;

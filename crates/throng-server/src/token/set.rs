//! A set of public keys, as an identity provider publishes it (JWKS, RFC 7517 5).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::{Algorithm, Family, Jwk, Mismatch, PublicKey};

/// Keys of one set; a provider has a handful.
const KEYS_MAX: usize = 100;
/// Bytes of a `kid`.
pub(super) const KID_BYTES_MAX: usize = 512;

/// A set of public keys.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: BTreeMap<String, Arc<SetKey>>,
    /// A sentence about each key that cannot be used.
    pub(crate) left_out: Vec<String>,
}

/// One of its keys.
#[derive(Debug)]
pub(crate) struct SetKey {
    key: PublicKey,
    /// The only algorithm it is meant for, where it names one.
    alg: Option<Algorithm>,
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Reads a set. The error is a sentence about what is no set; a key that cannot be used is left
    /// out.
    pub(crate) fn read(json: &[u8]) -> Result<Self, String> {
        let written: Written<'_> = serde_json::from_slice(json)
            .map_err(|_| "answered what is no set of keys: {\"keys\": [...]}".to_owned())?;
        let mut set = Self::default();
        for raw in written.keys.into_iter().take(KEYS_MAX) {
            // RFC 7517 5: what cannot be used is passed over.
            let Ok(jwk) = serde_json::from_str::<Jwk>(raw.get()) else {
                set.left_out.push("a key cannot be read".to_owned());
                continue;
            };
            match usable(&jwk) {
                Ok((kid, key)) => drop(set.keys.entry(kid).or_insert_with(|| Arc::new(key))),
                Err(why) => set.left_out.push(why),
            }
        }
        Ok(set)
    }

    /// The key of this id.
    pub(crate) fn get(&self, kid: &str) -> Option<&Arc<SetKey>> {
        self.keys.get(kid)
    }

    /// The ids of the keys that can be used.
    pub(crate) fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// How many keys can be used.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}

fn usable(jwk: &Jwk) -> Result<(String, SetKey), String> {
    let kid = jwk.kid.as_deref().filter(|kid| !kid.is_empty() && kid.len() <= KID_BYTES_MAX);
    let kid = kid.ok_or("a key has no kid, by which tokens name theirs")?;
    let about = |why: &str| {
        let shown: String = kid.chars().filter(|c| !c.is_control()).take(40).collect();
        format!("the key {shown:?} {why}")
    };
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err(about("is not for signatures (use)"));
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err(about("is not for checking signatures (key_ops)"));
    }
    let alg = match jwk.alg.as_deref() {
        None => None,
        Some(name) => Some(
            Algorithm::named(name)
                .filter(|alg| alg.family() != Family::Hmac)
                .ok_or_else(|| about("is for an algorithm that is not supported (alg)"))?,
        ),
    };
    let key = PublicKey::from_jwk(jwk).map_err(|why| about(&why))?;
    Ok((kid.to_owned(), SetKey { key, alg }))
}

impl SetKey {
    /// Checks a signature of `message`.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Mismatch> {
        if self.alg.is_some_and(|alg| alg != algorithm) {
            return Err(Mismatch::Algorithm);
        }
        self.key.verify(algorithm, message, signature)
    }

    /// What it serves, such as `RS256`.
    pub(crate) fn algorithms(&self) -> String {
        self.alg.map_or_else(|| self.key.algorithms(), |alg| alg.name().to_owned())
    }
}

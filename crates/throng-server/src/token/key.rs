//! What signatures are made and checked with: algorithms, public keys, and the private keys of who
//! makes tokens by hand.
//!
//! A key knows which algorithms it serves. What a token's header names is looked up there, so a key
//! never serves an algorithm of another kind.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaKeyPair,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, SectionKind};
use rustls::server::ParsedCertificate;
use serde::Deserialize;

/// RFC 7518 3.3: a smaller RSA key must not be used.
const RSA_BITS_MIN: usize = 2048;
/// Bytes of such a key in DER, and how many of them are not the modulus.
const RSA_DER_BYTES_MIN: usize = RSA_DER_FRAME + RSA_BITS_MIN / 8 - 8;
const RSA_DER_FRAME: usize = 34;
/// Larger ones cost more than a check may.
const RSA_BITS_MAX: usize = 8192;

/// How a token is signed (RFC 7518 3.1, RFC 8037 3.1). There is no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// Which sort of key an algorithm needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// One secret for both sides.
    Hmac,
    Rsa,
    Ecdsa,
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// As `alg` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm that `alg` names, letter by letter.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Which sort of key it needs.
    pub fn family(self) -> Family {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => Family::Hmac,
            Self::Rs256 | Self::Rs384 | Self::Rs512 => Family::Rsa,
            Self::Es256 | Self::Es384 | Self::Es512 => Family::Ecdsa,
            Self::EdDsa => Family::EdDsa,
        }
    }
}

/// A sort of public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Sort {
    fn family(self) -> Family {
        match self {
            Self::Rsa => Family::Rsa,
            Self::P256 | Self::P384 | Self::P521 => Family::Ecdsa,
            Self::Ed25519 => Family::EdDsa,
        }
    }

    /// What a key of this sort serves: an elliptic curve has one algorithm (RFC 7518 3.4).
    fn serves(self) -> &'static [(Algorithm, &'static dyn VerificationAlgorithm)] {
        match self {
            Self::Rsa => &[
                (Algorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
                (Algorithm::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
                (Algorithm::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
            ],
            Self::P256 => &[(Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED)],
            Self::P384 => &[(Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED)],
            Self::P521 => &[(Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED)],
            Self::Ed25519 => &[(Algorithm::EdDsa, &signature::ED25519)],
        }
    }

    fn of_der(der: &[u8]) -> Option<Self> {
        // The object identifiers of RFC 3279, 5480 and 8410, as a SubjectPublicKeyInfo begins.
        let kinds: [(&[u8], Self); 5] = [
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01], Self::Rsa),
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], Self::P256),
            (&[0x2b, 0x81, 0x04, 0x00, 0x22], Self::P384),
            (&[0x2b, 0x81, 0x04, 0x00, 0x23], Self::P521),
            (&[0x2b, 0x65, 0x70], Self::Ed25519),
        ];
        // Only where the identifiers stand: the key itself is chance.
        let head = &der[..der.len().min(28)];
        let holds = |oid: &[u8]| head.windows(oid.len()).any(|window| window == oid);
        kinds.into_iter().find(|(oid, _)| holds(oid)).map(|(_, sort)| sort)
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa => "RSA",
            Self::P256 => "ECDSA P-256",
            Self::P384 => "ECDSA P-384",
            Self::P521 => "ECDSA P-521",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// A public key, ready to check signatures.
pub struct PublicKey {
    sort: Sort,
    serves: Vec<(Algorithm, ParsedPublicKey)>,
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The key is of another sort than the algorithm needs.
    Algorithm,
    /// It was made with another key, or what was signed was changed.
    Signature,
}

impl PublicKey {
    /// Reads a key, or the key of a certificate, in PEM. The error is a sentence about the text.
    ///
    /// # Errors
    /// When it holds no public key that can be used.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        // A line of a file of settings may have its breaks as two letters.
        let text = text.trim().replace("\\n", "\n");
        let mut rest = text.as_bytes();
        let section = pem::from_buf(&mut rest);
        let (kind, der) = match section {
            Ok(Some(section)) => section,
            _ if text.contains("BEGIN RSA PUBLIC KEY") => {
                return Err("a public key in the old form of RSA (PKCS#1); write it anew: \
                            openssl rsa -RSAPublicKey_in -in FILE -pubout"
                    .to_owned());
            }
            _ => {
                return Err(
                    "not a public key in PEM, which begins with -----BEGIN PUBLIC KEY----- \
                            and keeps its line breaks"
                        .to_owned(),
                );
            }
        };
        match kind {
            SectionKind::PublicKey => Self::from_der(&der),
            SectionKind::Certificate => {
                let der = CertificateDer::from(der);
                let certificate = ParsedCertificate::try_from(&der)
                    .map_err(|error| format!("a certificate that cannot be read: {error}"))?;
                Self::from_der(certificate.subject_public_key_info().as_ref())
            }
            SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                Err("a private key, which belongs to who makes the tokens and nowhere else; give \
                     the public one: openssl pkey -in FILE -pubout"
                    .to_owned())
            }
            _ => Err("in PEM, but neither a public key nor a certificate".to_owned()),
        }
    }

    /// Reads a SubjectPublicKeyInfo.
    fn from_der(der: &[u8]) -> Result<Self, String> {
        let sort = Sort::of_der(der).ok_or_else(|| {
            "a key of a sort that is not supported; RSA, ECDSA with P-256, P-384 or P-521, and \
             Ed25519 are"
                .to_owned()
        })?;
        let broken = || format!("an {sort} key that cannot be read");
        if sort == Sort::Rsa {
            // The library refuses smaller ones without saying why.
            if der.len() < RSA_DER_BYTES_MIN {
                large_enough(der.len().saturating_sub(RSA_DER_FRAME) * 8)?;
            }
            let key = PublicEncryptingKey::from_der(der).map_err(|_| broken())?;
            large_enough(key.key_size_bits())?;
        }
        let mut serves = Vec::new();
        for (algorithm, how) in sort.serves() {
            serves.push((*algorithm, ParsedPublicKey::new(*how, der).map_err(|_| broken())?));
        }
        Ok(Self { sort, serves })
    }

    /// Reads a JSON Web Key (RFC 7517). The error is a sentence about the key.
    pub(crate) fn from_jwk(jwk: &Jwk) -> Result<Self, String> {
        let part = |value: &Option<String>, name: &str| {
            let value = value.as_deref().unwrap_or_default();
            let bytes = URL_SAFE_NO_PAD.decode(value.trim_end_matches('='));
            bytes.ok().filter(|bytes| !bytes.is_empty()).ok_or(format!("has no {name}"))
        };
        let sort = match (jwk.kty.as_str(), jwk.crv.as_deref().unwrap_or_default()) {
            ("RSA", _) => return Self::from_components(&part(&jwk.n, "n")?, &part(&jwk.e, "e")?),
            ("EC", "P-256") => Sort::P256,
            ("EC", "P-384") => Sort::P384,
            ("EC", "P-521") => Sort::P521,
            ("OKP", "Ed25519") => Sort::Ed25519,
            ("EC" | "OKP", _) => return Err("has a curve that is not supported".to_owned()),
            ("oct", _) => return Err("is a shared secret, which no public key is".to_owned()),
            _ => return Err("has a kty that is not supported".to_owned()),
        };
        let mut point = part(&jwk.x, "x")?;
        if sort != Sort::Ed25519 {
            // SEC 1 2.3.3: an uncompressed point, whose halves have the curve's length.
            let length = match sort {
                Sort::P256 => 32,
                Sort::P384 => 48,
                _ => 66,
            };
            let y = part(&jwk.y, "y")?;
            if point.len() != length || y.len() != length {
                return Err("has an x or y that does not fit its curve".to_owned());
            }
            point.insert(0, 4);
            point.extend(y);
        }
        let mut serves = Vec::new();
        for (algorithm, how) in sort.serves() {
            let parsed = ParsedPublicKey::new(*how, &point);
            serves.push((*algorithm, parsed.map_err(|_| "is no point of its curve".to_owned())?));
        }
        Ok(Self { sort, serves })
    }

    fn from_components(n: &[u8], e: &[u8]) -> Result<Self, String> {
        // Leading zeros are not allowed, and some write one.
        let n = &n[n.iter().take_while(|byte| **byte == 0).count()..];
        let e = &e[e.iter().take_while(|byte| **byte == 0).count()..];
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        large_enough(bits)?;
        let components = RsaPublicKeyComponents { n, e };
        let mut serves = Vec::new();
        for (algorithm, how) in [
            (Algorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
            (Algorithm::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
            (Algorithm::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
        ] {
            let parsed = components.to_parsed_public_key(how);
            serves.push((algorithm, parsed.map_err(|_| "is no RSA key".to_owned())?));
        }
        Ok(Self { sort: Sort::Rsa, serves })
    }

    /// Which algorithms it serves.
    pub fn family(&self) -> Family {
        self.sort.family()
    }

    /// Such as `RS256, RS384 or RS512`.
    pub fn algorithms(&self) -> String {
        either(self.serves.iter().map(|(algorithm, _)| algorithm.name()))
    }

    /// Such as `ECDSA P-256`.
    pub fn sort(&self) -> String {
        self.sort.to_string()
    }

    /// Checks a signature of `message`.
    ///
    /// # Errors
    /// When it does not count.
    pub fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Mismatch> {
        let served = self.serves.iter().find(|(served, _)| *served == algorithm);
        let (_, key) = served.ok_or(Mismatch::Algorithm)?;
        key.verify_sig(message, signature).map_err(|_| Mismatch::Signature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.sort).finish()
    }
}

/// `A, B or C`.
pub(crate) fn either<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

fn large_enough(bits: usize) -> Result<(), String> {
    if bits < RSA_BITS_MIN {
        return Err(format!(
            "an RSA key of {bits} bits, which can be broken; at least {RSA_BITS_MIN} are needed: \
             openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"
        ));
    }
    if bits > RSA_BITS_MAX {
        return Err(format!("an RSA key of {bits} bits; at most {RSA_BITS_MAX} are supported"));
    }
    Ok(())
}

/// A key as a set of them has it; what is not known of it is passed over.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Jwk {
    pub(crate) kty: String,
    pub(crate) kid: Option<String>,
    #[serde(rename = "use")]
    pub(crate) usage: Option<String>,
    pub(crate) alg: Option<String>,
    pub(crate) key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// A private key of who makes tokens by hand.
pub struct PrivateKey {
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Algorithm, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// Reads a private key in PEM: PKCS#8, or the older forms of RSA and EC.
    ///
    /// # Errors
    /// When it holds no private key that can be used; a sentence about the text.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let mut rest = text.trim().as_bytes();
        let (kind, der) = match pem::from_buf(&mut rest) {
            Ok(Some(section)) => section,
            _ if text.contains("ENCRYPTED") => {
                return Err("a private key with a passphrase; take it off: openssl pkey -in FILE"
                    .to_owned());
            }
            _ => return Err("not a private key in PEM".to_owned()),
        };
        let pair = match kind {
            SectionKind::RsaPrivateKey => RsaKeyPair::from_der(&der).ok().map(rsa),
            SectionKind::PrivateKey => None
                .or_else(|| RsaKeyPair::from_pkcs8(&der).ok().map(rsa))
                .or_else(|| ecdsa(|how| EcdsaKeyPair::from_pkcs8(how, &der).ok()))
                .or_else(|| {
                    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok().map(Pair::Ed25519)
                }),
            SectionKind::EcPrivateKey => {
                ecdsa(|how| EcdsaKeyPair::from_private_key_der(how, &der).ok())
            }
            SectionKind::PublicKey => {
                return Err("the public key; tokens are signed with the private one".to_owned());
            }
            _ => return Err("in PEM, but no private key".to_owned()),
        };
        let pair = pair.ok_or(
            "a private key of a sort that is not supported; RSA from 2048 bits, ECDSA with P-256, \
             P-384 or P-521, and Ed25519 are",
        )?;
        Ok(Self { pair })
    }

    /// What it signs with unless told otherwise.
    pub fn algorithm(&self) -> Algorithm {
        match &self.pair {
            Pair::Rsa(_) => Algorithm::Rs256,
            Pair::Ecdsa(algorithm, _) => *algorithm,
            Pair::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Signs; none: it cannot sign so.
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let how = match algorithm {
                    Algorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    _ => return None,
                };
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(how, &random, message, &mut signed).ok().map(|()| signed)
            }
            Pair::Ecdsa(own, pair) if *own == algorithm => {
                pair.sign(&random, message).ok().map(|signed| signed.as_ref().to_vec())
            }
            Pair::Ed25519(pair) if algorithm == Algorithm::EdDsa => {
                Some(pair.sign(message).as_ref().to_vec())
            }
            Pair::Ecdsa(..) | Pair::Ed25519(_) => None,
        }
    }

    /// The public half, as raw bytes: a point, or the key of RSA in DER.
    pub fn public(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ecdsa(_, pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&self.algorithm()).finish()
    }
}

fn rsa(pair: RsaKeyPair) -> Pair {
    Pair::Rsa(Box::new(pair))
}

fn ecdsa(
    read: impl Fn(&'static signature::EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair>,
) -> Option<Pair> {
    [
        (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        (Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
    ]
    .into_iter()
    .find_map(|(algorithm, how)| Some(Pair::Ecdsa(algorithm, read(how)?)))
}

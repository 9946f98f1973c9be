//! A piece of state as it travels: what it is, which version wrote it, and a sum that tells whether
//! it is whole.

use std::fmt;

use super::record::{Corrupt, Fields, Writer};
use crate::request::Now;

/// The version of the state.
///
/// The minor number grows with every field that is added: readers of either side of it understand
/// each other. The major number grows when an old reader would misunderstand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub major: u8,
    pub minor: u16,
}

impl Version {
    /// What this program writes, and the major version that it reads.
    pub const HERE: Self = Self { major: 1, minor: 1 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Piece {
    /// A part of a broker's streams, gone ahead.
    Snapshot = 1,
    /// What changed in them since.
    Changes = 2,
    /// What a node's shards have in common.
    Common = 3,
    /// The connections of one shard.
    Shard = 4,
    /// One connection on its way into a shard.
    Arrival = 5,
    /// A backend's answer.
    Answer = 6,
}

impl Piece {
    fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "the snapshot of the streams",
            Self::Changes => "the changes of the streams",
            Self::Common => "the state of the node",
            Self::Shard => "the state of a shard",
            Self::Arrival => "a new connection",
            Self::Answer => "a backend's answer",
        }
    }
}

/// Why a piece cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not that, or not whole.
    Broken { piece: &'static str, why: String },
    /// Another major version wrote it.
    Version { piece: &'static str, theirs: Version },
    /// It is whole, and means nothing.
    Corrupt { piece: &'static str, corrupt: Corrupt },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken { piece, why } => write!(f, "{piece} cannot be read: {why}"),
            Self::Version { piece, theirs } => write!(
                f,
                "{piece} was written in version {theirs} of the state, and this program reads \
                 {}.x: it cannot take over from that one; stop it and start this one instead",
                Version::HERE.major
            ),
            Self::Corrupt { piece, corrupt } => write!(f, "{piece} cannot be read: {corrupt}"),
        }
    }
}

impl std::error::Error for Unreadable {}

const MAGIC: &[u8; 4] = b"thrg";
const HEAD_BYTES: usize = 8;
const SUM_BYTES: usize = 8;

/// Begins a piece.
pub fn begin(piece: Piece, now: Now, room: usize) -> Writer {
    let mut bytes = Vec::with_capacity(room + HEAD_BYTES + SUM_BYTES);
    bytes.extend_from_slice(MAGIC);
    let Version { major, minor } = Version::HERE;
    bytes.extend_from_slice(&[piece as u8, major]);
    bytes.extend_from_slice(&minor.to_le_bytes());
    Writer::new(bytes, now)
}

/// Ends a piece.
pub fn seal(writer: Writer) -> Vec<u8> {
    let mut bytes = writer.into_bytes();
    let sum = sum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads all of a piece with `read`.
///
/// # Errors
/// When it is not such a piece, not whole, or `read` cannot understand it.
pub fn open<'a, T>(
    bytes: &'a [u8],
    piece: Piece,
    now: Now,
    read: impl FnOnce(Fields<'a>) -> Result<T, Corrupt>,
) -> Result<T, Unreadable> {
    let name = piece.name();
    let broken = |why: &str| Unreadable::Broken { piece: name, why: why.to_owned() };
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err(broken("it is shorter than its head"));
    };
    let [magic @ .., kind, major, minor_low, minor_high] = head;
    if magic != MAGIC {
        return Err(broken("it does not begin as state of throng does"));
    }
    let theirs = Version { major: *major, minor: u16::from_le_bytes([*minor_low, *minor_high]) };
    if theirs.major != Version::HERE.major {
        return Err(Unreadable::Version { piece: name, theirs });
    }
    if *kind != piece as u8 {
        return Err(broken(&format!("it is a piece of kind {kind}")));
    }
    let Some((payload, found)) = rest.split_last_chunk::<SUM_BYTES>() else {
        return Err(broken("it ends before its sum"));
    };
    let whole = bytes.len() - SUM_BYTES;
    if sum(bytes.get(..whole).unwrap_or_default()) != u64::from_le_bytes(*found) {
        return Err(broken(&format!("its {} bytes do not add up to their sum", bytes.len())));
    }
    read(Fields::new(payload, HEAD_BYTES, name, now))
        .map_err(|corrupt| Unreadable::Corrupt { piece: name, corrupt })
}

/// The same piece as a later minor version might have written it: with fields that nobody knows, in
/// every record. For tests of whole programs.
///
/// # Errors
/// When it is none, or cannot be read.
#[cfg(debug_assertions)]
pub fn grown(piece: &[u8]) -> Result<Vec<u8>, Corrupt> {
    let (head, rest) = piece.split_at_checked(HEAD_BYTES).unwrap_or_default();
    let (payload, _) = rest.split_last_chunk::<SUM_BYTES>().unwrap_or((&[], &[0; SUM_BYTES]));
    let [magic @ .., major, _, _] = head else {
        return Err(Fields::new(piece, 0, "a piece", Now::default()).corrupt("has no head"));
    };
    let minor = (Version::HERE.minor + 1).to_le_bytes();
    let mut out = Writer::new([magic, &[*major], &minor].concat(), Now::default());
    Fields::new(payload, HEAD_BYTES, "a piece", Now::default()).put_grown(&mut out)?;
    Ok(seal(out))
}

/// A sum that a flipped bit, a lost page or a cut end changes; no protection against an author.
///
/// Four lanes, so that the processor works on them at the same time: 2 MB take a quarter of a
/// millisecond.
fn sum(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut lanes = [1_u64, 2, 3, 4];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = (lane.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
        }
    }
    for (at, byte) in rest.iter().enumerate() {
        let lane = &mut lanes[at % 4];
        *lane = (lane.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    lanes.iter().fold(bytes.len() as u64, |sum, lane| {
        (sum.rotate_left(17) ^ lane ^ (lane >> 29)).wrapping_mul(PRIME)
    })
}

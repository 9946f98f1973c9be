//! Fields written one after the other.

use super::{BYTES, NEEDED, NUMBER, RECORD, TAG_MAX, second_of};
use crate::request::Now;

/// Writes fields.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    now: Now,
}

impl Writer {
    /// A writer that starts with `bytes`. Times are written as what is left, or has passed, at `now`.
    pub fn new(bytes: Vec<u8>, now: Now) -> Self {
        Self { bytes, now }
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// The whole second of the clock.
    pub fn second(&self) -> u32 {
        second_of(self.now)
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn number(&mut self, tag: u8, value: u64) {
        self.key(tag, NUMBER);
        self.varint(value);
    }

    pub fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.key(tag, BYTES);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// A record of what `fields` writes.
    pub fn record(&mut self, tag: u8, fields: impl FnOnce(&mut Self)) {
        self.behind_length(tag, RECORD, fields);
    }

    /// A record that a reader who does not know it must refuse.
    pub fn needed(&mut self, tag: u8, fields: impl FnOnce(&mut Self)) {
        self.behind_length(tag, NEEDED, fields);
    }

    pub(super) fn behind_length(&mut self, tag: u8, kind: u8, fields: impl FnOnce(&mut Self)) {
        self.key(tag, kind);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fields(self);
        let len = self.bytes.len() - at - 4;
        // What is larger is cut in pieces by who writes it; a length that does not fit is read as
        // one that ends elsewhere, and refused.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&len.to_le_bytes());
        }
    }

    fn key(&mut self, tag: u8, kind: u8) {
        debug_assert!((1..=TAG_MAX).contains(&tag), "a tag has six bits and is not 0");
        self.bytes.push(tag << 2 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push((value & 0x7f) as u8);
    }
}

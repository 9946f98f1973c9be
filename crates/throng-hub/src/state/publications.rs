//! What travels in channels, written down.

use std::sync::Arc;

use super::record::{Corrupt, Field, Fields, Part, Record, Through, Within, Writer};
use crate::publication::{ClientInfo, Epoch, Position, Publication};
use crate::registry::SubFlags;
use crate::request::{Publish, Retention};

crate::record!("a client's info", ClientInfo { 1 user, 2 client, 3 conn_info, 4 chan_info });

crate::record!("a position", Position { 1 offset, 2 epoch });

crate::record!("a retention", Retention { 1 size, 2 ttl_ms, 3 meta_ttl_ms });

// What it draws of the byte budget is drawn anew by who reads it.
crate::record!("a publish", Publish {
    1 channel,
    2 data,
    3 info as Within,
    4 tags as Tags,
    5 skip_history,
    6 idempotency_key,
    7 version,
    8 version_epoch,
    9 retention as Within,
    10 delta,
} without { draw: None });

impl Part for SubFlags {
    fn absent() -> Option<Self> {
        Some(Self::default())
    }
    fn put(&self, tag: u8, out: &mut Writer) {
        self.0.put(tag, out);
    }
    fn take(_: Option<Self>, field: &Field<'_>) -> Result<Self, Corrupt> {
        u16::take(None, field).map(Self)
    }
}

/// A publication's tag.
#[derive(Debug)]
struct Tag {
    key: String,
    value: String,
}
crate::record!("a tag", Tag { 1 key, 2 value });

/// Key and value, each pair a field.
#[derive(Debug)]
pub struct Tags;

impl Through<Box<[(String, String)]>> for Tags {
    fn absent() -> Option<Box<[(String, String)]>> {
        Some(Box::default())
    }
    fn put(value: &Box<[(String, String)]>, tag: u8, out: &mut Writer) {
        for (key, value) in value {
            out.record(tag, |out| {
                key.put(1, out);
                value.put(2, out);
            });
        }
    }
    fn take(
        old: Option<Box<[(String, String)]>>,
        field: &Field<'_>,
    ) -> Result<Box<[(String, String)]>, Corrupt> {
        let mut list = old.unwrap_or_default().into_vec();
        let Tag { key, value } = Tag::take_fields(field.fields(Tag::WHAT)?)?;
        list.push((key, value));
        Ok(list.into())
    }
}

/// Writes a publication of a stream. Its epoch is the stream's, and its forms are made again when
/// they are wanted.
pub(crate) fn put(publication: &Publication, end_ms: u64, out: &mut Writer) {
    let Publication {
        data,
        info,
        offset,
        epoch: _,
        time_ms,
        tags,
        delta,
        keyed,
        forms: _,
        other_forms: _,
    } = publication;
    offset.put(1, out);
    data.put(2, out);
    if let Some(info) = info {
        out.record(3, |out| info.put_fields(out));
    }
    time_ms.put(4, out);
    Tags::put(tags, 5, out);
    out.number(6, end_ms.saturating_sub(out.now().mono_ms));
    delta.put(7, out);
    Within::put(keyed, 8, out);
}

/// Reads what [`put`] wrote: a publication of the stream with this epoch, and its end.
pub(crate) fn take(
    mut fields: Fields<'_>,
    epoch: Epoch,
) -> Result<(Arc<Publication>, u64), Corrupt> {
    let mut publication = Publication::new(bytes::Bytes::new(), None, 0);
    let mut end_ms = fields.now().mono_ms;
    while let Some(field) = fields.field()? {
        match field.tag {
            1 => publication.offset = field.number()?,
            2 => publication.data = Part::take(None, &field)?,
            3 => publication.info = Within::take(None, &field)?,
            4 => publication.time_ms = Part::take(None, &field)?,
            5 => {
                let before = std::mem::take(&mut publication.tags);
                publication.tags = Tags::take(Some(before), &field)?;
            }
            6 => end_ms = end_ms.saturating_add(field.number()?),
            7 => publication.delta = Part::take(None, &field)?,
            8 => publication.keyed = Within::take(None, &field)?,
            _ => field.pass()?,
        }
    }
    publication.epoch = Some(epoch);
    Ok((Arc::new(publication), end_ms))
}

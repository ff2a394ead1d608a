//! How an entry is laid out in one Redis value.
//!
//! ```text
//! offset  0  u8   version, 1
//!         1  u8   flags, 0
//!         2  u16  number of tags
//!         4  u32  offset of the body
//!         8  f64  tick of the ticket     16  f64  born of the ticket
//!        24  f64  fresh until            32  f64  kept until             microseconds
//!        40  8 bytes for each tag, its digest
//!            8 bytes  checksum of all that is before and after it, up to the end of the head
//!            u16  length of the Vary specification, u32 length of the head, u32 length of the body
//!            the Vary specification, the head, padding up to the offset of the body
//!            the body
//! ```
//! All numbers are little-endian. The first 40 bytes and the digests are what the scripts read. The padding is room for
//! a head that grows when it is refreshed in place. The checksum tells values apart that have the same ticket and times
//! ([`stamp`]); the body, which it does not cover, is checked by who encoded it, as is the head.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use twox_hash::XxHash3_64;

use crate::{
    TagDigest, Timestamp,
    backend::{BackendError, Entry, ErrorKind, Tick, Ticket, VarySpec},
};

/// What comes before the digests.
const PREFIX: usize = 40;
/// Checksum and lengths.
const LENGTHS: usize = 8 + 2 + 4 + 4;
const VERSION: u8 = 1;
#[cfg(feature = "redis")]
const STAMP_AT: usize = 8;
/// At least this much room for a head to grow.
const PADDING: usize = 64;
/// Redis refuses longer values.
const LONGEST: usize = 512 << 20;

/// The whole value for a new entry.
pub(super) fn encode(entry: &Entry) -> Result<Bytes, BackendError> {
    let body_off = roomy(entry);
    if body_off + entry.body().len() > LONGEST {
        return Err(BackendError::new(ErrorKind::TooLarge, "the response is longer than a Redis value can be"));
    }
    let mut blob = BytesMut::with_capacity(body_off + entry.body().len());
    put_head(&mut blob, entry, body_off);
    blob.put_slice(entry.body());
    Ok(blob.freeze())
}

/// The part before the body for an entry that goes on with the stored body of `base`; `None` if it has outgrown the
/// room.
#[cfg(feature = "redis")]
pub(super) fn encode_head(entry: &Entry, base: &Entry) -> Option<Bytes> {
    let body_off = match base.body_offset() {
        // Not read but made here: this is where it was stored, unless it was refreshed since.
        0 => roomy(base),
        read => usize::try_from(read).ok()?,
    };
    if head_len(entry) > body_off {
        return None;
    }
    let mut blob = BytesMut::with_capacity(body_off);
    put_head(&mut blob, entry, body_off);
    Some(blob.freeze())
}

/// The 40 bytes that carry nothing but a ticket, as `drop` wants them.
#[cfg(feature = "redis")]
pub(super) fn ticket_only(ticket: Ticket) -> Bytes {
    let mut blob = BytesMut::with_capacity(PREFIX);
    put_prefix(&mut blob, 0, PREFIX, ticket, Timestamp::EPOCH, Timestamp::EPOCH);
    blob.freeze()
}

/// What tells a value, which was decoded to `entry`, from whatever else was or will be stored at its key: from the ticket to
/// the checksum, which begin at [`STAMP_AT`].
#[cfg(feature = "redis")]
pub(super) fn stamp<'a>(blob: &'a [u8], entry: &Entry) -> &'a [u8] {
    &blob[STAMP_AT..PREFIX + 8 * entry.tags().len() + 8]
}

/// Where the body of a new entry is put.
fn roomy(entry: &Entry) -> usize {
    (head_len(entry) + PADDING).next_multiple_of(16)
}

fn head_len(entry: &Entry) -> usize {
    PREFIX + 8 * entry.tags().len() + LENGTHS + entry.vary().as_bytes().len() + entry.head().len()
}

fn put_head(blob: &mut BytesMut, entry: &Entry, body_off: usize) {
    put_prefix(blob, entry.tags().len(), body_off, entry.ticket(), entry.fresh_until(), entry.keep_until());
    for tag in entry.tags() {
        blob.put_slice(tag.as_bytes());
    }
    let at = blob.len();
    blob.put_u64_le(0);
    // `encode` bounds the sum of all lengths, and a specification its own.
    blob.put_u16_le(saturated(entry.vary().as_bytes().len()));
    blob.put_u32_le(saturated(entry.head().len()));
    blob.put_u32_le(saturated(entry.body().len()));
    blob.put_slice(entry.vary().as_bytes());
    blob.put_slice(entry.head());
    let sum = checksum(&blob[..at], &blob[at + 8..]);
    blob[at..at + 8].copy_from_slice(&sum);
    blob.put_bytes(0, body_off - blob.len());
}

fn put_prefix(blob: &mut BytesMut, tags: usize, off: usize, ticket: Ticket, fresh: Timestamp, keep: Timestamp) {
    blob.put_u8(VERSION);
    blob.put_u8(0);
    blob.put_u16_le(saturated(tags));
    blob.put_u32_le(saturated(off));
    for number in [ticket.tick, ticket.born, fresh.as_micros(), keep.as_micros()] {
        // A time beyond the year 2255 is as good as that one; unbounded it would read as damage.
        blob.put_f64_le(number.min(1 << 53) as f64);
    }
}

fn saturated<T: TryFrom<usize> + Limit>(n: usize) -> T {
    T::try_from(n).unwrap_or(T::MAX)
}

trait Limit {
    const MAX: Self;
}

impl Limit for u16 {
    const MAX: Self = Self::MAX;
}

impl Limit for u32 {
    const MAX: Self = Self::MAX;
}

/// What was read.
#[derive(Debug)]
pub(super) struct Decoded {
    /// The tick of the ticket, as far as it can be read; 0 otherwise.
    #[cfg_attr(not(any(feature = "redis", test)), expect(dead_code, reason = "only Redis' look-up tells it"))]
    pub(super) tick: Tick,
    /// `None` if the value is not an entry of this version, whole and undamaged.
    pub(super) entry: Option<Arc<Entry>>,
}

/// Reads a value. Vary specification, head and body are slices of it: nothing is copied.
pub(super) fn decode(blob: &Bytes) -> Decoded {
    let readable = blob.len() >= PREFIX && blob[0] == VERSION;
    let tick = if readable { whole(f64_at(blob, 8)).unwrap_or(0) } else { 0 };
    Decoded { tick, entry: if readable { entry(blob) } else { None } }
}

fn entry(blob: &Bytes) -> Option<Arc<Entry>> {
    let tags = usize::from(u16_at(blob, 2));
    let body_off = u32_at(blob, 4);
    let body_at = usize::try_from(body_off).ok()?;
    let at = PREFIX + 8 * tags;
    let spec_at = at + LENGTHS;
    if body_at < spec_at || blob.len() < body_at {
        return None;
    }
    let spec_len = usize::from(u16_at(blob, at + 8));
    let head_len = usize::try_from(u32_at(blob, at + 10)).ok()?;
    let body_len = usize::try_from(u32_at(blob, at + 14)).ok()?;
    let head_at = spec_at + spec_len;
    let head_end = head_at.checked_add(head_len)?;
    if head_end > body_at || blob.len() - body_at != body_len {
        return None;
    }
    if checksum(&blob[..at], &blob[at + 8..head_end]) != blob[at..at + 8] {
        return None;
    }
    let ticket = Ticket { tick: whole(f64_at(blob, 8))?, born: whole(f64_at(blob, 16))? };
    let time = |at| whole(f64_at(blob, at)).map(Timestamp::from_micros);
    let digests = blob[PREFIX..at].chunks_exact(8).filter_map(|digest| digest.try_into().ok());
    let entry = Entry::builder(ticket)
        .fresh_until(time(24)?)
        .keep_until(time(32)?)
        .vary(VarySpec::new(blob.slice(spec_at..head_at))?)
        .tags(digests.map(TagDigest::from_bytes))
        .head(blob.slice(head_at..head_end))
        .body(blob.slice(body_at..))
        .body_offset(body_off)
        .build();
    Some(entry)
}

/// XXH3, which is much quicker on so few bytes than a hash against those who forge: whoever can write to Redis could
/// forge any.
fn checksum(before: &[u8], after: &[u8]) -> [u8; 8] {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(before), after).to_le_bytes()
}

/// A number that is a tick or a time: whole, not negative, exact as a double.
pub(super) fn whole(number: f64) -> Option<u64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0; // 2^53
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked
    ((0.0..=LIMIT).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

/// `bytes` must be at least `at` + 8 long.
pub(super) fn f64_at(bytes: &[u8], at: usize) -> f64 {
    f64::from_le_bytes(array_at(bytes, at))
}

/// `bytes` must be at least `at` + 2 long.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// A value whose checksum is right, so that what follows it is tried too.
#[cfg(fuzzing)]
pub(super) fn seal(blob: &[u8]) -> Bytes {
    let mut blob = blob.to_vec();
    if blob.len() >= PREFIX {
        let at = PREFIX + 8 * usize::from(u16_at(&blob, 2) % 8);
        blob[2..4].copy_from_slice(&saturated::<u16>((at - PREFIX) / 8).to_le_bytes());
        if blob.len() >= at + LENGTHS {
            let head_at = at + LENGTHS + usize::from(u16_at(&blob, at + 8));
            let head_end = head_at.saturating_add(u32_at(&blob, at + 10) as usize);
            let sum = checksum(&blob[..at], &blob[at + 8..head_end.min(blob.len())]);
            blob[at..at + 8].copy_from_slice(&sum);
        }
    }
    blob.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(tags: usize, head: &[u8], body: &[u8]) -> Arc<Entry> {
        Entry::builder(Ticket { tick: 1_700_000_000_000_001, born: 1_600_000_000_000_000 })
            .fresh_until(Timestamp::from_micros(1_700_000_000_500_000))
            .keep_until(Timestamp::from_micros(1_700_000_001_000_000))
            .vary(VarySpec::new(Bytes::from_static(b"accept-encoding")).unwrap())
            .tags((0..tags).map(|i| TagDigest::from_bytes((i as u64).to_be_bytes())))
            .head(Bytes::copy_from_slice(head))
            .body(Bytes::copy_from_slice(body))
            .build()
    }

    fn assert_same(one: &Entry, other: &Entry) {
        assert_eq!(one.ticket(), other.ticket());
        assert_eq!((one.fresh_until(), one.keep_until()), (other.fresh_until(), other.keep_until()));
        assert_eq!((one.vary(), one.tags()), (other.vary(), other.tags()));
        assert_eq!((one.head(), one.body()), (other.head(), other.body()));
    }

    #[test]
    fn what_is_read_is_a_slice_of_the_reply() {
        let blob = encode(&sample(2, b"head", b"body")).unwrap();
        let entry = decode(&blob).entry.unwrap();
        assert_eq!(entry.body().as_ptr(), blob[blob.len() - 4..].as_ptr());
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_head_that_fits_leaves_the_body_where_it_is() {
        let blob = encode(&sample(1, b"head", b"body")).unwrap();
        let stored = decode(&blob).entry.unwrap();
        let longer = sample(1, &[b'h'; 40], b"body");
        let head = encode_head(&longer, &stored).unwrap();
        let refreshed = Bytes::from([&head[..], &blob[head.len()..]].concat());
        assert_same(&decode(&refreshed).entry.unwrap(), &longer);
        assert!(encode_head(&sample(1, &[b'h'; 400], b"body"), &stored).is_none());
    }

    #[test]
    fn a_time_too_far_away_for_the_format_is_the_last_one_that_it_has() {
        let far = Timestamp::from_micros(u64::MAX);
        let entry = Entry::builder(Ticket { tick: 1, born: 2 }).fresh_until(far).keep_until(far).build();
        let decoded = decode(&encode(&entry).unwrap()).entry.unwrap();
        assert_eq!(decoded.keep_until(), Timestamp::from_micros(1 << 53));
        assert_eq!(decoded.fresh_until(), decoded.keep_until());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_of_what_is_ours_reads_as_no_entry() {
        let blob = encode(&sample(3, b"head", b"body")).unwrap();
        for len in 0..blob.len() {
            assert!(decode(&blob.slice(..len)).entry.is_none(), "cut at {len}");
        }
        let ours = PREFIX + 3 * 8 + LENGTHS + b"accept-encoding".len() + b"head".len();
        for bit in 0..8 * ours {
            let mut damaged = blob.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged.into()).entry.is_none(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(tags in 0_usize..=128, head: Vec<u8>, body: Vec<u8>) {
            let entry = sample(tags, &head, &body);
            let decoded = decode(&encode(&entry).unwrap());
            prop_assert_eq!(decoded.tick, entry.ticket().tick);
            assert_same(&decoded.entry.unwrap(), &entry);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(mut blob: Vec<u8>, versioned: bool) {
            if versioned && !blob.is_empty() {
                blob[0] = VERSION;
            }
            decode(&blob.into());
        }
    }
}

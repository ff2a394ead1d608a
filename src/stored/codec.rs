//! The form as bytes. All numbers are little-endian; times in microseconds.
//!
//! ```text
//! u8 form · u8 HTTP version · u16 status · u32 length of the head without padding
//! u64 checksum of all that follows, seeded with these 8 bytes
//! u64 checksum of the body · u64 length of the body · in form 2: u64 length of the content
//! u64 response time · u64 initial age · u64 lifetime · u64 stale-while-revalidate · u64 stale-if-error
//! u16 flags · u16 number of lines
//! lines: u8 code of the name, or 0, u16 length, name · u32 length, value
//! ```
//! In form 1 the body is the content; in form 2 it is one LZ4 block, whose checksum and length are those above.
//!
//! What follows the stated length is padding, which stores may add. The checksum is XXH3: the head is read on every
//! hit that comes from another process, and its body with it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use twox_hash::XxHash3_64;

use super::{Content, StoredResponse, content::Packing, names};
use crate::{
    Timestamp,
    policy::{Flags, Meta},
};

const FORM: u8 = 1;
/// The content is packed.
pub(super) const PACKED: u8 = 2;
const PREFIX: usize = 8;
pub(super) const FIXED: usize = PREFIX + 8 + 16 + 40 + 4;

/// Why bytes are not a stored response. All of them mean a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DecodeError {
    /// A form that this version of the crate does not know.
    Form,
    /// It ends too early, or its parts do not fit together.
    Malformed,
    /// Head or body is not what was written.
    Checksum,
    /// The body is no packed content of the length that the head states.
    Content,
    /// The entry belongs to something else that lives in the same store.
    Foreign,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Form => "the stored response has an unknown form",
            Self::Malformed => "the stored response is malformed",
            Self::Checksum => "the stored response has a wrong checksum",
            Self::Content => "the stored response has content that cannot be unpacked",
            Self::Foreign => "the entry is not a stored response",
        })
    }
}

impl std::error::Error for DecodeError {}

fn micros(duration: Duration) -> [u8; 8] {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).to_le_bytes()
}

fn version_code(version: Version) -> u8 {
    match version {
        Version::HTTP_09 => 9,
        Version::HTTP_10 => 10,
        Version::HTTP_2 => 20,
        Version::HTTP_3 => 30,
        _ => 11,
    }
}

pub(super) fn encode(response: &StoredResponse) -> Bytes {
    let StoredResponse { status, version, headers, meta, content } = response;
    let (form, packed) = match content.packing() {
        Packing::Plain => (FORM, None),
        Packing::Lz4 { length } => (PACKED, Some(length)),
    };
    // Lengths are bounded by the types of http (a name has less than 64 KiB), and by its own limits for heads. Should
    // a value ever be longer than its length can say, the head does not decode, which is a miss.
    let room: usize = headers.iter().map(|(name, value)| 7 + name.as_str().len() + value.len()).sum();
    let mut out = Vec::with_capacity(FIXED + 8 + room);
    out.extend_from_slice(&[form, version_code(*version)]);
    out.extend_from_slice(&status.as_u16().to_le_bytes());
    out.extend_from_slice(&[0; 12]);
    let body = content.as_stored();
    out.extend_from_slice(&XxHash3_64::oneshot(body).to_le_bytes());
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend(packed.iter().flat_map(|length| (*length as u64).to_le_bytes()));
    out.extend_from_slice(&meta.response_time.as_micros().to_le_bytes());
    for duration in [meta.initial_age, meta.lifetime, meta.stale_while_revalidate, meta.stale_if_error] {
        out.extend_from_slice(&micros(duration));
    }
    out.extend_from_slice(&meta.flags.bits().to_le_bytes());
    out.extend_from_slice(&u16::try_from(headers.len()).unwrap_or(u16::MAX).to_le_bytes());
    for (name, value) in headers {
        let code = names::code(name);
        out.push(code);
        if code == 0 {
            out.extend_from_slice(&u16::try_from(name.as_str().len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(name.as_str().as_bytes());
        }
        out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX).to_le_bytes();
    out[4..8].copy_from_slice(&length);
    let sum = head_sum(&out).to_le_bytes();
    out[PREFIX..PREFIX + 8].copy_from_slice(&sum);
    out.into()
}

/// The checksum of a head that has its prefix and its checksum's place.
fn head_sum(head: &[u8]) -> u64 {
    let seed = head.first_chunk().copied().map_or(0, u64::from_le_bytes);
    XxHash3_64::oneshot_with_seed(seed, &head[PREFIX + 8..])
}

#[cfg(any(fuzzing, test))]
pub(super) fn seal(head: &mut [u8], body: &Bytes) {
    if head.len() < FIXED {
        return;
    }
    head[0] = if head[0] == PACKED { PACKED } else { FORM };
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes();
    head[4..8].copy_from_slice(&length);
    head[16..24].copy_from_slice(&XxHash3_64::oneshot(body).to_le_bytes());
    head[24..32].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let sum = head_sum(head).to_le_bytes();
    head[PREFIX..PREFIX + 8].copy_from_slice(&sum);
}

pub(super) fn decode(head: &Bytes, body: &Bytes) -> Result<StoredResponse, DecodeError> {
    use DecodeError::{Checksum, Form, Malformed};

    let mut reader = Reader { bytes: head, at: 0 };
    let [form] = reader.array()?;
    if form != FORM && (form != PACKED || cfg!(not(feature = "compression"))) {
        return Err(Form);
    }
    let [version] = reader.array()?;
    let status = u16::from_le_bytes(reader.array()?);
    let length = u32::from_le_bytes(reader.array()?) as usize;
    if length < FIXED || head.len() < length {
        return Err(Malformed);
    }
    let sum = reader.u64()?;
    if sum != head_sum(&head[..length]) {
        return Err(Checksum);
    }
    let head = head.slice(..length);
    let mut reader = Reader { bytes: &head, at: reader.at };
    let body_sum = reader.u64()?;
    if reader.u64()? != body.len() as u64 || body_sum != XxHash3_64::oneshot(body) {
        return Err(Checksum);
    }
    let content = match form {
        FORM => Content::plain(body.clone()),
        _ => Content::packed(body.clone(), reader.u64()?).ok_or(DecodeError::Content)?,
    };
    let response_time = Timestamp::from_micros(reader.u64()?);
    let mut duration = || reader.u64().map(Duration::from_micros);
    let (initial_age, lifetime) = (duration()?, duration()?);
    let (stale_while_revalidate, stale_if_error) = (duration()?, duration()?);
    let flags = Flags::from_bits(u16::from_le_bytes(reader.array()?));
    let lines = usize::from(u16::from_le_bytes(reader.array()?));
    // A line takes 5 bytes at least, so that a wrong number cannot make room for more than there is.
    let mut headers = HeaderMap::try_with_capacity(lines.min(length / 5)).map_err(|_| Malformed)?;
    for _ in 0..lines {
        let name = match reader.array()? {
            [0] => {
                let length = usize::from(u16::from_le_bytes(reader.array()?));
                HeaderName::from_bytes(&reader.take(length)?).map_err(|_| Malformed)?
            }
            [code] => names::name(code).ok_or(Malformed)?,
        };
        let length = u32::from_le_bytes(reader.array()?) as usize;
        let value = HeaderValue::from_maybe_shared(reader.take(length)?).map_err(|_| Malformed)?;
        headers.try_append(name, value).map_err(|_| Malformed)?;
    }
    if reader.at != head.len() {
        return Err(Malformed);
    }
    Ok(StoredResponse {
        status: StatusCode::from_u16(status).map_err(|_| Malformed)?,
        version: match version {
            9 => Version::HTTP_09,
            10 => Version::HTTP_10,
            11 => Version::HTTP_11,
            20 => Version::HTTP_2,
            30 => Version::HTTP_3,
            _ => return Err(Malformed),
        },
        headers,
        meta: Meta { response_time, initial_age, lifetime, stale_while_revalidate, stale_if_error, flags },
        content,
    })
}

struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let array = self.bytes[self.at..].first_chunk().ok_or(DecodeError::Malformed)?;
        self.at += N;
        Ok(*array)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A slice of the same buffer.
    fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len()).ok_or(DecodeError::Malformed)?;
        let slice = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(slice)
    }
}

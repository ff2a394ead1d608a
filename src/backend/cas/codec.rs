//! Writing and reading values: a version first, a checksum last.

use bytes::{BufMut, Bytes, BytesMut};

use crate::Timestamp;

const VERSION: u8 = 1;
const CHECKSUM: usize = 8;

/// Writes a value.
pub(super) struct Writer(BytesMut);

impl Writer {
    pub(super) fn new() -> Self {
        let mut bytes = BytesMut::with_capacity(256);
        bytes.put_u8(VERSION);
        Self(bytes)
    }

    pub(super) fn u8(&mut self, n: u8) {
        self.0.put_u8(n);
    }

    pub(super) fn u64(&mut self, n: u64) {
        self.0.put_u64_le(n);
    }

    pub(super) fn time(&mut self, time: Timestamp) {
        self.u64(time.as_micros());
    }

    pub(super) fn array<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.0.put_slice(bytes);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.put_slice(bytes);
    }

    pub(super) fn finish(mut self) -> Bytes {
        let sum = checksum(&self.0);
        self.0.put_slice(&sum);
        self.0.freeze()
    }
}

/// Reads one; everything is `None` once something was.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// `None` for what is no whole, undamaged value of this version; an empty one stands for one that was removed.
    pub(super) fn new(value: &'a [u8]) -> Option<Self> {
        let (content, sum) = value.split_at_checked(value.len().checked_sub(CHECKSUM)?)?;
        let (version, rest) = content.split_first()?;
        (*version == VERSION && checksum(content) == sum).then_some(Self(rest))
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        self.u64().map(Timestamp::from_micros)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// As many things as the number that comes next says.
    pub(super) fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let n = self.u64()?;
        let mut all = Vec::new();
        // Each takes at least a byte, so a wrong number ends with the bytes.
        for _ in 0..n {
            all.push(one(self)?);
        }
        Some(all)
    }
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    blake3::Hasher::new().update(content).finalize_xof().fill(&mut sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else_is() {
        let mut writer = Writer::new();
        writer.u8(7);
        writer.bytes(b"abc");
        writer.time(Timestamp::from_micros(9));
        let value = writer.finish();
        let mut reader = Reader::new(&value).unwrap();
        assert_eq!((reader.u8(), reader.text(), reader.u64(), reader.u8()), (Some(7), Some("abc"), Some(9), None));
        for len in 0..value.len() {
            assert!(Reader::new(&value[..len]).is_none(), "cut at {len}");
        }
        for bit in 0..8 * value.len() {
            let mut damaged = value.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Reader::new(&damaged).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn a_length_that_is_too_large_reads_as_nothing() {
        let mut writer = Writer::new();
        writer.u64(u64::MAX);
        let value = writer.finish();
        assert!(Reader::new(&value).unwrap().bytes().is_none());
        assert!(Reader::new(&value).unwrap().many(Reader::u8).is_none());
    }
}

//! What is hashed in one pass: a hasher that takes fields one by one is 2 kB of state.

use std::ops::Deref;

/// Bytes one after the other; those of most requests take no allocation.
pub(crate) struct Hashed {
    near: [u8; Self::NEAR],
    len: usize,
    /// All of them, where they are too many.
    far: Vec<u8>,
}

impl Hashed {
    const NEAR: usize = 256;

    pub(crate) fn new() -> Self {
        Self { near: [0; Self::NEAR], len: 0, far: Vec::new() }
    }

    /// A field: the length, seven bits to a byte, the last one without its high bit (LEB128), then the bytes. So the
    /// fields of most requests fit one block of the hash.
    pub(crate) fn field(&mut self, bytes: &[u8]) {
        let mut len = bytes.len();
        while let (low, rest @ 1..) = (len & 0x7f, len >> 7) {
            #[expect(clippy::cast_possible_truncation, reason = "seven bits")]
            self.extend(&[low as u8 | 0x80]);
            len = rest;
        }
        #[expect(clippy::cast_possible_truncation, reason = "seven bits")]
        self.extend(&[len as u8]);
        self.extend(bytes);
    }

    /// Bytes whose number is known.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.near.get_mut(self.len..end) {
            Some(room) => room.copy_from_slice(bytes),
            None => self.extend_far(bytes),
        }
        self.len = end;
    }

    #[cold]
    fn extend_far(&mut self, bytes: &[u8]) {
        if self.far.is_empty() {
            self.far.extend_from_slice(&self.near[..self.len]);
        }
        self.far.extend_from_slice(bytes);
    }
}

impl Deref for Hashed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.near.get(..self.len).unwrap_or(&self.far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_there_are_they_stand_one_after_the_other() {
        let lengths: [(usize, &[u8]); 9] = [
            (0, &[0]),
            (1, &[1]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (250, &[0xfa, 1]),
            (253, &[0xfd, 1]),
            (254, &[0xfe, 1]),
            (256, &[0x80, 2]),
            (20_000, &[0xa0, 0x9c, 1]),
        ];
        for (len, prefix) in lengths {
            let mut fields = Hashed::new();
            let mut expected = Vec::new();
            for _ in 0..3 {
                fields.field(&vec![7; len]);
                fields.extend(&[1]);
                expected.extend([prefix, &vec![7; len][..], &[1]].concat());
                assert_eq!(*fields, *expected, "{len}");
            }
        }
    }
}

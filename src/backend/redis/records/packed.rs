//! Lists and text in `MessagePack`, as scripts write them with `cmsgpack`.

use bytes::{Buf, Bytes};

/// What stands there, read one after the other.
pub(super) struct Packed(Bytes);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A list of so many things, which follow.
    List(usize),
    /// A slice of the whole.
    Text(Bytes),
}

impl Packed {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// `None` at the end, and where something else stands.
    pub(super) fn next(&mut self) -> Option<Item> {
        let kind = self.0.try_get_u8().ok()?;
        match kind {
            0x90..=0x9f => Some(Item::List(usize::from(kind & 0x0f))),
            0xdc | 0xdd => self.len(kind - 0xdb).map(Item::List),
            0xa0..=0xbf => self.text(usize::from(kind & 0x1f)),
            0xd9..=0xdb => self.len(kind - 0xd9).and_then(|len| self.text(len)),
            _ => None,
        }
    }

    /// The text that stands there.
    pub(super) fn next_text(&mut self) -> Option<Bytes> {
        match self.next()? {
            Item::Text(text) => Some(text),
            Item::List(_) => None,
        }
    }

    /// A length of 1, 2 or 4 bytes.
    fn len(&mut self, log: u8) -> Option<usize> {
        match log {
            0 => self.0.try_get_u8().ok().map(usize::from),
            1 => self.0.try_get_u16().ok().map(usize::from),
            _ => self.0.try_get_u32().ok().and_then(|len| len.try_into().ok()),
        }
    }

    fn text(&mut self, len: usize) -> Option<Item> {
        (len <= self.0.len()).then(|| Item::Text(self.0.split_to(len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: Vec<u8>) -> Vec<Item> {
        let mut packed = Packed::new(bytes.into());
        std::iter::from_fn(|| packed.next()).collect()
    }

    fn text(len: usize) -> Item {
        Item::Text(Bytes::from(vec![b'x'; len]))
    }

    #[test]
    fn lists_and_text_of_every_length_are_read() {
        for (len, head) in [
            (0, vec![0xa0]),
            (31, vec![0xbf]),
            (32, vec![0xd9, 32]),
            (255, vec![0xd9, 255]),
            (256, vec![0xda, 1, 0]),
            (65_536, vec![0xdb, 0, 1, 0, 0]),
        ] {
            assert_eq!(all([head, vec![b'x'; len]].concat()), [text(len)]);
        }
        for (len, head) in
            [(0, vec![0x90]), (15, vec![0x9f]), (16, vec![0xdc, 0, 16]), (65_536, vec![0xdd, 0, 1, 0, 0])]
        {
            assert_eq!(all([head, vec![0xa1, b'x']].concat()), [Item::List(len), text(1)]);
        }
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_the_end() {
        for strange in
            [&b""[..], b"\xa2x", b"\xd9", b"\xda\x01", b"\xdb\xff\xff\xff\xffx", b"\xdc\x00", b"\xc0", b"\x01"]
        {
            assert_eq!(all(strange.to_vec()), []);
        }
    }
}

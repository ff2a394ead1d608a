//! The content as it is stored: as it is, or packed.
//!
//! Packed content is one LZ4 block. LZ4 is chosen because content is unpacked on every hit, which it does faster than
//! zstd and deflate, whose blocks are smaller; and `lz4_flex` is Rust without `unsafe`, without C and without
//! dependencies. What is unpacked into is as large as the head says and no larger, whatever the block holds.

use bytes::Bytes;

use super::DecodeError;

/// The content of a stored response. Without the feature `compression` it is never packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    packing: Packing,
    bytes: Bytes,
}

/// How content is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    /// One LZ4 block that holds so many bytes.
    Lz4 {
        length: usize,
    },
}

/// The longest content that is packed; it bounds the memory that unpacking takes, whatever a head says.
pub(crate) const MAX_LENGTH: usize = 16 << 20;

impl Content {
    /// Content that is stored as it is.
    pub(crate) fn plain(bytes: Bytes) -> Self {
        Self { packing: Packing::Plain, bytes }
    }

    /// A block that is said to hold so many bytes; `None` where no block does.
    pub(super) fn packed(block: Bytes, length: u64) -> Option<Self> {
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_LENGTH)?;
        Some(Self { packing: Packing::Lz4 { length }, bytes: block })
    }

    pub(super) fn packing(&self) -> Packing {
        self.packing
    }

    /// The bytes that are stored.
    pub(crate) fn as_stored(&self) -> &Bytes {
        &self.bytes
    }

    /// The content itself.
    pub(crate) fn unpack(&self) -> Result<Bytes, DecodeError> {
        match self.packing {
            Packing::Plain => Ok(self.bytes.clone()),
            #[cfg(feature = "compression")]
            Packing::Lz4 { length } => lz4::unpack(&self.bytes, length),
            #[cfg(not(feature = "compression"))]
            Packing::Lz4 { .. } => Err(DecodeError::Form),
        }
    }
}

#[cfg(feature = "compression")]
pub(crate) mod lz4 {
    //! The one module that knows the library.

    use bytes::Bytes;
    use lz4_flex::block;

    use super::{Content, DecodeError, MAX_LENGTH, Packing};
    use crate::{backend::Entry, stored::codec::PACKED};

    /// How many bytes an entry's content has if it is packed. Only a guess until the entry is decoded.
    pub(crate) fn length_of(entry: &Entry) -> Option<usize> {
        let head = entry.head();
        if head.first() != Some(&PACKED) {
            return None;
        }
        let length = head.get(32..)?.first_chunk().copied().map(u64::from_le_bytes)?;
        usize::try_from(length).ok()
    }

    impl Content {
        /// Packs content, if that makes it smaller by an eighth at least.
        pub(crate) fn pack(content: Bytes) -> Self {
            if content.len() <= MAX_LENGTH {
                let block = block::compress(&content);
                if block.len() <= content.len() - content.len() / 8 {
                    return Self { packing: Packing::Lz4 { length: content.len() }, bytes: block.into() };
                }
            }
            Self::plain(content)
        }
    }

    pub(crate) fn unpack(block: &[u8], length: usize) -> Result<Bytes, DecodeError> {
        // No byte of a block makes more than 255; a short block cannot take much memory.
        if length / 256 > block.len() {
            return Err(DecodeError::Content);
        }
        let mut content = vec![0; length];
        match block::decompress_into(block, &mut content) {
            Ok(written) if written == length => Ok(content.into()),
            _ => Err(DecodeError::Content),
        }
    }
}

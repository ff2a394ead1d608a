//! Tags: names by which stored responses are invalidated together.

use std::{
    borrow::Borrow,
    fmt::{self, Write as _},
    sync::Arc,
};

/// The name of a group of stored responses, such as `product:17`.
///
/// 1 to 256 bytes of visible ASCII without spaces and commas, because those separate tags in header fields.
///
/// ```
/// use tower_gatehouse::Tag;
///
/// assert_eq!(Tag::new("product:17").unwrap().as_str(), "product:17");
/// assert!(Tag::new("two words").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The longest tag, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Checks and takes a name.
    pub fn new(name: impl AsRef<str>) -> Result<Self, TagError> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(TagError("a tag must not be empty"));
        }
        if name.len() > Self::MAX_LEN {
            return Err(TagError("a tag has at most 256 bytes"));
        }
        if !name.bytes().all(is_plain) {
            return Err(TagError(
                "a tag consists of visible ASCII characters without spaces and commas; `Tag::encoded` takes others",
            ));
        }
        Ok(Self(name.into()))
    }

    /// A name that ends with a value from outside, such as what a handler has read of the path: as
    /// [`Rule::tag`](crate::Rule::tag) has it of what its pattern captures. What no tag can contain (blanks, commas, what is
    /// not ASCII) is percent-encoded, with capital digits.
    ///
    /// ```
    /// use tower_gatehouse::Tag;
    ///
    /// assert_eq!(Tag::encoded("product:", "rocking chair")?.as_str(), "product:rocking%20chair");
    /// # Ok::<(), tower_gatehouse::TagError>(())
    /// ```
    ///
    /// # Errors
    /// It is too long then, empty, or `start` is not the beginning of a tag.
    pub fn encoded(start: &str, value: impl AsRef<str>) -> Result<Self, TagError> {
        Self::new(format!("{start}{}", encoded(value.as_ref().bytes())))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What backends store in place of the name.
    pub fn digest(&self) -> TagDigest {
        TagDigest::of(b"tag", &[self.0.as_bytes()])
    }
}

fn is_plain(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b','
}

/// What no tag can contain is encoded.
pub(crate) fn encoded(octets: impl IntoIterator<Item = u8>) -> String {
    let mut text = String::new();
    for octet in octets {
        if is_plain(octet) {
            text.push(octet.into());
        } else {
            let _ = write!(text, "%{octet:02X}");
        }
    }
    text
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Tag {
    type Error = TagError;

    fn try_from(name: &str) -> Result<Self, TagError> {
        Self::new(name)
    }
}

impl TryFrom<String> for Tag {
    type Error = TagError;

    fn try_from(name: String) -> Result<Self, TagError> {
        Self::new(name)
    }
}

/// A name that is not a [`Tag`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagError(&'static str);

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for TagError {}

/// 8 bytes of BLAKE3 that stand for a tag in a backend.
///
/// A collision of two tags invalidates too much, never too little.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagDigest([u8; 8]);

impl TagDigest {
    /// The digest of some fields within a domain (tags, path prefixes, groups of an origin); each is hashed with its
    /// length.
    pub(crate) fn of(domain: &[u8], fields: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in std::iter::once(&domain).chain(fields) {
            hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
        }
        let mut digest = [0; 8];
        hasher.finalize_xof().fill(&mut digest);
        Self(digest)
    }

    /// A digest that was stored.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Debug for TagDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TagDigest({:016x})", u64::from_be_bytes(self.0))
    }
}

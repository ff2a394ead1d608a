//! Paths as handlers read them.

use percent_encoding::percent_decode_str;

use crate::tag::encoded;

/// A part of a path as handlers read it, decoded, because they name tags by what they read: the same for all ways in
/// which a client may write it. What no tag can contain is encoded.
pub(crate) fn decoded(part: &str) -> String {
    encoded(percent_decode_str(part))
}

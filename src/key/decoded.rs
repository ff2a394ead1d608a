//! Paths as handlers read them.

use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

/// A part of a path as handlers read it, decoded, because they name tags by what they read: the same for all ways in
/// which a client may write it. What no tag can contain (blanks, commas, what is not ASCII) is encoded, with capital
/// digits.
pub(crate) fn decoded(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for octet in percent_decode_str(part) {
        if octet.is_ascii_graphic() && octet != b',' {
            text.push(octet.into());
        } else {
            let _ = write!(text, "%{octet:02X}");
        }
    }
    text
}

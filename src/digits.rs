//! Numbers as they are written in fields and in stores.

/// The number that the digits are; one that is too large is the largest. `None` where anything is no digit, or nothing
/// is there.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits
        .iter()
        .try_fold(0_u64, |n, d| d.is_ascii_digit().then(|| n.saturating_mul(10).saturating_add(u64::from(d - b'0'))))
}

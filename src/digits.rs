//! Numbers as they are written in fields and in stores.

/// The number that the digits are; one that is too large is the largest. `None` where anything is no digit, or nothing
/// is there.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let values = digits.iter().map(|digit| u64::from(digit - b'0'));
    Some(if digits.len() <= ALWAYS_FIT {
        values.fold(0, |n, value| n * 10 + value)
    } else {
        values.fold(0, |n: u64, value| n.saturating_mul(10).saturating_add(value))
    })
}

/// So many digits never are too large a number.
const ALWAYS_FIT: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_are_read() {
        for n in [0, 7, 1_763_772_000_000, 9_999_999_999_999_999_999, 10_000_000_000_000_000_000, u64::MAX] {
            assert_eq!(number(n.to_string().as_bytes()), Some(n));
        }
        assert_eq!(number(b"00000000000000000000017"), Some(17));
        assert_eq!(number(b"18446744073709551616"), Some(u64::MAX), "one that is too large is the largest");
        for strange in [&b""[..], b"-1", b"1 ", b"1a", b"\xff", b"18446744073709551616x"] {
            assert_eq!(number(strange), None);
        }
    }
}

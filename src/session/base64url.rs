//! Tokens as text: base64url without padding, of one length, read in one pass.

/// The bytes of a token.
const BYTES: usize = 32;
/// Its characters: ten groups of four, and three for the last two bytes.
const TEXT: usize = 43;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Has a bit that no value has.
const NOTHING: u32 = 64;

/// What each character stands for.
static VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    #[expect(clippy::cast_possible_truncation, reason = "64 fits")]
    let mut values = [NOTHING as u8; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
        let small = value as u8;
        values[ALPHABET[value] as usize] = small;
        value += 1;
    }
    values
}

/// The bytes that are written like this; `None` for what is not what they would be written as, so that there is one text
/// for each token.
pub(super) fn decode(text: &[u8]) -> Option<[u8; BYTES]> {
    let text: &[u8; TEXT] = text.try_into().ok()?;
    let mut bytes = [0; BYTES];
    let (fours, rest) = text.as_chunks::<4>();
    let (threes, last) = bytes.as_chunks_mut::<3>();
    let mut seen = 0;
    let mut group = |chars: [u8; 4]| {
        let [a, b, c, d] = chars.map(|char| u32::from(VALUES[usize::from(char)]));
        seen |= a | b | c | d;
        (a << 18 | b << 12 | c << 6 | d).to_be_bytes()
    };
    for (four, three) in fours.iter().zip(threes) {
        let [_, bytes @ ..] = group(*four);
        *three = bytes;
    }
    // As if a character followed that stands for zero.
    let [_, first, second, beyond] = group([rest[0], rest[1], rest[2], ALPHABET[0]]);
    last.copy_from_slice(&[first, second]);
    (seen & NOTHING == 0 && beyond == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    /// What the crate reads that writes tokens.
    fn known(text: &[u8]) -> Option<[u8; BYTES]> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; BYTES]) {
            prop_assert_eq!(decode(URL_SAFE_NO_PAD.encode(bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn whatever_stands_there_is_read_as_by_others(bytes: [u8; BYTES], at in 0..TEXT, to: u8) {
            let mut text = URL_SAFE_NO_PAD.encode(bytes).into_bytes();
            text[at] = to;
            prop_assert_eq!(decode(&text), known(&text));
        }

        #[test]
        fn no_other_length_is_read(text in "[A-Za-z0-9_-]{0,42}|[A-Za-z0-9_-]{44,90}") {
            prop_assert_eq!(decode(text.as_bytes()), None);
        }
    }

    #[test]
    fn every_last_character_is_read_as_by_others() {
        for last in 0..=u8::MAX {
            let text = [&[b'Q'; TEXT - 1][..], &[last]].concat();
            assert_eq!(decode(&text), known(&text), "{last}");
        }
    }
}

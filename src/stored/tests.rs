//! Round trips, damage, and what is shared.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use proptest::prelude::*;

use super::*;
use crate::{Timestamp, backend::Ticket, policy::Flags};

fn response(lines: &[(&str, &str)], body: &'static [u8]) -> StoredResponse {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    StoredResponse {
        status: StatusCode::OK,
        version: Version::HTTP_11,
        headers,
        meta: Meta {
            response_time: Timestamp::from_micros(1_700_000_000_000_001),
            initial_age: Duration::from_micros(1_500_001),
            lifetime: Duration::from_mins(1),
            stale_while_revalidate: Duration::from_secs(5),
            stale_if_error: Duration::from_secs(7),
            flags: Flags::S_MAXAGE | Flags::VALIDATOR,
        },
        content: Content::plain(Bytes::from_static(body)),
    }
}

fn sample() -> StoredResponse {
    response(
        &[
            ("content-type", "text/plain"),
            ("x-own-name", "one"),
            ("link", "<a>"),
            ("x-own-name", "two"),
            ("etag", "\"v1\""),
            ("link", "<b>"),
        ],
        b"the content",
    )
}

fn inside(outer: &Bytes, inner: &[u8]) -> bool {
    let outer = outer.as_ptr_range();
    let inner = inner.as_ptr_range();
    outer.start <= inner.start && inner.end <= outer.end
}

#[test]
fn a_response_comes_back_as_it_was_with_order_and_doubles() {
    let stored = sample();
    let back = StoredResponse::decode(&stored.encode_head(), stored.content.as_stored()).unwrap();
    assert_eq!(back, stored);
    let lines = |r: &StoredResponse| r.headers.iter().map(|(n, v)| (n.clone(), v.clone())).collect::<Vec<_>>();
    assert_eq!(lines(&back), lines(&stored));
    assert_eq!(back.headers.get_all("x-own-name").iter().collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn values_and_body_are_slices_of_the_buffers_they_came_in() {
    let stored = response(&[("etag", "\"a value long enough not to be inline anywhere\"")], b"the content");
    let head = stored.encode_head();
    let back = StoredResponse::decode(&head, stored.content.as_stored()).unwrap();
    assert!(inside(&head, back.headers[header::ETAG].as_bytes()));
    assert!(inside(stored.content.as_stored(), back.content.as_stored()));
}

#[test]
fn a_head_of_ten_well_known_fields_has_less_than_130_bytes_beside_their_values() {
    let names = ["date", "etag", "vary", "link", "server", "expires", "content-type", "via", "allow", "location"];
    let stored = response(&names.map(|name| (name, "12345678")), b"");
    assert!(stored.encode_head().len() - 80 < 130, "{}", stored.encode_head().len() - 80);
}

#[test]
fn padding_after_the_head_is_no_part_of_it() {
    let stored = sample();
    let mut head = stored.encode_head().to_vec();
    head.extend_from_slice(&[0; 64]);
    assert_eq!(StoredResponse::decode(&head.into(), stored.content.as_stored()).unwrap(), stored);
}

#[test]
fn an_unknown_form_a_short_head_and_another_body_are_misses() {
    let stored = sample();
    let head = stored.encode_head();
    let mut other = head.to_vec();
    other[0] = 3;
    assert_eq!(StoredResponse::decode(&other.into(), stored.content.as_stored()), Err(DecodeError::Form));
    for end in 0..head.len() {
        assert!(StoredResponse::decode(&head.slice(..end), stored.content.as_stored()).is_err(), "cut at {end}");
    }
    let other = Bytes::from_static(b"the c0ntent");
    assert_eq!(StoredResponse::decode(&head, &other), Err(DecodeError::Checksum));
    assert_eq!(StoredResponse::decode(&head, &stored.content.as_stored().slice(1..)), Err(DecodeError::Checksum));
}

#[test]
fn a_number_of_lines_that_no_head_has_is_a_miss_also_with_a_good_checksum() {
    let stored = sample();
    let mut head = stored.encode_head().to_vec();
    head.resize(200_000, 0);
    head[codec::FIXED - 2..codec::FIXED].copy_from_slice(&u16::MAX.to_le_bytes());
    codec::seal(&mut head, stored.content.as_stored());
    let decoded = StoredResponse::decode(&head.into(), stored.content.as_stored());
    assert_eq!(decoded, Err(DecodeError::Malformed));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let stored = sample();
    let head = stored.encode_head();
    for bit in 0..8 * head.len() {
        let mut damaged = head.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(StoredResponse::decode(&damaged.into(), stored.content.as_stored()).is_err(), "bit {bit} of the head");
    }
    for bit in 0..8 * stored.content.as_stored().len() {
        let mut damaged = stored.content.as_stored().to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(StoredResponse::decode(&head, &damaged.into()).is_err(), "bit {bit} of the body");
    }
}

#[test]
fn an_entry_is_decoded_once_and_shows_tag_fields_on_request_only() {
    let stored = response(&[("surrogate-key", "a b"), ("cache-tag", "c"), ("etag", "\"v1\"")], b"x");
    let entry = Entry::builder(Ticket { tick: 1, born: 1 })
        .head(stored.encode_head())
        .body(stored.content.as_stored().clone())
        .build();
    let first = Prepared::of(&entry).unwrap();
    assert!(std::ptr::eq(first, Prepared::of(&entry).unwrap()));
    assert_eq!(first.stored, stored);
    assert_eq!(first.fields(true).len(), 3);
    assert_eq!(first.fields(false).keys().collect::<Vec<_>>(), [header::ETAG]);
}

#[test]
fn fields_are_taken_from_an_entry_that_nobody_else_has_and_from_no_other() {
    let stored = response(&[("cache-tag", "c"), ("etag", "\"v1\"")], b"x");
    let mut entry = Entry::builder(Ticket { tick: 1, born: 1 })
        .head(stored.encode_head())
        .body(stored.content.as_stored().clone())
        .build();
    assert_eq!(Prepared::take_fields(&mut entry, true), None, "it was not read yet");
    let expected = Prepared::of(&entry).unwrap().fields(false);
    let other = Arc::clone(&entry);
    assert_eq!(Prepared::take_fields(&mut entry, false), None);
    assert_eq!(Prepared::of(&other).unwrap().stored, stored, "the other one has them still");
    drop(other);
    assert_eq!(Prepared::take_fields(&mut entry, false), Some(expected));
    assert!(Prepared::of(&entry).unwrap().stored.headers.is_empty());
}

#[test]
fn the_head_of_an_entry_that_answers_again_is_made_twice_and_then_copied_in_its_form() {
    let prepared = Prepared::new(response(&[("etag", "\"v1\"")], b"x"), Bytes::from_static(b"x"));
    let fields = |form| prepared.head(form).map(|head| head.headers);
    let (mut made, ()) = http::Response::new(()).into_parts();
    made.headers = prepared.fields(true);
    for _ in 0..2 {
        assert_eq!(fields(1), None);
        prepared.keep_head(1, &made);
    }
    assert_eq!(fields(1), Some(prepared.fields(true)));
    assert_eq!(fields(2), None, "another cache shows other fields");
    prepared.keep_head(2, &http::Response::new(()).into_parts().0);
    assert_eq!(fields(1), Some(prepared.fields(true)));
}

#[test]
fn an_entry_that_is_no_response_is_a_miss_and_stays_one() {
    let entry = Entry::builder(Ticket { tick: 1, born: 1 }).head(Bytes::from_static(b"\x09junk")).build();
    assert_eq!(Prepared::of(&entry).unwrap_err(), DecodeError::Form);
    assert_eq!(Prepared::of(&entry).unwrap_err(), DecodeError::Form);
    let entry = Entry::builder(Ticket { tick: 1, born: 1 }).build();
    entry.decoded(|_| 5_u8);
    assert_eq!(Prepared::of(&entry).unwrap_err(), DecodeError::Foreign);
}

prop_compose! {
    fn any_response()(
        status in 200_u16..1000,
        version in prop::sample::select(vec![
            Version::HTTP_09, Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3,
        ]),
        lines in prop::collection::vec(("[a-z][a-z-]{0,20}|etag|vary|date", "[ -~\u{80}-\u{ff}]{0,40}"), 0..20),
        times in any::<[u64; 5]>(),
        bits in any::<u16>(),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) -> StoredResponse {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let latin1: Vec<u8> = value.chars().map(|c| u8::try_from(c).unwrap()).collect();
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(&latin1).unwrap());
        }
        let [at, age, lifetime, revalidate, error] = times;
        StoredResponse {
            status: StatusCode::from_u16(status).unwrap(),
            version,
            headers,
            meta: Meta {
                response_time: Timestamp::from_micros(at),
                initial_age: Duration::from_micros(age),
                lifetime: Duration::from_micros(lifetime),
                stale_while_revalidate: Duration::from_micros(revalidate),
                stale_if_error: Duration::from_micros(error),
                flags: Flags::from_bits(bits),
            },
            content: Content::plain(body.into()),
        }
    }
}

proptest! {
    #[test]
    fn any_response_comes_back(stored in any_response()) {
        prop_assert_eq!(StoredResponse::decode(&stored.encode_head(), stored.content.as_stored()).unwrap(), stored);
    }

    #[test]
    fn damage_anywhere_is_noticed(stored in any_response(), at in any::<prop::sample::Index>(), xor in 1_u8..) {
        let mut head = stored.encode_head().to_vec();
        let at = at.index(head.len());
        head[at] ^= xor;
        prop_assert!(StoredResponse::decode(&head.into(), stored.content.as_stored()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut head in prop::collection::vec(any::<u8>(), 0..200), body in any::<Vec<u8>>()) {
        let _ = StoredResponse::decode(&head.clone().into(), &body.clone().into());
        if let Some(form) = head.first_mut() {
            *form = 1;
        }
        let _ = StoredResponse::decode(&head.into(), &body.into());
    }
}

#[cfg(not(feature = "compression"))]
#[test]
fn packed_content_is_a_miss_to_those_who_cannot_unpack_it() {
    let mut stored = sample();
    stored.content = Content::packed(Bytes::from_static(b"\x10a"), 1).unwrap();
    let decoded = StoredResponse::decode(&stored.encode_head(), stored.content.as_stored());
    assert_eq!(decoded, Err(DecodeError::Form));
}

#[cfg(feature = "compression")]
mod packed {
    use super::*;

    fn entry(content: Content) -> std::sync::Arc<Entry> {
        let stored = StoredResponse { content, ..sample() };
        let body = stored.content.as_stored().clone();
        Entry::builder(Ticket { tick: 1, born: 1 }).head(stored.encode_head()).body(body).build()
    }

    fn words(count: usize) -> Bytes {
        (0..count).flat_map(|n| [b"some word ", &b"0123456789"[n % 10..], &b"abcdefg "[n % 7..]].concat()).collect()
    }

    #[test]
    fn packed_content_comes_back_and_is_smaller() {
        for count in [100, 10_000, 500_000] {
            let text = words(count);
            let packed = Content::pack(text.clone());
            assert!(packed.as_stored().len() < text.len() / 2);
            let entry = entry(packed);
            assert_eq!(lz4::length_of(&entry), Some(text.len()));
            let prepared = Prepared::of(&entry).unwrap();
            assert_eq!(prepared.body, text);
            assert_eq!(prepared.stored.headers, sample().headers);
        }
    }

    #[test]
    fn content_that_gains_nothing_is_stored_as_it_is() {
        let mut noise = vec![0; 10_000];
        getrandom::fill(&mut noise).unwrap();
        for content in [Bytes::new(), Bytes::from_static(b"short"), noise.into()] {
            let packed = Content::pack(content.clone());
            assert_eq!(packed, Content::plain(content));
        }
    }

    #[test]
    fn content_that_is_too_long_is_stored_as_it_is() {
        let content = Bytes::from(vec![0; content::MAX_LENGTH + 1]);
        assert_eq!(Content::pack(content.clone()), Content::plain(content.clone()));
        let content = content.slice(1..);
        let packed = Content::pack(content.clone());
        assert!(packed.as_stored().len() < content.len() / 200);
        assert_eq!(packed.unpack().unwrap(), content);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = entry(Content::pack(words(60)));
        let decode = |head: Vec<u8>, body: Vec<u8>| StoredResponse::decode(&head.into(), &body.into());
        for (at, damaged) in
            [0, 1].into_iter().flat_map(|at| (0..8 * [good.head(), good.body()][at].len()).map(move |bit| (at, bit)))
        {
            let mut parts = [good.head().to_vec(), good.body().to_vec()];
            parts[at][damaged / 8] ^= 1 << (damaged % 8);
            let [head, body] = parts;
            assert!(decode(head, body).is_err(), "bit {damaged} of part {at}");
        }
    }

    #[test]
    fn a_block_that_does_not_hold_what_is_said_is_a_miss() {
        let text = words(1000);
        let block = Content::pack(text.clone()).as_stored().clone();
        let unpack = |block: Bytes, length: usize| {
            Content::packed(block, length as u64).map(|content| Prepared::of(&entry(content)).map(|p| p.body.clone()))
        };
        assert_eq!(unpack(block.clone(), text.len()), Some(Ok(text.clone())));
        for (block, length) in [
            (block.clone(), text.len() - 1),
            (block.clone(), text.len() + 1),
            (block.slice(1..), text.len()),
            (block.slice(..block.len() - 1), text.len()),
            (Bytes::new(), text.len()),
            (Bytes::from_static(b"\xff\xff\xff\xff"), 4096),
        ] {
            assert_eq!(unpack(block, length), Some(Err(DecodeError::Content)), "{length}");
        }
    }

    #[test]
    fn a_bomb_is_refused_before_memory_is_taken_for_it() {
        // No head says more than what is ever packed.
        assert_eq!(Content::packed(Bytes::from(vec![0; 1000]), content::MAX_LENGTH as u64 + 1), None);
        assert_eq!(Content::packed(Bytes::from(vec![0; 1000]), u64::MAX), None);
        // And no block becomes more than 255 times as long.
        let block = Bytes::from(vec![0xff; 1000]);
        assert_eq!(lz4::unpack(&block, content::MAX_LENGTH), Err(DecodeError::Content));
        // What it says, with all checksums right.
        let mut head = entry(Content::packed(block.clone(), 1000).unwrap()).head().to_vec();
        head[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        codec::seal(&mut head, &block);
        assert_eq!(StoredResponse::decode(&head.into(), &block), Err(DecodeError::Content));
    }

    proptest! {
        #[test]
        fn any_content_comes_back(content in prop::collection::vec(prop::sample::select(b"ab".to_vec()), 0..5000)) {
            let content = Bytes::from(content);
            prop_assert_eq!(Content::pack(content.clone()).unpack().unwrap(), content);
        }

        #[test]
        fn any_block_unpacks_to_what_is_said_or_not_at_all(block in any::<Vec<u8>>(), length in 0_usize..70_000) {
            if let Ok(content) = lz4::unpack(&block, length) {
                prop_assert_eq!(content.len(), length);
            }
        }
    }
}

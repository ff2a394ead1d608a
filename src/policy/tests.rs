//! One row per requirement, with the section that makes it.

mod conditions;
mod fields;
mod judging;
mod rules;

use http::{HeaderMap, HeaderName};

use crate::Timestamp;

/// Sun, 06 Nov 1994 08:49:37 GMT
const NOW: Timestamp = Timestamp::from_micros(784_111_777_000_000);

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

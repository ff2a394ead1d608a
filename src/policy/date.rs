//! HTTP dates (RFC 9110 §5.6.7): read in the three formats, written as IMF-fixdate.
//!
//! Not the crate httpdate: it refuses a weekday that does not fit the date and names in other letter cases, both of
//! which origins send and both of which leave no doubt about the moment. What is ambiguous (other zones, missing
//! digits, other separators) is refused, and so counts as expired.

use http::HeaderValue;

use crate::{Timestamp, digits::number};

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
const LONG_DAYS: [&[u8]; 7] = [b"Thursday", b"Friday", b"Saturday", b"Sunday", b"Monday", b"Tuesday", b"Wednesday"];
const SECONDS_PER_DAY: i64 = 86_400;
/// The first second of the year 10000, which IMF-fixdate cannot write.
const YEAR_10000: u64 = 253_402_300_800;

/// Reads a date as seconds since the Unix epoch, which may lie before it.
///
/// `now` resolves the two-digit year of RFC 850 dates: one that appears to be more than 50 years ahead is the most
/// recent year in the past with these digits.
pub(crate) fn parse(value: &[u8], now: Timestamp) -> Option<i64> {
    imf_fixdate(value).or_else(|| asctime(value)).or_else(|| rfc850(value, now))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(v: &[u8]) -> Option<i64> {
    let ok = v.len() == 29
        && day_name(&v[..3])
        && &v[3..5] == b", "
        && v[7] == b' '
        && v[11] == b' '
        && v[16] == b' '
        && v[25..].eq_ignore_ascii_case(b" GMT");
    if !ok {
        return None;
    }
    seconds(digits(&v[12..16])?, month(&v[8..11])?, digits(&v[5..7])?, time(&v[17..25])?)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(v: &[u8]) -> Option<i64> {
    let ok = v.len() == 24 && day_name(&v[..3]) && v[3] == b' ' && v[7] == b' ' && v[10] == b' ' && v[19] == b' ';
    if !ok {
        return None;
    }
    let day = if v[8] == b' ' { digits(&v[9..10])? } else { digits(&v[8..10])? };
    seconds(digits(&v[20..])?, month(&v[4..7])?, day, time(&v[11..19])?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(v: &[u8], now: Timestamp) -> Option<i64> {
    let comma = v.iter().position(|&b| b == b',')?;
    let (day_name, v) = v.split_at(comma);
    let ok = LONG_DAYS.iter().any(|name| name.eq_ignore_ascii_case(day_name))
        && v.len() == 24
        && &v[..2] == b", "
        && v[4] == b'-'
        && v[8] == b'-'
        && v[11] == b' '
        && v[20..].eq_ignore_ascii_case(b" GMT");
    if !ok {
        return None;
    }
    let (day, month, time) = (digits(&v[2..4])?, month(&v[5..8])?, time(&v[12..20])?);
    let now = i64::try_from(now.as_micros() / 1_000_000).ok()?;
    let (this_year, ..) = civil(now.div_euclid(SECONDS_PER_DAY));
    let year = this_year - this_year.rem_euclid(100) + digits(&v[9..11])?;
    // The nearest century that is not more than 50 years ahead. By whole years: the digits say no more.
    let year = match year - this_year {
        51.. => year - 100,
        ..-49 => year + 100,
        _ => year,
    };
    seconds(year, month, day, time)
}

/// The names are read in any case, and not checked against the date.
fn day_name(name: &[u8]) -> bool {
    DAYS.chunks(3).any(|day| day.eq_ignore_ascii_case(name))
}

fn month(name: &[u8]) -> Option<i64> {
    let at = MONTHS.chunks(3).position(|month| month.eq_ignore_ascii_case(name))?;
    i64::try_from(at + 1).ok()
}

fn digits(digits: &[u8]) -> Option<i64> {
    i64::try_from(number(digits)?).ok()
}

/// `08:49:37`; a leap second counts as the last one of its minute.
fn time(v: &[u8]) -> Option<i64> {
    if v[2] != b':' || v[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (digits(&v[..2])?, digits(&v[3..5])?, digits(&v[6..])?);
    (hour < 24 && minute < 60 && second <= 60).then(|| hour * 3600 + minute * 60 + second.min(59))
}

fn seconds(year: i64, month: i64, day: i64, time: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (1..=last).contains(&day).then(|| days(year, month, day) * SECONDS_PER_DAY + time)
}

/// Days since the Unix epoch of a date in the Gregorian calendar (Hinnant, `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since the Unix epoch (Hinnant, `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * of_year + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (year_of_era + z.div_euclid(146_097) * 400 + i64::from(month <= 2), month, of_year - (153 * mp + 2) / 5 + 1)
}

/// Writes a time as IMF-fixdate, to the second below. Times from the year 10000 on are written as its eve.
pub(crate) fn format(time: Timestamp) -> HeaderValue {
    let seconds = (time.as_micros() / 1_000_000).min(YEAR_10000 - 1).cast_signed();
    let (number, rest) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (year, month, day) = civil(number);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(name(DAYS, number % 7));
    two(&mut out[5..7], day);
    out[8..11].copy_from_slice(name(MONTHS, month - 1));
    two(&mut out[12..14], year / 100);
    two(&mut out[14..16], year % 100);
    two(&mut out[17..19], rest / 3600);
    two(&mut out[20..22], rest / 60 % 60);
    two(&mut out[23..25], rest % 60);
    HeaderValue::from_bytes(&out).unwrap_or_else(|_| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

fn name(names: &[u8], at: i64) -> &[u8] {
    let at = 3 * usize::try_from(at).unwrap_or(0);
    &names[at..at + 3]
}

fn two(out: &mut [u8], number: i64) {
    let number = u8::try_from(number % 100).unwrap_or(0);
    out[0] = b'0' + number / 10;
    out[1] = b'0' + number % 10;
}

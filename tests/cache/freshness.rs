//! Lifetimes, ages and dates (RFC 9111 §4.2, §5.3; RFC 9110 §5.6.7).

use crate::{
    app::{Origin, get, respond},
    world::{World, app, borrowed, check, check_where_time_stands_still, row},
};

const URL: &str = "http://example.com/a";

#[tokio::test]
async fn the_lifetime_is_the_first_of_s_maxage_max_age_expires_and_a_guess() {
    check(&[
        row("9111 §4.2.1 max-age", &[("cache-control", "max-age=60")]).after(55),
        row("9111 §4.2 fresh means strictly more than the age", &[("cache-control", "max-age=60")]).after(60).expired(),
        row("9111 §5.2.2.10 s-maxage over max-age", &[("cache-control", "max-age=10, s-maxage=60")]).after(30),
        row("9111 §5.2.2.10 s-maxage over max-age", &[("cache-control", "max-age=60, s-maxage=10")])
            .after(30)
            .expired(),
        row("9111 §5.3 Expires", &[("date", "{now}"), ("expires", "{now+60}")]).after(50),
        row("9111 §5.3 Expires", &[("date", "{now}"), ("expires", "{now+60}")]).after(61).expired(),
        row("9111 §5.3 max-age over Expires", &[("cache-control", "max-age=60"), ("expires", "{now-60}")]).after(50),
        row("9111 §5.3 max-age over Expires", &[("cache-control", "max-age=10"), ("expires", "{now+60}")])
            .after(30)
            .expired(),
        row("9111 §5.3 an unusable Expires is the past", &[("expires", "0"), ("last-modified", "{now-100000}")])
            .validated(),
        row(
            "9111 §5.3 an unusable Expires does not spoil max-age",
            &[("cache-control", "max-age=60"), ("expires", "0")],
        )
        .after(50),
        row("9111 §4.2.1 Expires before Date is stale", &[("date", "{now+90}"), ("expires", "{now+60}")])
            .not("expired"),
        row("9111 §4.2.1 Expires without Date", &[("expires", "{now+60}")]).after(50),
        row("9110 §6.6.1 an unusable Date is the receipt", &[("date", "nonsense"), ("expires", "{now+60}")]).after(50),
        row("9111 §4.2.2 a tenth of the time since Last-Modified", &[("last-modified", "{now-1000}")]).after(90),
        row("9111 §4.2.2 and no more", &[("last-modified", "{now-1000}")]).after(110).validated(),
        row("9111 §4.2.2 at most a day", &[("last-modified", "{now-100000000}")]).after(86_390),
        row("9111 §4.2.2 and no more than a day", &[("last-modified", "{now-100000000}")]).after(86_410).validated(),
        row("9111 §4.2.2 a guess from the future", &[("last-modified", "{now+1000}")]).validated(),
    ])
    .await;
}

#[tokio::test]
async fn it_lasts_to_the_second() {
    let max_age = row("9111 §4.2.1 max-age", &[("cache-control", "max-age=60")]);
    let age = row("9111 §4.2.3 Age counts", &[("cache-control", "max-age=60"), ("age", "30")]);
    check_where_time_stands_still(&[
        max_age.clone().after(59),
        max_age.after(60).expired(),
        age.clone().after(29),
        age.after(30).expired(),
    ])
    .await;
}

#[tokio::test]
async fn ages_add_up() {
    check(&[
        row("9111 §4.2.3 Age counts", &[("cache-control", "max-age=60"), ("age", "30")]).after(25),
        row("9111 §4.2.3 Age counts", &[("cache-control", "max-age=60"), ("age", "30")]).after(30).expired(),
        row("9111 §4.2.3 Age counts against Expires", &[("date", "{now}"), ("expires", "{now+60}"), ("age", "50")])
            .after(20)
            .expired(),
        row("9111 §4.2.3 an old Date is an age", &[("cache-control", "max-age=60"), ("date", "{now-30}")])
            .after(40)
            .expired(),
        row("9111 §4.2.3 the larger of both", &[("cache-control", "max-age=60"), ("date", "{now-30}"), ("age", "5")])
            .after(40)
            .expired(),
        row("9111 §5.1 the first member of a list", &[("cache-control", "max-age=60"), ("age", "10, 999")]).after(20),
        row("9111 §5.1 the first line", &[("cache-control", "max-age=60"), ("age", "10"), ("age", "999")]).after(20),
        row("9111 §5.1 a negative one is ignored", &[("cache-control", "max-age=60"), ("age", "-99")]).after(50),
        row("9111 §5.1 a fraction is ignored", &[("cache-control", "max-age=60"), ("age", "99.9")]).after(50),
        row("9111 §5.1 letters are ignored", &[("cache-control", "max-age=60"), ("age", "99a")]).after(50),
        row("9111 §1.2.2 a huge one saturates", &[("cache-control", "max-age=60"), ("age", "99999999999999999999")])
            .not("expired"),
        row(
            "9110 §6.6.1 a Date in the future is no negative age",
            &[("cache-control", "max-age=60"), ("date", "{now+500}")],
        )
        .after(61)
        .expired(),
    ])
    .await;
}

#[tokio::test]
async fn cache_control_is_read_as_it_is_written_out_there() {
    check(&[
        row("9111 §5.2 any case", &[("cache-control", "MaX-aGe=60")]).after(50),
        row("9111 §5.2 all lines", &[("cache-control", "a"), ("cache-control", "max-age=60")]).after(50),
        row("9111 §5.2 empty members", &[("cache-control", ",, ,max-age=60,")]).after(50),
        row("9111 §5.2 without spaces", &[("cache-control", "public,max-age=60")]).after(50),
        row("9111 §1.2.2 leading zeros", &[("cache-control", "max-age=0000060")]).after(50),
        row("9111 §1.2.2 leading zeros", &[("cache-control", "max-age=0000060")]).after(61).expired(),
        row("9111 §1.2.2 huge", &[("cache-control", "max-age=99999999999999999999")]).after(100_000),
        row("9111 §5.2 quoted", &[("cache-control", "max-age=\"60\"")]).after(50),
        row("9111 §4.2.1 negative is stale", &[("cache-control", "max-age=-60")]).not("expired"),
        row("9111 §4.2.1 a fraction is stale", &[("cache-control", "max-age=60.5")]).not("expired"),
        row("9111 §4.2.1 single quotes are stale", &[("cache-control", "max-age='60'")]).not("expired"),
        row("9111 §4.2.1 letters are stale", &[("cache-control", "max-age=a60")]).not("expired"),
        row("9111 §4.2.1 the smallest of several", &[("cache-control", "max-age=60, max-age=10")]).after(30).expired(),
        row("9111 §4.2.1 the smallest of several", &[("cache-control", "max-age=10, max-age=60")]).after(30).expired(),
        row("9111 §5.2 a directive in a quoted string", &[("cache-control", "x=\"a, max-age=5\", max-age=60")])
            .after(50),
        row("9111 §5.2 part of another name", &[("cache-control", "xmax-age=60")]).not("no-freshness"),
    ])
    .await;
}

#[tokio::test]
async fn only_dates_of_the_three_formats_count() {
    let good = [
        ("9110 §5.6.7 IMF-fixdate", "Thu, 18 Aug 2050 02:01:18 GMT"),
        ("9110 §5.6.7 RFC 850", "Thursday, 18-Aug-50 02:01:18 GMT"),
        ("9110 §5.6.7 asctime", "Thu Aug 18 02:01:18 2050"),
        ("9110 §5.6.7 asctime with one digit", "Thu Aug  8 02:01:18 2050"),
        ("names in any case", "thU, 18 AuG 2050 02:01:18 GMT"),
        ("the weekday is not checked", "Fri, 18 Aug 2050 02:01:18 GMT"),
        ("beyond 2^32 s", "Sat, 01 Jan 2107 00:00:00 GMT"),
        ("far away", "Fri, 31 Dec 9999 23:59:59 GMT"),
    ];
    let bad = [
        ("another zone", "Thu, 18 Aug 2050 02:01:18 PST"),
        ("an offset", "Thu, 18 Aug 2050 02:01:18 +0000"),
        ("no comma", "Thu 18 Aug 2050 02:01:18 GMT"),
        ("dashes", "Thu, 18-Aug-2050 02:01:18 GMT"),
        ("dots", "Thu, 18 Aug 2050 02.01.18 GMT"),
        ("doubled spaces", "Thu, 18  Aug  2050 02:01:18 GMT"),
        ("a one-digit hour", "Thu, 18 Aug 2050 2:01:18 GMT"),
        ("two digits of a year", "Thu, 18 Aug 50 02:01:18 GMT"),
        ("a number", "2000000000"),
        ("empty", ""),
        ("ISO 8601", "2050-08-18T02:01:18Z"),
        ("an hour that is none", "Thu, 18 Aug 2050 25:01:18 GMT"),
        ("the past", "Thu, 18 Aug 2005 02:01:18 GMT"),
    ];
    let fields = |date: &'static str| &*Box::leak(Box::new([("expires", date)]));
    let rows: Vec<_> = good
        .into_iter()
        .map(|(why, date)| row(why, fields(date)).after(50))
        .chain(bad.into_iter().map(|(why, date)| row(why, fields(date)).not("expired")))
        .chain([row(
            "9111 §5.3 several lines",
            &[("expires", "Thu, 18 Aug 2050 02:01:18 GMT"), ("expires", "Thu, 18 Aug 2050 02:01:18 GMT")],
        )
        .not("expired")])
        .collect();
    check(&rows).await;
}

#[tokio::test]
async fn the_age_is_made_anew_on_each_hit_and_the_date_never_rewritten() {
    for world in World::all().await {
        let fields = world.fields(&[("cache-control", "max-age=600"), ("age", "10"), ("date", "{now-20}")]);
        let date = world.date(-20);
        let origin = Origin::new(move |_, _| respond(200, &borrowed(&fields), "content"));
        let app = app(&world.cache(), &origin);
        let first = get(&app, URL).await;
        assert_eq!((first.field("age"), first.field("date")), ("10", &*date), "a miss goes on as it came");
        world.wait(100);
        let hit = get(&app, URL).await;
        assert_eq!((hit.x_cache(), hit.field("date")), ("HIT", &*date));
        assert_eq!(hit.headers.get_all("age").iter().count(), 1);
        let age: u64 = hit.field("age").parse().unwrap();
        assert!((120..=122).contains(&age), "{}: the apparent age is larger than the received one: {age}", world.name);
        world.wait(100);
        let later: u64 = get(&app, URL).await.field("age").parse().unwrap();
        assert!((220..=223).contains(&later), "{later}");
    }
}

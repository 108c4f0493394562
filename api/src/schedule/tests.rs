use jiff::{Timestamp, tz::TimeZone};
use proptest::prelude::*;

use super::{Schedule, zone};

/// The next times after `after`, by the clocks of `zone`.
fn times(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let zone = zone::find(zone).unwrap();
    let schedule = Schedule::parse(schedule).unwrap();
    let mut at: Timestamp = after.parse().unwrap();
    let mut times = vec![];
    while times.len() < count {
        let Some(next) = schedule.next(at, &zone) else { break };
        at = next;
        times.push(next.to_zoned(zone.clone()).strftime("%a %Y-%m-%dT%H:%M:%S%:z").to_string());
    }
    times
}

fn first(schedule: &str, after: &str) -> String {
    times(schedule, "UTC", after, 1).pop().unwrap_or_default()
}

#[test]
fn fields_choose_minutes() {
    let after = "2026-07-09T14:45:30Z";
    for (schedule, expected) in [
        ("* * * * *", "Thu 2026-07-09T14:46:00+00:00"),
        ("0/15 * * * *", "Thu 2026-07-09T15:00:00+00:00"),
        ("20-35/15 * * * *", "Thu 2026-07-09T15:20:00+00:00"),
        ("45 14 * * *", "Fri 2026-07-10T14:45:00+00:00"),
        ("0 0 * feb *", "Mon 2027-02-01T00:00:00+00:00"),
        ("0 0 * Feb Mon", "Mon 2027-02-01T00:00:00+00:00"),
        ("0 0 29 2 *", "Tue 2028-02-29T00:00:00+00:00"),
        ("59 23 31 dec ?", "Thu 2026-12-31T23:59:00+00:00"),
        ("0 22 * * 1-5", "Thu 2026-07-09T22:00:00+00:00"),
        ("5 4 * * sun", "Sun 2026-07-12T04:05:00+00:00"),
        ("@hourly", "Thu 2026-07-09T15:00:00+00:00"),
        ("@daily", "Fri 2026-07-10T00:00:00+00:00"),
        ("@midnight", "Fri 2026-07-10T00:00:00+00:00"),
        ("@weekly", "Sun 2026-07-12T00:00:00+00:00"),
        ("@monthly", "Sat 2026-08-01T00:00:00+00:00"),
        ("@yearly", "Fri 2027-01-01T00:00:00+00:00"),
        ("@annually", "Fri 2027-01-01T00:00:00+00:00"),
        ("@every 1h30m", "Thu 2026-07-09T16:15:30+00:00"),
        ("@every 10ms", "Thu 2026-07-09T14:45:31+00:00"),
        // Never.
        ("0 0 30 2 *", ""),
        (", * * * *", ""),
    ] {
        assert_eq!(first(schedule, after), expected, "{schedule}");
    }
}

/// Of the two fields for days, one is enough, unless one is a star: `*/2` is none.
#[test]
fn days_of_the_month_and_of_the_week() {
    let after = "2026-07-09T00:00:00Z";
    let days = |schedule: &str| -> Vec<String> {
        times(schedule, "UTC", after, 4).iter().map(|time| format!("{} {}", &time[..3], &time[9..14])).collect()
    };
    assert_eq!(days("0 0 13 * fri"), ["Fri 07-10", "Mon 07-13", "Fri 07-17", "Fri 07-24"]);
    assert_eq!(days("0 0 13 * *"), ["Mon 07-13", "Thu 08-13", "Sun 09-13", "Tue 10-13"]);
    assert_eq!(days("0 0 ? * fri"), ["Fri 07-10", "Fri 07-17", "Fri 07-24", "Fri 07-31"]);
    assert_eq!(days("0 0 */2 * fri"), ["Fri 07-10", "Sat 07-11", "Mon 07-13", "Wed 07-15"]);
    assert_eq!(days("0 0 */1 * fri"), ["Fri 07-10", "Fri 07-17", "Fri 07-24", "Fri 07-31"]);
}

#[test]
fn clocks_that_are_changed() {
    // 02:30 does not exist on the day of the change, and that day is left out.
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
        ["Sat 2026-03-28T02:30:00+01:00", "Mon 2026-03-30T02:30:00+02:00", "Tue 2026-03-31T02:30:00+02:00"]
    );
    // It exists twice in autumn, and fires twice.
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3),
        ["Sun 2026-10-25T02:30:00+02:00", "Sun 2026-10-25T02:30:00+01:00", "Mon 2026-10-26T02:30:00+01:00"]
    );
    assert_eq!(
        times("0 * * * *", "America/New_York", "2026-03-08T05:30:00Z", 3),
        ["Sun 2026-03-08T01:00:00-05:00", "Sun 2026-03-08T03:00:00-04:00", "Sun 2026-03-08T04:00:00-04:00"]
    );
    // No midnight on that day in Santiago.
    assert_eq!(
        times("0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", 2),
        ["Mon 2026-09-07T00:00:00-03:00", "Tue 2026-09-08T00:00:00-03:00"]
    );
    assert_eq!(times("0 12 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", 1), ["Thu 2026-01-01T12:00:00+05:45"]);
}

#[test]
fn a_zone_in_front_of_the_schedule() {
    assert_eq!(first("TZ=Asia/Tokyo 0 9 * * *", "2026-01-01T00:00:00Z"), "Fri 2026-01-02T00:00:00+00:00");
    assert_eq!(first("CRON_TZ=UTC @daily", "2026-01-01T00:00:00Z"), "Fri 2026-01-02T00:00:00+00:00");
}

#[test]
fn what_is_no_schedule() {
    for (text, expected) in [
        ("", "empty spec string"),
        ("error", "expected exactly 5 fields, found 1: [error]"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("9-5 * * * *", "beginning of range (9) beyond end of range (5): 9-5"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("*/-2 * * * *", "negative number (-2) not allowed: -2"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        ("-5 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
        ("@never", "unrecognized descriptor: @never"),
        ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
        ("@every 5d", "failed to parse duration @every 5d: time: unknown unit \"d\" in duration \"5d\""),
        ("TZ=0", "invalid schedule format: runtime error: slice bounds out of range [:-1]"),
        ("TZ=Nowhere * * * * *", "provided bad location Nowhere: unknown time zone Nowhere"),
    ] {
        assert_eq!(Schedule::parse(text).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn zones_by_name() {
    for name in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1"] {
        assert!(zone::find(name).is_ok(), "{name}");
    }
    for name in ["Nowhere", "europe/berlin", "Europe/../UTC", "/Europe", "Local", "Etc/Unknown", "-x", "Europe//Berlin"] {
        assert_eq!(zone::find(name).unwrap_err().to_string(), format!("unknown time zone {name}"));
    }
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "[-*?/,0-9a-z@ =+.]{0,30}|@every [0-9.hmsunµ]{0,20}|TZ=[A-Za-z/]{0,12}( \\*){0,6}") {
        if let Ok(schedule) = Schedule::parse(&text) {
            schedule.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC);
            schedule.next(Timestamp::MAX, &TimeZone::UTC);
        }
    }

    /// What comes next is later, and nothing that fires lies between.
    #[test]
    fn nothing_is_passed_over(
        minute in 0i8..60, hour in 0i8..24, weekday in 0i8..7, start in 1_750_000_000i64..1_850_000_000,
    ) {
        let zone = zone::find("Europe/Berlin").unwrap();
        let schedule = Schedule::parse(&format!("{minute} {hour} * * {weekday}")).unwrap();
        let start = Timestamp::from_second(start).unwrap();
        let next = schedule.next(start, &zone).unwrap();
        let fires = |at: Timestamp| {
            let local = zone.to_datetime(at);
            let day = local.date().weekday().to_sunday_zero_offset();
            (local.minute(), local.hour(), day, local.second()) == (minute, hour, weekday, 0)
        };
        prop_assert!(next > start && fires(next));
        let mut at = start.as_second() + 1;
        at += (60 - at.rem_euclid(60)) % 60;
        while at < next.as_second() {
            prop_assert!(!fires(Timestamp::from_second(at).unwrap()));
            at += 60;
        }
    }
}

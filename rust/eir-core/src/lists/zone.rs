//! The country's calendar: which second ends the last day of a date that list files name.
//!
//! Its one job: read dates and turn them into seconds, by transitions that the caller gives. `rows` and `devices` call
//! it. It never looks for a zone's rules itself.

use crate::UnixTime;
use crate::in_use::Day;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A zone's offsets from UTC over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    /// (first second, offset from UTC in seconds), rising; the first counts before it too. None: UTC.
    transitions: Vec<(i64, i32)>,
}

impl Zone {
    /// A zone of (first second, seconds that local time is ahead of UTC); the first entry counts before it too, and none
    /// at all is UTC. `None` unless the seconds rise and every offset is less than a day.
    #[must_use]
    pub fn new(transitions: Vec<(i64, i32)>) -> Option<Self> {
        let rising = transitions.is_sorted_by(|(before, _), (after, _)| before < after);
        let sound = transitions.iter().all(|&(_, offset)| i64::from(offset).abs() < DAY);
        (rising && sound).then_some(Self { transitions })
    }

    /// The second at which the local day after `day` begins, as near as seconds since 1970 come to it.
    #[must_use]
    pub fn end_of(&self, day: Day) -> UnixTime {
        let local = (i64::from(day) + 1) * DAY;
        let first = self.transitions.first().map_or(0, |&(_, offset)| offset);
        let offsets = [(i64::MIN, first)].into_iter().chain(self.transitions.iter().copied());
        let ends = self.transitions.iter().map(|&(from, _)| from).chain([i64::MAX]);
        for ((from, offset), end) in offsets.zip(ends) {
            // Where clocks jump over midnight the day begins as they jump.
            let begins = (local - i64::from(offset)).max(from);
            if begins < end {
                return begins.clamp(1, i64::from(UnixTime::MAX) - 1) as UnixTime;
            }
        }
        UnixTime::MAX - 1
    }
}

impl Zone {
    /// The local day whose end a second is that [`end_of`](Self::end_of) gave; of another second the day of that before.
    #[must_use]
    pub fn last_day(&self, end: UnixTime) -> LocalDay {
        let second = i64::from(end) - 1;
        let after = self.transitions.partition_point(|&(from, _)| from <= second);
        let offset = self.transitions.get(after.saturating_sub(1)).map_or(0, |&(_, offset)| offset);
        let day = (second + i64::from(offset)).div_euclid(DAY);
        LocalDay(Day::try_from(day).unwrap_or_default().min(LAST))
    }
}

/// A day of the calendar, from 1970 to 2106.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalDay(Day);

impl LocalDay {
    /// The day's number since 1970.
    #[must_use]
    pub fn number(self) -> Day {
        self.0
    }

    /// The date, `YYYYMMDD`, as [`parse_day`] reads it.
    #[must_use]
    pub fn date(self) -> String {
        // From 1 March 1600 on, so that a leap day is the last of its year, and with it of four and of 400 years.
        let days = self.0 + 135_080;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        format!("{:04}{month:02}{day:02}", 1600 + 400 * era + year)
    }
}

/// The last day whose end is a second since 1970 in every zone: 5 February 2106.
const LAST: Day = 49_708;

/// The day of a date, `YYYYMMDD` or `YYYY-MM-DD`, from 1970 to 2106.
#[must_use]
pub fn parse_day(text: &[u8]) -> Option<Day> {
    let digits: [u8; 8] = match text {
        &[a, b, c, d, b'-', e, f, b'-', g, h] => [a, b, c, d, e, f, g, h],
        _ => text.try_into().ok()?,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = digits.map(|digit| u32::from(digit - b'0'));
    let (year, month, day) = (a * 1000 + b * 100 + c * 10 + d, e * 10 + f, g * 10 + h);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_of = |month| match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1970 || !(1..=12).contains(&month) || !(1..=days_of(month)).contains(&day) {
        return None;
    }
    let leap_days_before = |year: u32| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = (year - 1970) * 365 + leap_days_before(year) - leap_days_before(1970);
    Some(years + (1..month).map(days_of).sum::<u32>() + day - 1).filter(|&day| day <= LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_since_1970() {
        for (text, day) in [
            ("19700101", 0),
            ("1970-03-01", 59),
            ("19720229", 789),
            ("20000301", 11_017),
            ("2026-05-01", 20_574),
            ("21060205", LAST),
        ] {
            assert_eq!(parse_day(text.as_bytes()), Some(day), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "2026",
            "20260230",
            "20250229",
            "21000229",
            "20260001",
            "20261301",
            "20260100",
            "20260132",
            "20260431",
            "19691231",
            "21060206",
            "99991231",
            "2026-0501",
            "202605-01",
            "2026/05/01",
            "2026-05-1x",
            "+2026501",
            "２０２６",
        ] {
            assert_eq!(parse_day(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_day_ends_where_the_next_begins_also_where_clocks_change() {
        const MIDNIGHT: i64 = 20_001 * DAY;
        let end = |transitions: &[(i64, i32)]| Zone::new(transitions.to_vec()).unwrap().end_of(20_000);
        let midnight = MIDNIGHT as UnixTime;
        assert_eq!(end(&[]), midnight);
        assert_eq!(end(&[(0, 5 * 3600)]), midnight - 5 * 3600);
        assert_eq!(end(&[(0, -3600)]), midnight + 3600);
        // An hour is left out at midnight, and some minutes before.
        assert_eq!(end(&[(0, 0), (MIDNIGHT, 3600)]), midnight);
        assert_eq!(end(&[(0, 0), (MIDNIGHT - 600, 3600)]), midnight - 600);
        // An hour comes twice: up to midnight, and over it.
        assert_eq!(end(&[(0, 3600), (MIDNIGHT - 3600, 0)]), midnight);
        assert_eq!(end(&[(0, 3600), (MIDNIGHT - 1800, 0)]), midnight - 3600);
        // A change elsewhere.
        assert_eq!(end(&[(0, 3600), (MIDNIGHT + 7200, 0)]), midnight - 3600);
        assert_eq!(end(&[(0, 0), (MIDNIGHT - 7200, 3600)]), midnight - 3600);
    }

    #[test]
    fn every_day_is_read_again_as_it_is_written() {
        for day in 0..=LAST {
            assert_eq!(parse_day(LocalDay(day).date().as_bytes()), Some(day));
        }
        let jump = 20_001 * DAY;
        for transitions in [
            vec![],
            vec![(0, 5 * 3600)],
            vec![(0, -3600)],
            vec![(0, 86_399)],
            vec![(0, 0), (jump, 3600)],
            vec![(0, 0), (jump - 600, 3600)],
            vec![(0, 3600), (jump - 3600, 0)],
            vec![(0, 3600), (jump - 1800, 0)],
            vec![(0, -36_000), (jump + 36_000, 50_400)],
        ] {
            let zone = Zone::new(transitions).unwrap();
            for day in (1..LAST).step_by(97).chain(19_990..20_010) {
                let end = zone.end_of(day);
                let found = zone.last_day(end).number();
                // Of a day that clocks pass over, the one before ends with it.
                assert!(found <= day && zone.end_of(found) == end, "{day}");
            }
        }
    }

    #[test]
    fn every_day_has_an_end_and_what_is_no_zone_is_none() {
        let ahead = Zone::new(vec![(0, 86_399)]).unwrap();
        assert_eq!(ahead.end_of(0), 1);
        let behind = Zone::new(vec![(0, -86_399)]).unwrap();
        assert_eq!(behind.end_of(LAST), 4_294_943_999);
        assert_eq!(Zone::default().end_of(Day::MAX), UnixTime::MAX - 1);
        assert_eq!(Zone::new(vec![(5, 0), (5, 1)]), None);
        assert_eq!(Zone::new(vec![(5, 86_400)]), None);
    }
}

//! Message ids and the clock they are made from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::{ContextV7, Timestamp, Uuid};

/// Makes the message ids of one core: UUIDv7 (RFC 9562), rising within a millisecond and when the clock steps back.
pub struct IdMaker {
    context: ContextV7,
}

impl IdMaker {
    /// A maker with a random start.
    #[must_use]
    pub fn new() -> Self {
        Self { context: ContextV7::new() }
    }

    /// An id made at `now`.
    pub fn make(&self, now: Duration) -> Uuid {
        Uuid::new_v7(Timestamp::from_unix(&self.context, now.as_secs(), now.subsec_nanos()))
    }
}

impl Default for IdMaker {
    fn default() -> Self {
        Self::new()
    }
}

/// Time since 1970; zero for a clock that stands before it.
#[must_use]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Microseconds since 1970 as RFC 3339 in UTC, all six digits shown.
#[must_use]
pub fn rfc3339(unix_us: i64) -> String {
    let seconds = unix_us.div_euclid(1_000_000);
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Counted in years that start in March, a leap day is a year's last; 719,468 days before 1970 such a year began, the
    // first of 400, which have 146,097 days.
    let day = days + 719_468;
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on: 153 days in every five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let microsecond = unix_us.rem_euclid(1_000_000);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{microsecond:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_50_ids_rise_and_never_repeat_also_when_the_clock_steps_back() {
        let maker = IdMaker::new();
        let ids: Vec<_> = [1_000_000, 1_000_000, 996_400, 1_000_000, 1_086_400]
            .into_iter()
            .flat_map(|seconds| std::iter::repeat_with(move || Duration::from_secs(seconds)).take(10_000))
            .map(|now| maker.make(now))
            .collect();
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ids.len());
    }
}

//! Message ids, the clock that they are made from, and random ids.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::{ContextV7, Timestamp, Uuid};

/// Makes the message ids of one core: UUIDv7 (RFC 9562). They rise, also within a millisecond and when the clock steps back.
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

/// A random id (UUIDv4), drawn from the kernel each time: two machines that were copied while they ran draw different ones.
///
/// # Panics
/// When the kernel gives no random bytes, which it always does once it has started.
#[must_use]
pub fn random() -> Uuid {
    let mut bytes = [0; 16];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(drawn, Ok(bytes.len()), "the kernel gives random bytes");
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Time since 1970; zero if the clock stands before 1970.
#[must_use]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// Microseconds since 1970 as RFC 3339 in UTC, with six digits of the second. A time outside of the years -9999 to 9999, which
/// only a damaged record has, is the number itself.
#[must_use]
pub fn rfc3339(unix_us: i64) -> String {
    jiff::Timestamp::from_microsecond(unix_us).map_or_else(|_| unix_us.to_string(), |time| format!("{time:.6}"))
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

    #[test]
    fn instants_are_shown_as_the_calendar_has_them() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (951_868_799_999_999, "2000-02-29T23:59:59.999999Z"),
            (951_868_800_000_000, "2000-03-01T00:00:00.000000Z"),
            (1_735_689_599_123_456, "2024-12-31T23:59:59.123456Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
            (-2_203_891_200_000_000, "1900-03-01T00:00:00.000000Z"),
            (i64::MAX, "9223372036854775807"),
        ];
        for (unix_us, expected) in cases {
            assert_eq!(rfc3339(unix_us), expected, "{unix_us}");
        }
    }
}

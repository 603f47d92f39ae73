//! Counts and latencies, of each thread during the run and of all threads at its end.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Significant decimal digits of the histogram: an error of 0.1 %, far below the differences between runs.
const LATENCY_DIGITS: u8 = 3;
/// Longest latency in nanoseconds: an hour. Longer ones count as this.
const MAX_LATENCY_NS: u64 = 3_600_000_000_000;

/// Counts and latencies.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Requests answered with a 2xx.
    pub(crate) answered_requests: u64,
    /// Messages in these requests.
    pub(crate) answered_messages: u64,
    /// Bytes of the bodies of these requests.
    pub(crate) answered_body_bytes: u64,
    /// Responses by status, all of them.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Requests sent again after their connection was lost.
    pub(crate) retried_requests: u64,
    /// Requests given up after their connection was lost.
    pub(crate) abandoned_requests: u64,
    /// Requests without a response at the end of the run.
    pub(crate) unanswered_requests: u64,
    /// Connects after the first of each connection.
    pub(crate) reconnects: u64,
    /// Attempts to connect that failed.
    pub(crate) failed_connects: u64,
    /// When the last connection ended, in nanoseconds since the start of the run.
    pub(crate) ended_ns: u64,
    latencies_ns: Histogram<u64>,
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

impl Stats {
    pub(crate) fn new() -> Self {
        #[expect(clippy::expect_used, reason = "the bounds are constants that the histogram accepts")]
        let latencies_ns = Histogram::new_with_bounds(1, MAX_LATENCY_NS, LATENCY_DIGITS).expect("constant bounds");
        Self {
            answered_requests: 0,
            answered_messages: 0,
            answered_body_bytes: 0,
            statuses: BTreeMap::new(),
            retried_requests: 0,
            abandoned_requests: 0,
            unanswered_requests: 0,
            reconnects: 0,
            failed_connects: 0,
            ended_ns: 0,
            latencies_ns,
        }
    }

    /// Counts `requests` responses with a 2xx and the same latency.
    pub(crate) fn count_answered(
        &mut self,
        requests: u32,
        messages_per_request: u32,
        body_bytes: usize,
        latency_ns: u64,
    ) {
        self.answered_requests += u64::from(requests);
        self.answered_messages += u64::from(requests) * u64::from(messages_per_request);
        self.answered_body_bytes += u64::from(requests) * body_bytes as u64;
        self.latencies_ns.saturating_record_n(latency_ns, u64::from(requests));
    }

    /// Adds the counts of another thread.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.answered_requests += other.answered_requests;
        self.answered_messages += other.answered_messages;
        self.answered_body_bytes += other.answered_body_bytes;
        for (&status, count) in &other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.retried_requests += other.retried_requests;
        self.abandoned_requests += other.abandoned_requests;
        self.unanswered_requests += other.unanswered_requests;
        self.reconnects += other.reconnects;
        self.failed_connects += other.failed_connects;
        self.ended_ns = self.ended_ns.max(other.ended_ns);
        // Both histograms have the same bounds, so no value is changed.
        for value in other.latencies_ns.iter_recorded() {
            self.latencies_ns.saturating_record_n(value.value_iterated_to(), value.count_at_value());
        }
    }

    /// The latency at a quantile (0 to 1), in microseconds; 0 if there are no latencies.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.latencies_ns.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// The longest latency in microseconds; 0 if there are no latencies.
    pub(crate) fn max_latency_us(&self) -> f64 {
        self.latencies_ns.max() as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_counts_and_latencies() {
        let (mut a, mut b) = (Stats::new(), Stats::new());
        a.count_answered(99, 2, 10, 1_000_000);
        b.count_answered(1, 2, 10, 50_000_000);
        b.statuses.insert(201, 1);
        b.ended_ns = 7;
        a.merge(&b);
        assert_eq!((a.answered_requests, a.answered_messages, a.answered_body_bytes), (100, 200, 1000));
        assert_eq!((a.statuses[&201], a.ended_ns), (1, 7));
        assert!((a.latency_us(0.5) / 1000.0 - 1.0).abs() < 0.01);
        assert!((a.latency_us(0.999) / 1000.0 - 50.0).abs() < 0.5);
        assert!((a.max_latency_us() / 1000.0 - 50.0).abs() < 0.5);
    }

    #[test]
    fn latencies_beyond_the_last_bucket_count_as_the_longest() {
        let mut stats = Stats::new();
        stats.count_answered(1, 1, 1, u64::MAX);
        stats.count_answered(1, 1, 1, 0);
        assert!(stats.max_latency_us() >= MAX_LATENCY_NS as f64 / 1000.0 * 0.99);
    }
}

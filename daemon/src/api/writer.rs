//! Writes replies: what all of them have in common, and how full the log is.

use super::scratch::Scratch;
use crate::{
    http::{
        Refusal, ResponseOptions,
        date::DateLine,
        response::{GUARDS, Response},
    },
    ids::unix_now,
    ingest::LaneWriter,
    state::database_health::{DatabaseHealth, HealthMonitor},
};
use std::{borrow::Cow, rc::Rc, sync::Arc, time::Duration};

/// What stands before the body of a reply, beside what all replies have.
pub(super) struct ReplyHead {
    /// 200 to 599.
    pub status: u16,
    /// Empty where there is no body.
    pub content_type: &'static str,
    /// Further header lines, each with its CR LF.
    pub lines: Cow<'static, [u8]>,
}

impl ReplyHead {
    /// 200 for a body of this type, which browsers and caches leave alone.
    #[must_use]
    pub(super) fn ok(content_type: &'static str) -> Self {
        Self { status: 200, content_type, lines: Cow::Borrowed(GUARDS) }
    }
}

/// Writes the replies of one core.
pub(super) struct ReplyWriter {
    lane: Rc<LaneWriter>,
    health: Arc<HealthMonitor>,
    date: DateLine,
    /// The header line of a push that is durable in the log.
    durability: &'static [u8],
    /// For bodies.
    pub(super) bodies: Scratch,
}

impl ReplyWriter {
    pub(super) fn new(lane: Rc<LaneWriter>, health: Arc<HealthMonitor>, is_durable: bool) -> Self {
        let durability: &[u8] =
            if is_durable { b"Forebay-Durability: disk\r\n" } else { b"Forebay-Durability: memory\r\n" };
        Self { lane, health, date: DateLine::new(unix_now()), durability, bodies: Scratch::default() }
    }

    pub(super) fn set_date(&self, now: Duration) {
        self.date.set(now);
    }

    /// Whether PostgreSQL has answered at last.
    pub(super) fn database_is_healthy(&self) -> bool {
        self.health.get() == DatabaseHealth::Connected
    }

    /// The header line that says where a push is durable.
    pub(super) fn durability_line(&self, is_committed: bool) -> &'static [u8] {
        if is_committed { b"Forebay-Durability: postgres\r\n" } else { self.durability }
    }

    /// Appends a reply with these header lines and the common ones.
    pub(super) fn reply(
        &self,
        status: u16,
        content_type: &'static str,
        lines: &[u8],
        body: &[u8],
        options: ResponseOptions,
        out: &mut Vec<u8>,
    ) {
        let response = Response::start(out, status, content_type, body);
        self.finish_head(response, status, lines, options);
    }

    /// Appends what stands before a body of `length` bytes that follows.
    pub(super) fn head(
        &self,
        status: u16,
        content_type: &'static str,
        lines: &[u8],
        length: usize,
        options: ResponseOptions,
        out: &mut Vec<u8>,
    ) {
        let response = Response::start_sized(out, status, content_type, length);
        self.finish_head(response, status, lines, options);
    }

    /// Appends what stands before a body that follows in pieces.
    pub(super) fn stream_head(
        &self,
        status: u16,
        content_type: &'static str,
        lines: &[u8],
        options: ResponseOptions,
        out: &mut Vec<u8>,
    ) {
        let options = if options.takes_chunks() { options } else { options.closing() };
        let response = Response::start_stream(out, status, content_type, options.takes_chunks());
        self.finish_head(response, status, lines, options);
    }

    fn finish_head(&self, mut response: Response<'_, '_>, status: u16, lines: &[u8], options: ResponseOptions) {
        response.lines(lines);
        if (200..300).contains(&status) {
            response.lines(&fill_line(self.lane.fill_percent()));
        }
        response.lines(&self.date.get());
        options.headers().for_each(|(name, value)| response.header(name, value));
        response.end(options.keep_alive, options.head_only);
    }

    /// Appends a refusal; `accepted`: how many lines of an NDJSON body were taken before.
    pub(super) fn refusal(
        &self,
        refusal: &Refusal,
        accepted: Option<u64>,
        options: ResponseOptions,
        out: &mut Vec<u8>,
    ) {
        refusal.write_to(out, accepted, &self.date.get(), options);
    }
}

/// How full the log is, in hundredths, as a share of `0.00` to `1.00`.
fn fill_line(percent: u8) -> [u8; 27] {
    let mut line = *b"Forebay-Buffer-Fill: 0.00\r\n";
    let [.., ones, _, tenths, hundredths, _, _] = &mut line;
    (*ones, *tenths, *hundredths) = (b'0' + percent / 100, b'0' + percent / 10 % 10, b'0' + percent % 10);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fill_has_two_decimals() {
        for (percent, text) in [(0, "0.00"), (7, "0.07"), (13, "0.13"), (99, "0.99"), (100, "1.00")] {
            assert_eq!(fill_line(percent), format!("Forebay-Buffer-Fill: {text}\r\n").as_bytes());
        }
    }
}

//! What a push's answer waits for, and how it is worded.

use super::pushes::Pushes;
use crate::{
    api::pushed::Form,
    http::{ErrorCode, Head, Refusal, path},
    json::push,
    state::{database_health::DatabaseHealth, drain_signal::Patience},
};
use std::time::Duration;

/// What a push's answer waits for.
pub(super) struct Wait {
    pub(super) patience: Patience,
    buffered: bool,
    /// Whether the commit is waited for: with PostgreSQL away nobody does, the answer is the log's.
    pub(super) awaited: bool,
}

impl Wait {
    pub(super) fn of(pushes: &Pushes, buffered: bool, buffer_ms: Option<u32>, buffer_max: Option<u32>) -> Self {
        if !buffered {
            let awaited = pushes.health.get() != DatabaseHealth::Disconnected;
            return Self { patience: Patience::NONE, buffered, awaited };
        }
        let config = &pushes.config;
        let time = Duration::from_millis(buffer_ms.unwrap_or(config.flush_ms).into());
        let count = u64::from(buffer_max.unwrap_or(config.flush_max));
        Self { patience: Patience { time, count }, buffered, awaited: false }
    }

    /// Buffered, unless `wait=postgres` says otherwise.
    pub(super) fn by_query(pushes: &Pushes, query: &str) -> Result<Self, Refusal> {
        let (mut buffered, mut buffer_ms, mut buffer_max) = (true, None, None);
        for pair in path::query_pairs(query) {
            let (name, value) = pair?;
            let invalid = |error: &str| Refusal::new(ErrorCode::InvalidRequest, format!("{name}: {error}"));
            match name.as_ref() {
                "bufferMs" => buffer_ms = Some(push::parse_buffer_ms(&value).map_err(invalid)?),
                "bufferMax" => buffer_max = Some(push::parse_buffer_max(&value).map_err(invalid)?),
                "wait" if value == "postgres" => buffered = false,
                "wait" => return Err(invalid("must be postgres, or left out")),
                _ => return Err(invalid("there is no such parameter; there are bufferMs, bufferMax and wait")),
            }
        }
        if !buffered && (buffer_ms.is_some() || buffer_max.is_some()) {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "wait=postgres and bufferMs or bufferMax exclude each other",
            ));
        }
        Ok(Self::of(pushes, buffered, buffer_ms, buffer_max))
    }

    pub(super) fn form(&self, head: &Head<'_>) -> Form {
        match (head.prefer_minimal, self.buffered) {
            (true, _) => Form::Minimal,
            (false, true) => Form::Object,
            (false, false) => Form::Array,
        }
    }
}

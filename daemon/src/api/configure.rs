//! What a queue is like: `POST /api/v1/configure`.

use super::{
    push::check_queue,
    queue_requests::{ask, invalid, shutting_down},
    reply::Reply,
    request::Request,
};
use crate::{
    http::{ErrorCode, Refusal},
    json::push,
    queue::request::{ConfigureRequest, QueueRequest},
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What an option is, where nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Default {
    Number(i32),
    Flag(bool),
}

impl Default {
    fn value(self) -> Value {
        match self {
            Self::Number(number) => number.into(),
            Self::Flag(flag) => flag.into(),
        }
    }

    /// A value of its kind. A number has 32 bits, and may be written as `75.0`.
    fn read(self, value: &Value) -> Option<Value> {
        match self {
            Self::Number(_) => {
                let whole = || value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64);
                let number = value.as_i64().or_else(whole)?;
                i32::try_from(number).ok().map(Value::from)
            }
            Self::Flag(_) => value.as_bool().map(Value::from),
        }
    }
}

/// The options that queues have.
const OPTIONS: [(&str, Default); 15] = [
    ("leaseTime", Default::Number(300)),
    ("maxSize", Default::Number(0)),
    ("ttl", Default::Number(3600)),
    ("retryLimit", Default::Number(3)),
    ("retryDelay", Default::Number(1000)),
    ("deadLetterQueue", Default::Flag(false)),
    ("dlqAfterMaxRetries", Default::Flag(false)),
    ("priority", Default::Number(0)),
    ("delayedProcessing", Default::Number(0)),
    ("windowBuffer", Default::Number(0)),
    ("retentionSeconds", Default::Number(0)),
    ("completedRetentionSeconds", Default::Number(0)),
    ("retentionEnabled", Default::Flag(false)),
    ("encryptionEnabled", Default::Flag(false)),
    ("maxWaitTimeSeconds", Default::Number(0)),
];

#[derive(Deserialize)]
struct Body {
    queue: Option<Value>,
    namespace: Option<String>,
    task: Option<String>,
    options: Option<Map<String, Value>>,
    mode: Option<String>,
}

/// Configures a queue, which is created if it is missing.
pub(super) fn configure<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let body: Body = serde_json::from_slice(request.body).map_err(|error| invalid("the body", error))?;
    let Some(Value::String(queue)) = body.queue else {
        return Err(Refusal::new(ErrorCode::InvalidRequest, "queue is required"));
    };
    push::check_queue(&queue).map_err(|error| invalid("queue", error))?;
    check_queue(request.grant, &queue)?;
    push::check_namespace(body.namespace.as_deref().unwrap_or("")).map_err(|error| invalid("namespace", error))?;
    push::check_task(body.task.as_deref().unwrap_or("")).map_err(|error| invalid("task", error))?;
    let is_merging = match body.mode.as_deref() {
        None | Some("replace") => false,
        Some("merge") => true,
        Some(_) => return Err(invalid("mode", "must be merge or replace")),
    };
    let options = read(&body.options.unwrap_or_default())?;
    let (namespace, task) = (body.namespace.map(Box::from), body.task.map(Box::from));
    let defaults = OPTIONS.map(|(name, default)| (name.to_owned(), default.value())).into_iter().collect();
    Ok(ask(request, shutting_down, |_| {
        QueueRequest::Configure(ConfigureRequest {
            queue: queue.into(),
            namespace,
            task,
            options,
            defaults,
            is_merging,
        })
    }))
}

/// The options that are known. What this release does not know is left alone: clients of other releases send more.
fn read(sent: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let mut read = Map::new();
    for (name, default) in OPTIONS {
        match sent.get(name) {
            None | Some(Value::Null) => {}
            Some(value) => {
                if let Some(value) = default.read(value) {
                    read.insert(name.to_owned(), value);
                    continue;
                }
                let kind =
                    if matches!(default, Default::Flag(_)) { "true or false" } else { "a whole number of 32 bits" };
                return Err(invalid(&format!("options.{name}"), format!("must be {kind}")));
            }
        }
    }
    Ok(read)
}

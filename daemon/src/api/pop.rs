//! Messages for consumers: `GET /api/v1/pop/queue/{queue}` and `…/partition/{partition}`.

use super::{
    push::check_queue,
    queue_requests::{ask, check_group, invalid},
    reply::Reply,
    request::Request,
};
use crate::{
    http::{Method, Refusal, path},
    json::push,
    queue::request::{PopRequest, QUEUE_MODE, QueueRequest, Subscription},
    state::pg_answer::PgAnswer,
};
use jiff::Timestamp;

/// Messages of a pop where the request does not say.
const BATCH_DEFAULT: u32 = 1;

/// The same where it leaves the choice to the broker.
const BATCH_AUTOPILOT: u32 = 100;

/// Messages of a pop at most.
const BATCH_MAX: u32 = 10_000;

/// How long a pop waits that says no time, in milliseconds.
const TIMEOUT_DEFAULT_MS: u64 = 30_000;

/// How long a pop waits at most, in milliseconds.
const TIMEOUT_MAX_MS: u64 = 3_600_000;

/// What the query of a pop says.
struct Query {
    batch: Option<u32>,
    is_waiting: bool,
    timeout_ms: u64,
    auto_ack: bool,
    group: Option<String>,
    subscription: Subscription,
    is_autopilot: bool,
}

/// Takes messages of a queue, or of one of its partitions.
pub(super) fn by_queue<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let queue = request.params.value("queue");
    push::check_queue(queue).map_err(|error| invalid("queue", error))?;
    check_queue(request.grant, queue)?;
    let partition = request.params.get("partition");
    if let Some(partition) = partition {
        push::check_partition(partition).map_err(|error| invalid("partition", error))?;
    }
    let query = Query::of(request.head.query)?;
    if request.head.method == Method::Head {
        // Nothing is taken that nobody gets.
        return Ok(Reply::empty());
    }
    let default = if query.is_autopilot { BATCH_AUTOPILOT } else { BATCH_DEFAULT };
    let (queue, partition) = (Box::from(&**queue), partition.map(|name| Box::from(&**name)));
    Ok(ask(
        request,
        || PgAnswer::Empty,
        |cancel_flag| {
            QueueRequest::Pop(PopRequest {
                queue,
                partition,
                group: query.group.as_deref().unwrap_or(QUEUE_MODE).into(),
                count: query.batch.unwrap_or(default),
                wait_ms: query.is_waiting.then_some(query.timeout_ms),
                auto_ack: query.auto_ack,
                subscription: query.subscription,
                is_autopilot: query.is_autopilot,
                cancel_flag,
            })
        },
    ))
}

impl Query {
    /// Reads a query. What this release does not know is left alone: clients of other releases send more.
    fn of(query: &str) -> Result<Self, Refusal> {
        let mut read = Self {
            batch: None,
            is_waiting: false,
            timeout_ms: TIMEOUT_DEFAULT_MS,
            auto_ack: false,
            group: None,
            subscription: Subscription::All,
            is_autopilot: false,
        };
        let mut mode = Subscription::All;
        for pair in path::query_pairs(query) {
            let (name, value) = pair?;
            // A number that is too large is as large as possible.
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let number = || match is_number {
                true => Ok(value.parse::<u64>().unwrap_or(u64::MAX)),
                false => Err(invalid(&name, "must be a whole number")),
            };
            let flag = || matches!(&*value, "true" | "1");
            match name.as_ref() {
                "batch" => {
                    let batch = number()?.clamp(1, BATCH_MAX.into());
                    read.batch = Some(u32::try_from(batch).unwrap_or(BATCH_MAX));
                }
                "timeout" => read.timeout_ms = number()?.min(TIMEOUT_MAX_MS),
                "wait" => read.is_waiting = flag(),
                "autoAck" => read.auto_ack = flag(),
                "autopilot" => read.is_autopilot = flag(),
                "consumerGroup" if !value.is_empty() => {
                    check_group(&value).map_err(|error| invalid(&name, error))?;
                    read.group = Some(value.into_owned());
                }
                "subscriptionMode" if matches!(&*value, "new" | "new-only") => mode = Subscription::New,
                "subscriptionFrom" if value == "now" => mode = Subscription::New,
                "subscriptionFrom" if !value.is_empty() => {
                    let time: Timestamp =
                        value.parse().map_err(|_| invalid(&name, "must be \"now\" or a time as RFC 3339 writes it"))?;
                    read.subscription = Subscription::From(time.as_microsecond());
                }
                _ => {}
            }
        }
        if read.subscription == Subscription::All {
            read.subscription = mode;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_how_much_how_long_for_whom_and_from_where() {
        let read = Query::of("").unwrap();
        assert_eq!((read.batch, read.is_waiting, read.timeout_ms, read.auto_ack), (None, false, 30_000, false));
        assert_eq!((read.group, read.subscription), (None, Subscription::All));
        let read =
            Query::of("batch=7&wait=true&timeout=50&autoAck=1&consumerGroup=a%20b&subscriptionMode=new&frames=x");
        let read = read.unwrap();
        assert_eq!((read.batch, read.is_waiting, read.timeout_ms, read.auto_ack), (Some(7), true, 50, true));
        assert_eq!((read.group.as_deref(), read.subscription), (Some("a b"), Subscription::New));
        let from = |query: &str| Query::of(query).unwrap().subscription;
        assert_eq!(from("subscriptionFrom=now"), Subscription::New);
        assert_eq!(from("subscriptionFrom=1970-01-01T00:00:02.5Z"), Subscription::From(2_500_000));
        assert_eq!(from("subscriptionMode=all&consumerGroup="), Subscription::All);
        assert_eq!(
            (Query::of("batch=0").unwrap().batch, Query::of("batch=99999").unwrap().batch),
            (Some(1), Some(10_000))
        );
        for bad in
            ["batch=x", "timeout=-1", "subscriptionFrom=yesterday", &format!("consumerGroup={}", "g".repeat(256))]
        {
            assert!(Query::of(bad).is_err(), "{bad}");
        }
    }
}

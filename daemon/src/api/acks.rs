//! What became of messages: `POST /api/v1/ack`, `POST /api/v1/ack/batch`, and `POST /api/v1/lease/{leaseId}/extend`.

use super::{
    queue_requests::{ask, check_group, invalid, shutting_down},
    reply::Reply,
    request::Request,
};
use crate::{
    http::{ErrorCode, Refusal},
    queue::request::{AckForm, AckItem, AckRequest, AckStatus, ExtendRequest, QUEUE_MODE, QueueRequest},
};
use serde::Deserialize;
use uuid::Uuid;

/// Messages of a batch at most.
const ITEMS_MAX: usize = 10_000;

/// How long a lease goes on where the request does not say, in seconds.
const EXTEND_DEFAULT_S: u64 = 60;

/// How long a lease may go on at most, in seconds: a year.
const EXTEND_MAX_S: u64 = 31_536_000;

/// A status as clients write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Status {
    Flag(bool),
    Text(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    transaction_id: Option<serde_json::Value>,
    partition_id: Option<serde_json::Value>,
    lease_id: Option<String>,
    status: Option<Status>,
    error: Option<String>,
    consumer_group: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    acknowledgments: Option<Vec<Item>>,
    consumer_group: Option<String>,
}

#[derive(Default, Deserialize)]
struct Extend {
    seconds: Option<u64>,
}

/// `POST /api/v1/ack`
pub(super) fn single<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let item: Item = parsed(request.body)?;
    let group = item.consumer_group.clone();
    let form = if item.partition_id.is_some() { AckForm::Array } else { AckForm::OldSingle };
    let item = item.read(form == AckForm::OldSingle, "transactionId is required")?;
    submit(request, vec![item], group, form)
}

/// `POST /api/v1/ack/batch`
pub(super) fn batch<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let batch: Batch = parsed(request.body)?;
    let items = batch.acknowledgments.ok_or_else(|| refused("acknowledgments array is required"))?;
    if items.len() > ITEMS_MAX {
        return Err(invalid("acknowledgments", "at most 10,000 are possible"));
    }
    let is_old = !items.is_empty() && items.iter().all(|item| item.partition_id.is_none());
    let form = if is_old { AckForm::OldBatch } else { AckForm::Array };
    let wrong = "Each acknowledgment must have a valid transactionId string";
    let items = items.into_iter().map(|item| {
        if !is_old && item.partition_id.is_none() {
            let missing = "Each acknowledgment must have a valid partitionId string to ensure message uniqueness";
            return Err(refused(missing));
        }
        item.read(is_old, wrong)
    });
    let items = items.collect::<Result<Vec<_>, _>>()?;
    submit(request, items, batch.consumer_group, form)
}

/// `POST /api/v1/lease/{leaseId}/extend`
pub(super) fn extend<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let not_found = || Refusal::from(ErrorCode::LeaseNotFound);
    let lease = Uuid::try_parse(request.params.value("leaseId")).map_err(|_| not_found())?;
    let body: Extend = match request.body {
        [] => Extend::default(),
        body => parsed(body)?,
    };
    let seconds = body.seconds.unwrap_or(EXTEND_DEFAULT_S).clamp(1, EXTEND_MAX_S);
    let queue_prefix = request.grant.queue_prefix().map(Box::from);
    Ok(ask(request, shutting_down, |_| QueueRequest::Extend(ExtendRequest { lease, seconds, queue_prefix })))
}

fn submit<'a>(
    request: &Request<'_, '_, 'a>,
    items: Vec<AckItem>,
    group: Option<String>,
    form: AckForm,
) -> Result<Reply<'a>, Refusal> {
    let group = group.filter(|group| !group.is_empty());
    if let Some(group) = &group {
        check_group(group).map_err(|error| invalid("consumerGroup", error))?;
    }
    let group = group.as_deref().unwrap_or(QUEUE_MODE).into();
    let queue_prefix = request.grant.queue_prefix().map(Box::from);
    Ok(ask(request, shutting_down, |_| QueueRequest::Ack(AckRequest { items, group, form, queue_prefix })))
}

impl Item {
    /// Reads an item. `is_old`: its client knows no partitions, and gives up what failed.
    fn read(self, is_old: bool, without_id: &'static str) -> Result<AckItem, Refusal> {
        let Some(serde_json::Value::String(transaction_id)) = self.transaction_id else {
            return Err(refused(without_id));
        };
        let partition = match self.partition_id {
            None => None,
            Some(serde_json::Value::String(id)) => Some(id.parse().unwrap_or(0)),
            Some(serde_json::Value::Number(id)) => Some(id.as_i64().unwrap_or(0)),
            Some(_) => return Err(invalid("partitionId", "must be a string")),
        };
        let lease = self.lease_id.filter(|lease| !lease.is_empty());
        // None that this daemon hands out is nil.
        let lease = lease.map(|lease| Uuid::try_parse(&lease).unwrap_or(Uuid::nil()));
        let status = match self.status {
            None | Some(Status::Flag(true)) => AckStatus::Completed,
            Some(Status::Flag(false)) => AckStatus::Failed,
            Some(Status::Text(text)) => match &*text {
                "completed" | "success" => AckStatus::Completed,
                "failed" => AckStatus::Failed,
                "retry" => AckStatus::Retry,
                "dlq" => AckStatus::GiveUp,
                _ => return Err(invalid("status", "must be completed, failed, retry or dlq")),
            },
        };
        let status = if is_old && status == AckStatus::Failed { AckStatus::GiveUp } else { status };
        // PostgreSQL's text takes no NUL.
        let error = self.error.map(|error| error.replace('\0', "\u{fffd}"));
        Ok(AckItem { transaction_id, partition, lease, status, error })
    }
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| invalid("the body", error))
}

fn refused(text: &'static str) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, text)
}

//! Acks and extensions of leases: which messages they mean, and what becomes of each.

use super::{
    answers::{self, Acked},
    batch::PairId,
    dispatcher::Ack,
    leases::pair_of,
    names::KnownGroup,
    request::{AckForm, AckItem, AckRequest, AckStatus, ExtendRequest},
    service::{Service, refused},
};
use crate::{
    http::{ErrorCode, Refusal},
    ids::{rfc3339, unix_now},
    message::TransactionKey,
    postgres::channel::ChannelError,
    state::{answer_to::AnswerTo, pg_answer::PgAnswer},
};
use std::{collections::BTreeMap, rc::Rc};
use uuid::Uuid;

/// Failures that a message may have in any case: more than there are.
const NO_FAILURE: i32 = -1;

/// A message that an item means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Meant {
    pair: PairId,
    lease: Uuid,
    seq: i64,
}

/// Carries an ack out, and answers it.
pub(super) async fn acknowledge(service: Rc<Service>, request: AckRequest, answer_to: AnswerTo) {
    let outcome = acked(&service, &request).await;
    answer_to.answer(match outcome {
        Ok(outcomes) => answer(&request, &outcomes),
        Err(NotAcked::Refused(error)) => refused(&error),
        Err(NotAcked::Unknown) => PgAnswer::away("it may still be acknowledged; send it again"),
    });
}

/// Why an ack has no outcome.
#[derive(Debug)]
enum NotAcked {
    /// PostgreSQL did not carry out a part of it.
    Refused(ChannelError),
    /// PostgreSQL has not answered in time.
    Unknown,
}

impl From<ChannelError> for NotAcked {
    fn from(error: ChannelError) -> Self {
        Self::Refused(error)
    }
}

/// What becomes of each item, in their order.
async fn acked(service: &Rc<Service>, request: &AckRequest) -> Result<Vec<Acked>, NotAcked> {
    let mut outcomes = vec![Acked::NotFound; request.items.len()];
    // What is said of one lease goes together.
    let mut by_lease: BTreeMap<(PairId, Uuid), Vec<(usize, i64)>> = BTreeMap::new();
    for (index, item) in request.items.iter().enumerate() {
        match find(service, request, item).await? {
            Ok(Meant { pair, lease, seq }) => by_lease.entry((pair, lease)).or_default().push((index, seq)),
            Err(outcome) => outcomes[index] = outcome,
        }
    }
    for ((pair, lease), of_lease) in by_lease {
        let Some(known) = service.names.borrow().group(pair.group).cloned() else { continue };
        settle(service, request, (pair, lease), &known, &of_lease, &mut outcomes).await?;
    }
    Ok(outcomes)
}

/// Carries out what is said of one lease.
async fn settle(
    service: &Rc<Service>,
    request: &AckRequest,
    (pair, lease): (PairId, Uuid),
    known: &KnownGroup,
    of_lease: &[(usize, i64)],
    outcomes: &mut [Acked],
) -> Result<(), NotAcked> {
    let status = |index: usize| request.items[index].status;
    let with = |wanted: AckStatus| of_lease.iter().copied().filter(move |(index, _)| status(*index) == wanted);
    let mut done: Vec<i64> = with(AckStatus::Completed).map(|(_, seq)| seq).collect();
    let is_given_back = with(AckStatus::Retry).next().is_some();
    let mut letters = Vec::new();
    let mut has_failed = false;
    for (wanted, may_fail) in [(AckStatus::Failed, known.options.retry_limit), (AckStatus::GiveUp, NO_FAILURE)] {
        let failed: Vec<(i64, Option<&str>)> =
            with(wanted).map(|(index, seq)| (seq, request.items[index].error.as_deref())).collect();
        if failed.is_empty() {
            continue;
        }
        let connection = service.connection_of(pair);
        let counted = service.store.fail(connection, (pair, lease), &failed, may_fail).await?;
        for (index, seq) in with(wanted) {
            if counted.iter().all(|(of, _)| *of != seq) {
                outcomes[index] = Acked::LeaseLost;
            }
        }
        letters.extend(counted.iter().filter(|(_, is_letter)| *is_letter).map(|(seq, _)| *seq));
        has_failed |= counted.iter().any(|(_, is_letter)| !is_letter);
    }
    done.extend(&letters);
    done.sort_unstable();
    done.dedup();
    let release_ms = match (has_failed, is_given_back) {
        (true, _) => Some(known.options.retry_delay_ms),
        (false, true) => Some(0),
        (false, false) => None,
    };
    if done.is_empty() && release_ms.is_none() {
        return Ok(());
    }
    let ranges = done.iter().map(|seq| *seq..=*seq).collect();
    let acked = service.ack(Ack { pair, lease, done: ranges, release_ms }).await;
    let is_held = acked.ok_or(NotAcked::Unknown)?;
    let (mut is_released, mut retried) = (release_ms.is_some(), letters.clone());
    if is_held && let Some(held) = service.leases.borrow_mut().get(lease) {
        is_released |= held.done(&done);
        retried.extend(held.retried(&done));
    }
    let of = (known.queue_name.to_string(), service.partition_name(pair.partition));
    for (index, seq) in of_lease {
        let is_letter = letters.contains(seq);
        // A failure was counted while the lease was held.
        let counts = is_held || matches!(status(*index), AckStatus::Failed | AckStatus::GiveUp);
        if outcomes[*index] != Acked::LeaseLost {
            outcomes[*index] = match counts {
                true => Acked::Done { of: of.clone(), is_released, is_letter },
                false => Acked::LeaseLost,
            };
        }
    }
    if !retried.is_empty() {
        retried.sort_unstable();
        retried.dedup();
        service.store.forget(service.connection_of(pair), pair, &retried).await?;
    }
    Ok(())
}

/// The message that an item means, or why it means none.
async fn find(
    service: &Rc<Service>,
    request: &AckRequest,
    item: &AckItem,
) -> Result<Result<Meant, Acked>, ChannelError> {
    let key = TransactionKey::of(&item.transaction_id);
    let uuid = Uuid::from_bytes(key.bytes);
    let is_allowed = |group: &KnownGroup| {
        *group.group_name == *request.group
            && request.queue_prefix.as_deref().is_none_or(|prefix| group.queue_name.starts_with(prefix))
    };
    let lease = match (item.lease, item.partition) {
        (Some(lease), _) => Some(lease),
        // The oldest clients name neither.
        (None, None) => {
            let names = service.names.borrow();
            let is_of_group = |group: i64| names.group(group).is_some_and(&is_allowed);
            match service.leases.borrow().find(uuid, is_of_group) {
                Some(lease) => Some(lease),
                None => return Ok(Err(Acked::NotFound)),
            }
        }
        (None, Some(_)) => None,
    };
    let pair = match lease.and_then(|lease| Some(service.leases.borrow_mut().get(lease)?.pair)) {
        Some(pair) => pair,
        None => match pair_named(service, request, item).await? {
            Some(pair) => pair,
            None => return Ok(Err(Acked::LeaseLost)),
        },
    };
    if item.partition.is_some_and(|partition| partition != pair.partition) {
        return Ok(Err(Acked::NotFound));
    }
    if !service.names.borrow().group(pair.group).is_some_and(&is_allowed) {
        return Ok(Err(Acked::LeaseLost));
    }
    let lease = lease.unwrap_or_default();
    let is_known = service.leases.borrow_mut().get(lease).is_some();
    if !is_known && !lease.is_nil() {
        let messages = service.store.lease(service.connection_of(pair), (pair, lease)).await?;
        if !messages.is_empty() {
            let until_ms = service.now_ms();
            let messages = messages.into_iter().map(|(seq, key)| (seq, key, true));
            service.leases.borrow_mut().add(lease, pair, until_ms, messages);
        }
    }
    let in_lease = service.leases.borrow_mut().get(lease).and_then(|held| held.seq(uuid));
    let seq = match in_lease {
        Some(seq) => Some(seq),
        None => service.directory.message(pair.partition, key.bytes).await?,
    };
    // Of a lease that is not known it cannot be said which messages it had.
    let is_known = service.leases.borrow_mut().get(lease).is_some();
    let otherwise = if is_known { Acked::NotFound } else { Acked::LeaseLost };
    Ok(seq.map(|seq| Meant { pair, lease, seq }).ok_or(otherwise))
}

/// The pair of a lease that this process did not hand out: by the lease itself, or by the partition and the group's name.
async fn pair_named(
    service: &Rc<Service>,
    request: &AckRequest,
    item: &AckItem,
) -> Result<Option<PairId>, ChannelError> {
    let pair = match (item.lease.and_then(pair_of), item.partition) {
        (Some(pair), _) => pair,
        (None, Some(partition)) => match service.directory.group_of(partition, &request.group).await? {
            Some(group) => PairId { partition, group },
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    Ok(service.know(pair).await?.then_some(pair))
}

/// The answer in the form that its client reads.
fn answer(request: &AckRequest, outcomes: &[Acked]) -> PgAnswer {
    let group = (*request.group != *super::request::QUEUE_MODE).then(|| request.group.to_string());
    let status = |item: &AckItem, acked: &Acked| match acked {
        Acked::Done { is_letter: true, .. } => "failed_dlq",
        Acked::Done { .. } if item.status == AckStatus::Completed => "completed",
        Acked::Done { .. } => "failed_retry",
        Acked::LeaseLost | Acked::NotFound => "error",
    };
    match (request.form, outcomes) {
        (AckForm::OldSingle, [Acked::LeaseLost]) => {
            PgAnswer::Refused(Refusal::new(ErrorCode::InvalidLease, "Failed to acknowledge message: invalid_lease"))
        }
        (AckForm::OldSingle, [Acked::NotFound]) => {
            PgAnswer::Refused(Refusal::new(ErrorCode::MessageNotFound, "Failed to acknowledge message: not_found"))
        }
        (AckForm::OldSingle, [acked @ Acked::Done { .. }]) => {
            let item = &request.items[0];
            let body = serde_json::json!({
                "transactionId": item.transaction_id, "status": status(item, acked), "consumerGroup": group,
                "acknowledgedAt": rfc3339(unix_now().as_micros() as i64),
            });
            PgAnswer::Json(body.to_string().into_bytes())
        }
        (AckForm::OldBatch, _) => {
            let results: Vec<_> = request
                .items
                .iter()
                .zip(outcomes)
                .map(|(item, acked)| {
                    serde_json::json!({"transactionId": item.transaction_id, "status": status(item, acked)})
                })
                .collect();
            let body = serde_json::json!({"processed": results.len(), "results": results});
            PgAnswer::Json(body.to_string().into_bytes())
        }
        _ => {
            let items: Vec<(String, Acked)> = request
                .items
                .iter()
                .zip(outcomes)
                .map(|(item, acked)| (item.transaction_id.clone(), acked.clone()))
                .collect();
            PgAnswer::Json(answers::acked(&items))
        }
    }
}

/// Lets a lease go on, and answers that.
pub(super) async fn extend(service: Rc<Service>, request: ExtendRequest, answer_to: AnswerTo) {
    let ExtendRequest { lease, seconds, .. } = request;
    let for_ms = seconds.saturating_mul(1000);
    let end = extended(&service, &request, for_ms).await;
    answer_to.answer(match end {
        Ok(Some((pair, end_us))) => {
            service.extended(pair, lease, for_ms);
            let end = rfc3339(end_us);
            let body = serde_json::json!({
                "leaseId": lease, "success": true, "extended": true, "seconds": seconds, "renewed": 1,
                "newExpiresAt": end, "expiresAt": end, "lease_expires_at": end, "error": null,
            });
            PgAnswer::Json(body.to_string().into_bytes())
        }
        Ok(None) => PgAnswer::Refused(ErrorCode::LeaseNotFound.into()),
        Err(error) => refused(&error),
    });
}

async fn extended(
    service: &Rc<Service>,
    request: &ExtendRequest,
    for_ms: u64,
) -> Result<Option<(PairId, i64)>, ChannelError> {
    let known = service.leases.borrow_mut().get(request.lease).map(|held| held.pair);
    let Some(pair) = known.or_else(|| pair_of(request.lease)) else { return Ok(None) };
    if !service.know(pair).await? {
        return Ok(None);
    }
    let is_allowed =
        service.names.borrow().group(pair.group).is_some_and(|group| {
            request.queue_prefix.as_deref().is_none_or(|prefix| group.queue_name.starts_with(prefix))
        });
    if !is_allowed {
        return Ok(None);
    }
    let end = service.store.extend(service.connection_of(pair), (pair, request.lease), for_ms).await?;
    Ok(end.map(|end_us| (pair, end_us)))
}

//! Configures queues.

use super::{
    directory::QueueOptions,
    request::ConfigureRequest,
    service::{Service, refused},
};
use crate::state::{answer_to::AnswerTo, pg_answer::PgAnswer};
use serde_json::{Value, json};
use std::rc::Rc;

/// Configures a queue, and answers what it is like.
pub(super) async fn configure(service: Rc<Service>, request: ConfigureRequest, answer_to: AnswerTo) {
    let configured = match service.directory.configure(&request).await {
        Ok(configured) => configured,
        Err(error) => return answer_to.answer(refused(&error)),
    };
    service.names.borrow_mut().set_options(configured.id, QueueOptions::of(&configured.options));
    let mut options = request.defaults;
    if let Ok(Value::Object(set)) = serde_json::from_str(&configured.options) {
        options.extend(set);
    }
    let body = json!({
        "configured": true, "queue": request.queue, "namespace": configured.namespace, "task": configured.task,
        "options": options, "queueId": configured.id.to_string(), "partitionId": configured.partition.to_string(),
    });
    answer_to.answer(PgAnswer::Json(body.to_string().into_bytes()));
}

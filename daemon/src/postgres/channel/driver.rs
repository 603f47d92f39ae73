//! The driver of a channel: does what the queue decides, and tells it what came of that.

use super::{ChannelError, ChannelOptions, Shared, queue::Action, session::Session};
use forebay_pgwire::Error;
use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long after its last answer an unused connection is taken for open without a check. The check is a system call, which takes
/// a twentieth of a lone request.
const TRUSTED: Duration = Duration::from_millis(10);

/// Runs until the last handle is gone and all units are answered.
pub(super) async fn drive(shared: Rc<Shared>, options: ChannelOptions) {
    let mut session: Option<Session> = None;
    let mut answered_at = Instant::now();
    loop {
        // Before the queue decides: a connection that is found closed must not be chosen for what waits.
        let is_unchecked = answered_at.elapsed() >= TRUSTED && shared.queue.borrow().is_quiet();
        if is_unchecked && session.as_mut().is_some_and(|session| !session.is_usable()) {
            session = None;
            shared.queue.borrow_mut().disconnected(Instant::now());
        }
        let decision = shared.queue.borrow_mut().next(Instant::now());
        for (request, why) in decision.refused {
            request.answer(Err(why.into()));
        }
        match (decision.action, &mut session) {
            (Action::Sleep(until), _) => {
                if shared.is_closing.get() && shared.queue.borrow().len() == 0 {
                    return;
                }
                shared.wake.notified_until(until).await;
            }
            (Action::Connect, session) => *session = connect(&shared, &options).await,
            (Action::Send(due), Some(open)) => {
                if let Err(error) = send(&shared, open, due).await {
                    session = None;
                    lose(&shared, error);
                }
            }
            (Action::Receive(due), Some(open)) => {
                match receive(&shared, open, due).await {
                    Ok(at) => answered_at = at,
                    Err(error) => {
                        session = None;
                        lose(&shared, error);
                        continue;
                    }
                }
                if open.is_outdated() && shared.queue.borrow().is_quiet() {
                    session = None;
                    shared.queue.borrow_mut().disconnected(Instant::now());
                }
            }
            (Action::Disconnect, session) => {
                *session = None;
                shared.queue.borrow_mut().disconnected(Instant::now());
            }
            (Action::Send(_) | Action::Receive(_), None) => panic!("the queue sends on a connection only"),
        }
    }
}

async fn connect(shared: &Shared, options: &ChannelOptions) -> Option<Session> {
    let connected = Session::connect(options).await;
    let now = Instant::now();
    match connected {
        Ok(session) => {
            shared.queue.borrow_mut().connected(now);
            Some(session)
        }
        Err(error) => {
            let failed = shared.queue.borrow_mut().connect_failed(now);
            failed.into_iter().for_each(|request| request.answer(Err(error.clone())));
            None
        }
    }
}

async fn send(shared: &Shared, session: &mut Session, due: Instant) -> Result<(), Error> {
    for request in shared.queue.borrow().in_flight() {
        request.encode(session)?;
    }
    session.send(due).await
}

/// Takes the answers of a section. Returns when they came.
async fn receive(shared: &Shared, session: &mut Session, due: Instant) -> Result<Instant, Error> {
    let section = session.receive(due).await?;
    let now = Instant::now();
    for result in section.results {
        let request = shared.queue.borrow_mut().answered(now);
        request.answer(result);
    }
    if section.left_transaction {
        tracing::error!(code = "transaction_left_open", "a request left a transaction open; its connection is closed");
        return Err(Error::Closed);
    }
    if section.skipped > 0 {
        let mut queue = shared.queue.borrow_mut();
        queue.in_flight().take(section.skipped).for_each(|request| request.is_repeated.set(true));
        queue.repeat(section.skipped);
    }
    let is_last = shared.queue.borrow().is_quiet();
    if is_last {
        session.finish_preparing().await?;
    }
    Ok(now)
}

/// Fails all that is in flight.
fn lose(shared: &Shared, error: Error) {
    let lost = shared.queue.borrow_mut().lost(Instant::now());
    let error = ChannelError::Lost(Arc::new(error));
    lost.into_iter().for_each(|request| request.answer(Err(error.clone())));
}

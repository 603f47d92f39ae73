//! Errands to PostgreSQL for a core: what a person asks over HTTP and no push waits for. One thread runs them in turn, each
//! with a connection of its own; the answer comes back through the core's mailbox.

use crate::{
    api::{Answer, DeadLettersErrand, unanswered},
    limits::{ERRAND_DEADLINE, ERRANDS_WAITING_MAX},
    postgres::connect::TargetSource,
    rt,
    state::{mailbox::Letter, shared::Shared},
};
use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Instant,
};

/// Operations that an errand's ring has under way at most.
const RING_OPERATIONS: u32 = 64;

/// What a core wants to know.
pub struct Errand {
    /// Which core: index of its mailbox.
    pub core: u16,
    /// Which of its errands.
    pub id: u64,
    /// What is to be done.
    pub what: DeadLettersErrand,
    /// When it was asked for.
    pub asked_at: Instant,
}

/// Where errands are asked for.
#[derive(Clone)]
pub struct ErrandsHandle {
    errands: SyncSender<Errand>,
}

/// Errands that wait for their thread.
pub struct Errands(Receiver<Errand>);

/// A place to ask for errands, and those that were asked for.
#[must_use]
pub fn errands() -> (ErrandsHandle, Errands) {
    let (errands, inbox) = sync_channel(ERRANDS_WAITING_MAX);
    (ErrandsHandle { errands }, Errands(inbox))
}

impl ErrandsHandle {
    /// Asks for one; returns whether there is room for it.
    #[must_use]
    pub fn ask(&self, errand: Errand) -> bool {
        self.errands.try_send(errand).is_ok()
    }
}

impl Errands {
    /// Starts the thread that runs them. It ends with the process: what it does is whole by its transactions.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self, shared: &Arc<Shared>, target: TargetSource) -> io::Result<()> {
        let shared = Arc::clone(shared);
        std::thread::Builder::new().name("errands".into()).spawn(move || {
            for errand in self.0 {
                let answer = run(&shared, &target, &errand);
                if let Some(mailbox) = shared.mailboxes.get(errand.core) {
                    mailbox.send(Letter::Errand { id: errand.id, answer });
                }
            }
        })?;
        Ok(())
    }
}

fn run(shared: &Shared, target: &TargetSource, errand: &Errand) -> Answer {
    if errand.asked_at.elapsed() > ERRAND_DEADLINE {
        return unanswered("those before it took too long");
    }
    let Some(mut config) = target() else { return unanswered("the private PostgreSQL is being made") };
    config.application_name.get_or_insert_with(|| "forebay errand".to_owned());
    config.connect_timeout = Some(config.connect_timeout.map_or(ERRAND_DEADLINE, |own| own.min(ERRAND_DEADLINE)));
    config.statement_deadline = Some(ERRAND_DEADLINE);
    let mut runtime = match rt::runtime(RING_OPERATIONS) {
        Ok(runtime) => runtime,
        Err(error) => return unanswered(&error.to_string()),
    };
    let run = AssertUnwindSafe(|| runtime.block_on(errand.what.run(shared, &config)));
    std::panic::catch_unwind(run).unwrap_or_else(|_| {
        tracing::error!(code = "errand_panicked", "an errand to PostgreSQL panicked; it was given up");
        unanswered("it ran into a bug")
    })
}

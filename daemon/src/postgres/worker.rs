//! The thread that asks PostgreSQL for the cores: what a person wants to know over HTTP, and no push waits for.
//!
//! ```text
//!   core ── PgRequest ──► PgRequests ──eventfd──► thread `postgres` ── a task for each ──► PgClient ──► Pool
//!     ▲                                                                  │
//!     └──────────────── mailbox: Letter::PgAnswer ◄──────────────────────┘
//! ```
//!
//! Requests run beside one another. Each is answered exactly once, also if its work panics, or the thread ends.

use super::{channel::ChannelOptions, client::PgClient, pool::Pool, work_room::WorkRoom};
use crate::{
    limits::{PG_REQUEST_DEADLINE, PG_REQUESTS_MAX},
    panics::panic_if_planted,
    rt,
    state::{
        cancel_flag::CancelFlag,
        mailbox::{Letter, Mailboxes},
        pg_answer::PgAnswer,
    },
};
use forebay_os::rights::keep_only;
use rustix::thread::CapabilitySet;
use std::{
    future::Future,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
};

/// Operations that the thread's ring has under way at most.
const RING_OPERATIONS: u32 = 64;

/// What a request does, on the worker's thread. Work that blocks, on files, holds the other requests up.
pub type PgWork = Box<dyn FnOnce(PgClient) -> Pin<Box<dyn Future<Output = PgAnswer>>> + Send>;

/// Where cores leave their requests.
#[derive(Clone)]
pub struct PgRequests(Arc<Inbox>);

struct Inbox {
    /// `None` once the thread has ended.
    waiting: Mutex<Option<Vec<PgRequest>>>,
    event: OwnedFd,
    /// Requests that were taken and not answered.
    open: AtomicUsize,
    mailboxes: Arc<Mailboxes>,
}

/// A request under way.
struct PgRequest {
    work: PgWork,
    cancel_flag: CancelFlag,
    answer_to: AnswerTo,
}

/// Whom to answer. Where nobody does, its drop does.
struct AnswerTo {
    inbox: Arc<Inbox>,
    core: u16,
    id: u64,
    answer: Option<PgAnswer>,
}

impl PgRequests {
    /// Requests whose answers go to `mailboxes`.
    ///
    /// # Errors
    /// Those of `eventfd`.
    pub fn new(mailboxes: Arc<Mailboxes>) -> io::Result<Self> {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        let open = AtomicUsize::new(0);
        Ok(Self(Arc::new(Inbox { waiting: Mutex::new(Some(Vec::new())), event, open, mailboxes })))
    }

    /// Leaves a request, which `core` knows by `id`. Setting `cancel_flag` gives up what of it was not sent to PostgreSQL yet.
    ///
    /// Returns whether there is room for it, and a thread that does it.
    #[must_use]
    pub fn submit(&self, core: u16, id: u64, cancel_flag: CancelFlag, work: PgWork) -> bool {
        let inbox = &self.0;
        let mut waiting = inbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = &mut *waiting else { return false };
        if inbox.open.fetch_add(1, Ordering::Relaxed) >= PG_REQUESTS_MAX {
            inbox.open.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let answer_to = AnswerTo { inbox: Arc::clone(inbox), core, id, answer: None };
        waiting.push(PgRequest { work, cancel_flag, answer_to });
        inbox.wake();
        true
    }

    /// Starts the thread that does them. It ends with the process: what it does is whole by its transactions.
    ///
    /// # Errors
    /// Where the system has no thread, or no ring, for it.
    pub fn start(&self, options: ChannelOptions) -> io::Result<()> {
        let inbox = Arc::clone(&self.0);
        let (starting, started) = channel();
        std::thread::Builder::new().name("postgres".into()).spawn(move || {
            // A panic was reported when it happened, and ends the daemon.
            if std::panic::catch_unwind(AssertUnwindSafe(|| run(&inbox, &options, &starting))).is_err() {
                tracing::debug!("the thread `postgres` panicked");
            }
            // Each is answered as it is dropped.
            drop(inbox.waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
        })?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread `postgres` did not start")))
    }
}

/// Runs the thread: it returns only where it cannot begin.
fn run(inbox: &Arc<Inbox>, options: &ChannelOptions, starting: &Sender<io::Result<()>>) {
    let started = rt::runtime(RING_OPERATIONS).and_then(|mut runtime| {
        keep_only(CapabilitySet::empty())?;
        runtime.block_on(async {
            let pool = Rc::new(Pool::new(options));
            let room = Rc::<WorkRoom>::default();
            let requests = Arc::clone(inbox);
            rt::spawn_on_event(inbox.event(), move || {
                panic_if_planted("postgres");
                for request in requests.take() {
                    rt::spawn(answer(Rc::clone(&pool), Rc::clone(&room), request));
                }
                true
            })?;
            tell(starting, Ok(()));
            std::future::pending().await
        })
    });
    tell(starting, started);
}

fn tell(starting: &Sender<io::Result<()>>, started: io::Result<()>) {
    if starting.send(started).is_err() {
        tracing::debug!("nobody waits for the thread `postgres` to start");
    }
}

async fn answer(pool: Rc<Pool>, room: Rc<WorkRoom>, request: PgRequest) {
    let PgRequest { work, cancel_flag, mut answer_to } = request;
    if cancel_flag.is_set() {
        return;
    }
    let client = PgClient::new(pool.channel(), PG_REQUEST_DEADLINE, cancel_flag, room);
    answer_to.answer = rt::catch_panic(Box::pin(async move { work(client).await })).await;
    if answer_to.answer.is_none() {
        tracing::debug!("a request to PostgreSQL panicked; it was given up");
    }
}

impl Inbox {
    fn wake(&self) {
        if let Err(error) = rustix::io::write(&self.event, &1_u64.to_ne_bytes()) {
            tracing::error!(code = "eventfd_failed", %error, "the thread `postgres` cannot be woken");
        }
    }

    fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn take(&self) -> Vec<PgRequest> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Drop for AnswerTo {
    fn drop(&mut self) {
        self.inbox.open.fetch_sub(1, Ordering::Relaxed);
        let answer = self.answer.take();
        let answer = answer.unwrap_or_else(|| PgAnswer::away("the request was given up"));
        if let Some(mailbox) = self.inbox.mailboxes.get(self.core) {
            mailbox.send(Letter::PgAnswer { id: self.id, answer });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{
        channel::{ChannelError, Unit},
        schema::owner::SchemaSettings,
    };
    use std::{
        collections::BTreeMap,
        sync::atomic::AtomicBool,
        time::{Duration, Instant},
    };

    fn start() -> (PgRequests, Arc<Mailboxes>) {
        let mailboxes = Arc::new(Mailboxes::new(1).unwrap());
        let requests = PgRequests::new(Arc::clone(&mailboxes)).unwrap();
        let timeout = Duration::from_secs(10);
        let target = Arc::new(|| None);
        let options = ChannelOptions {
            target,
            schema: SchemaSettings::own("forebay"),
            application_name: "",
            connect_timeout: timeout,
            statement_timeout: timeout,
        };
        requests.start(options).unwrap();
        (requests, mailboxes)
    }

    /// The answers to so many requests, by their ids.
    fn answers(mailboxes: &Mailboxes, count: usize) -> BTreeMap<u64, PgAnswer> {
        let give_up = Instant::now() + Duration::from_secs(60);
        let mut answers = BTreeMap::new();
        while answers.len() < count {
            assert!(Instant::now() < give_up, "all are answered: {answers:?}");
            for letter in mailboxes[0].take() {
                let Letter::PgAnswer { id, answer } = letter else { panic!("{letter:?}") };
                assert!(answers.insert(id, answer).is_none(), "{id} is answered once");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        answers
    }

    #[test]
    fn each_request_is_answered_once_also_one_that_panics_or_was_given_up() {
        let (requests, mailboxes) = start();
        let submit = |id, flag: CancelFlag, work: PgWork| assert!(requests.submit(0, id, flag, work));
        let json = |text: &'static str| PgAnswer::Json(text.into());
        submit(1, CancelFlag::default(), Box::new(move |_| Box::pin(async move { json("1") })));
        submit(2, CancelFlag::default(), Box::new(|_| Box::pin(async { panic!("a bug") })));
        submit(3, CancelFlag::default(), Box::new(|_| panic!("a bug before anything is waited for")));
        let flag = CancelFlag::default();
        flag.set();
        let is_run = Arc::new(AtomicBool::new(false));
        let run = Arc::clone(&is_run);
        let given_up = move |_| -> Pin<Box<dyn Future<Output = PgAnswer>>> {
            run.store(true, Ordering::Relaxed);
            Box::pin(async { PgAnswer::Json(Vec::new()) })
        };
        submit(4, flag, Box::new(given_up));
        // There is no PostgreSQL.
        let ask = async |client: PgClient| match client.run(Unit::of(&"SELECT 1".into(), &[])).await {
            Err(error @ ChannelError::NotReady) => PgAnswer::away(error),
            other => panic!("{other:?}"),
        };
        submit(5, CancelFlag::default(), Box::new(move |client| Box::pin(ask(client))));
        let answers = answers(&mailboxes, 5);
        assert!(matches!(&answers[&1], PgAnswer::Json(body) if body == b"1"));
        assert!(!is_run.load(Ordering::Relaxed));
        for id in 2..6 {
            match &answers[&id] {
                PgAnswer::Refused(refusal) => {
                    assert_eq!(refusal.status, 503);
                    assert!(refusal.message.contains("connection"), "{refusal}");
                }
                answer => panic!("{id}: {answer:?}"),
            }
        }
        assert_eq!(requests.0.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn no_more_requests_are_taken_than_may_be_open() {
        // Nobody does them.
        let requests = PgRequests::new(Arc::new(Mailboxes::new(1).unwrap())).unwrap();
        let submit = |id| {
            let work: PgWork = Box::new(|_| Box::pin(async { PgAnswer::Json(Vec::new()) }));
            requests.submit(0, id, CancelFlag::default(), work)
        };
        assert!((0..PG_REQUESTS_MAX as u64).all(submit));
        assert!(!submit(PG_REQUESTS_MAX as u64));
    }
}

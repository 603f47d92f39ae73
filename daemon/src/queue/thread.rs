//! The queue's thread, and the way to it.
//!
//! ```text
//!   core ── QueueRequest ──► QueueRequests ──eventfd──► thread `queue` ── Service ──► two channels, and one to look things up
//!     ▲     drain ── Commit ──► Commits ────eventfd──►      │
//!     └──────────────── mailbox: Letter::PgAnswer ◄─────────┘
//! ```

use super::{
    directory::Directory,
    dispatcher::{Dispatcher, Settings},
    request::QueueRequest,
    service::Service,
    store::CursorStore,
};
use crate::{
    ids,
    panics::panic_if_planted,
    postgres::{
        channel::{Channel, ChannelOptions},
        schema::quoted,
    },
    rt,
    state::{answer_to::AnswerTo, commits::Commits, inbox::Inbox, log_identity::LogIdentity, mailbox::Mailboxes},
};
use forebay_os::rights::keep_only;
use rustix::thread::CapabilitySet;
use std::{
    io,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

/// Operations that the thread's ring has under way at most.
const RING_OPERATIONS: u32 = 64;

/// Connections among which the partitions are divided.
const CONNECTIONS: usize = 2;

/// The rows that these statements touch are few and found by their keys, whatever the statistics say.
const PLANS: [(&str, &str); 4] =
    [("enable_hashjoin", "off"), ("enable_mergejoin", "off"), ("enable_seqscan", "off"), ("jit", "off")];

/// Where cores leave their requests.
#[derive(Clone)]
pub struct QueueRequests {
    inbox: Arc<Inbox<(QueueRequest, AnswerTo)>>,
    mailboxes: Arc<Mailboxes>,
    commits: Arc<Commits>,
}

impl QueueRequests {
    /// Requests whose answers go to `mailboxes`; the drain tells of its commits through `commits`.
    ///
    /// # Errors
    /// Those of `eventfd`.
    pub fn new(mailboxes: Arc<Mailboxes>, commits: Arc<Commits>) -> io::Result<Self> {
        Ok(Self { inbox: Arc::new(Inbox::new()?), mailboxes, commits })
    }

    /// Leaves a request, which `core` knows by `id`. It is answered exactly once.
    pub fn submit(&self, core: u16, id: u64, request: QueueRequest) {
        let answer_to = AnswerTo::new(Arc::clone(&self.mailboxes), core, id);
        if self.inbox.push((request, answer_to)).is_err() {
            tracing::debug!("the thread `queue` has ended; the request is refused");
        }
    }

    /// Starts the thread. It ends with the process: what it does is whole by its transactions. `identity` is the daemon's log.
    ///
    /// # Errors
    /// Where the system has no thread, or no ring, for it.
    pub fn start(&self, options: ChannelOptions, identity: Arc<LogIdentity>) -> io::Result<()> {
        let requests = self.clone();
        let (starting, started) = channel();
        std::thread::Builder::new().name("queue".into()).spawn(move || {
            // A panic was reported when it happened, and ends the daemon.
            if std::panic::catch_unwind(AssertUnwindSafe(|| run(&requests, options, identity, &starting))).is_err() {
                tracing::debug!("the thread `queue` panicked");
            }
            // Each is answered as it is dropped.
            requests.inbox.end();
        })?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread `queue` did not start")))
    }
}

/// Runs the thread: it returns only where it cannot begin.
fn run(
    requests: &QueueRequests,
    options: ChannelOptions,
    identity: Arc<LogIdentity>,
    starting: &Sender<io::Result<()>>,
) {
    let started = rt::runtime(RING_OPERATIONS).and_then(|mut runtime| {
        keep_only(CapabilitySet::empty())?;
        runtime.block_on(async {
            let service = service(requests, options, identity);
            let (commits, inbox) = (Arc::clone(&requests.commits), Arc::clone(&requests.inbox));
            let arrive = {
                let service = Rc::clone(&service);
                move || {
                    panic_if_planted("queue");
                    // In this order: who asks may have heard of a commit.
                    let requests = inbox.take();
                    service.arrive(commits.inbox().take(), requests);
                    true
                }
            };
            rt::spawn_on_event(requests.commits.inbox().event(), arrive.clone())?;
            rt::spawn_on_event(requests.inbox.event(), arrive)?;
            rt::spawn(service.keep_time());
            tell(starting, Ok(()));
            std::future::pending().await
        })
    });
    tell(starting, started);
}

fn service(requests: &QueueRequests, options: ChannelOptions, identity: Arc<LogIdentity>) -> Rc<Service> {
    let timeout = options.statement_timeout.mul_f64(1.5).max(Duration::from_secs(1));
    let schema = quoted(&options.schema.name);
    let target = options.target;
    let planned = move || {
        let mut config = target()?;
        config.session_settings.extend(PLANS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Some(config)
    };
    let options = ChannelOptions { target: Arc::new(planned), ..options };
    let channels = (0..CONNECTIONS).map(|_| Channel::open(options.clone())).collect();
    let store = CursorStore::new(channels, &schema, timeout);
    let directory = Directory::new(Channel::open(options), &schema, timeout);
    let (first_lease, _) = ids::random().as_u64_pair();
    let dispatcher = Dispatcher::new(&Settings { connections: CONNECTIONS, first_lease });
    Service::new(store, directory, dispatcher, Arc::clone(&requests.commits), identity)
}

fn tell(starting: &Sender<io::Result<()>>, started: io::Result<()>) {
    if starting.send(started).is_err() {
        tracing::debug!("nobody waits for the thread `queue` to start");
    }
}

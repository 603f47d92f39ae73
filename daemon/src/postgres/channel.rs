//! A channel: one connection to PostgreSQL that many tasks of a thread share.
//!
//! It follows the rule of the log: *while one pipeline is out, collect; when it has returned, send all that waits as the next
//! one.* So a lone request travels at once, and many requests share the round trips and the writes.
//!
//! ```text
//!   Channel (many) ── submit ──► queue   what is sent when, without I/O
//!     ▲                            ▲
//!     │ Reply                      │ events, decisions
//!     └──────────────────────── driver ──► session   connection, flight, prepared statements
//! ```
//!
//! A request is a [`Unit`]: one or more statements that are one transaction. Units are carried out and answered in the order in
//! which they were submitted. [`Unit::read`] makes units that share a transaction with their neighbours, and says what that
//! changes.
//!
//! - **An error of the server** hits only its unit. [`PipelineOutcome::failure`] says which statement failed; the transaction was
//!   rolled back. A unit that leaves a transaction open is a bug. Its connection is closed, and all behind it fail.
//! - **Deadlines.** Each unit has one. When a unit that was sent is overdue, the connection is closed, and all that was sent on it
//!   fails with [`ChannelError::Lost`]: whether PostgreSQL carries it out is not known. A unit that was not sent fails by itself
//!   with [`ChannelError::Overdue`], at the latest when the pipeline that is out has returned.
//! - **Bounds.** The queue takes [`CHANNEL_UNITS_MAX`] units of [`CHANNEL_BYTES_MAX`] bytes; further ones fail at once with
//!   [`ChannelError::Full`].
//! - **Cancelling.** A unit whose [`Reply`] was dropped, or whose [`CancelFlag`] is set, is not sent if it was not sent yet.
//! - **Connecting.** The connection is made when a unit waits for it, and closed when nobody has used it for [`CHANNEL_IDLE`].
//!   Where it cannot be made, all units that wait fail; the next attempt follows after a pause. Units that were not sent when a
//!   connection is lost wait for the next one.
//! - **Statements** are prepared once on each connection, while their first use travels unprepared. After an error that says that
//!   prepared statements do not fit any more the connection is replaced.

mod driver;
mod queue;
mod session;
mod statements;
mod unit;

pub use unit::Unit;

use super::{
    connect::{ConnectError, TargetSource},
    remedy::{Remedy, remedy},
    schema::owner::{SchemaSettings, UntrustedSchema},
};
use crate::{
    limits::{CHANNEL_BACKOFF_MAX, CHANNEL_BACKOFF_MIN, CHANNEL_BYTES_MAX, CHANNEL_IDLE, CHANNEL_UNITS_MAX},
    rt::{self, Notify},
    state::cancel_flag::CancelFlag,
};
use forebay_pgwire::{Error, PipelineOutcome};
use queue::{Bounds, Ticket, UnitQueue, Unsent};
use session::Session;
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

const BOUNDS: Bounds = Bounds {
    units: CHANNEL_UNITS_MAX,
    bytes: CHANNEL_BYTES_MAX,
    idle: CHANNEL_IDLE,
    backoff_min: CHANNEL_BACKOFF_MIN,
    backoff_max: CHANNEL_BACKOFF_MAX,
};

/// Where a channel connects to, and how.
#[derive(Clone)]
pub struct ChannelOptions {
    /// The database.
    pub target: TargetSource,
    /// The schema that its units use, and whom it may belong to.
    pub schema: SchemaSettings,
    /// What its session is called in `pg_stat_activity`, unless the target says.
    pub application_name: &'static str,
    /// How long connecting may take, unless the target says less.
    pub connect_timeout: Duration,
    /// PostgreSQL's time for one statement. Let it be less than the deadlines of units: then a slow statement fails alone.
    pub statement_timeout: Duration,
}

/// Why a unit has no outcome.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChannelError {
    /// Too many units wait. Next step: try again later.
    #[error("too many requests wait for the connection to PostgreSQL")]
    Full,
    /// The deadline passed before it could be sent. Next step: try again later.
    #[error("the connection to PostgreSQL was busy until the deadline; nothing was sent")]
    Overdue,
    /// It was given up before it was sent.
    #[error("the request was given up before it was sent")]
    Cancelled,
    /// The private PostgreSQL is being made. Next step: try again later.
    #[error("the private PostgreSQL does not take a connection yet")]
    NotReady,
    /// No connection could be made; nothing was sent. Next step: by the error.
    #[error("there is no connection to PostgreSQL: {0}")]
    Connect(Arc<Error>),
    /// A stranger has power over the schema; nothing was sent. Next step: as the text says.
    #[error("there is no connection to PostgreSQL: {0}")]
    Untrusted(UntrustedSchema),
    /// The connection was lost, or given up, after it had been sent. Whether it was carried out is not known. Next step: look.
    #[error("the connection was lost before PostgreSQL answered, which may have carried the request out: {0}")]
    Lost(Arc<Error>),
    /// PostgreSQL refused it, or it cannot be sent. Nothing was changed. Next step: by the error.
    #[error(transparent)]
    Postgres(#[from] Arc<Error>),
    /// It left a transaction open, which was rolled back. Next step: report the bug.
    #[error("a request left a transaction open, and its connection was closed")]
    LeftTransaction,
}

impl ChannelError {
    /// What it asks for.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Full | Self::Overdue | Self::Cancelled | Self::NotReady => Remedy::BackOff,
            Self::Connect(error) | Self::Lost(error) | Self::Postgres(error) => remedy(error),
            Self::Untrusted(_) | Self::LeftTransaction => Remedy::Pause,
        }
    }
}

impl From<Error> for ChannelError {
    fn from(error: Error) -> Self {
        Self::Postgres(Arc::new(error))
    }
}

impl From<ConnectError> for ChannelError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Postgres(error) => Self::Connect(Arc::new(error)),
            ConnectError::Untrusted(untrusted) => Self::Untrusted(untrusted),
        }
    }
}

impl From<Unsent> for ChannelError {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Cancelled => Self::Cancelled,
            Unsent::Overdue => Self::Overdue,
        }
    }
}

/// What a unit comes to.
pub type UnitResult = Result<PipelineOutcome, ChannelError>;

/// A handle to a channel. When the last one is dropped, the channel ends once its units are answered.
#[derive(Clone)]
pub struct Channel(Rc<Handle>);

struct Handle {
    shared: Rc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.is_closing.set(true);
        self.shared.wake.notify();
    }
}

/// What handles and driver share.
struct Shared {
    queue: RefCell<UnitQueue<Rc<Request>>>,
    wake: Notify,
    is_closing: Cell<bool>,
}

impl Channel {
    /// A channel on the calling thread, which must run a runtime of [`rt`]. It connects when the first unit is submitted.
    #[must_use]
    pub fn open(options: ChannelOptions) -> Self {
        let queue = RefCell::new(UnitQueue::new(BOUNDS));
        let shared = Rc::new(Shared { queue, wake: Notify::default(), is_closing: Cell::new(false) });
        rt::spawn(driver::drive(Rc::clone(&shared), options));
        Self(Rc::new(Handle { shared }))
    }

    /// Queues a unit, which must be answered by `deadline`.
    ///
    /// The unit is sent as soon as the pipeline that is out has returned. A task that wants to have several units in one
    /// pipeline submits them before it waits for the first reply.
    pub fn submit(&self, unit: Unit, deadline: Instant, cancel_flag: Option<&CancelFlag>) -> Reply {
        let request = Rc::new(Request { cancel_flag: cancel_flag.cloned(), ..Request::default() });
        match unit.checked() {
            Err(error) => request.answer(Err(error.into())),
            Ok(unit) => {
                let bytes = unit.bytes();
                request.unit.replace(Some(unit));
                match self.0.shared.queue.borrow_mut().push(Rc::clone(&request), bytes, deadline) {
                    Ok(()) => self.0.shared.wake.notify(),
                    Err(refused) => refused.answer(Err(ChannelError::Full)),
                }
            }
        }
        Reply(request)
    }

    /// Units that are queued or in flight.
    #[must_use]
    pub fn open_units(&self) -> usize {
        self.0.shared.queue.borrow().len()
    }
}

/// A unit under way.
#[derive(Default)]
struct Request {
    /// The unit, until it is sent; one that only reads until it is answered.
    unit: RefCell<Option<Unit>>,
    /// Whether it is sent again, since the server has skipped it behind a unit that failed.
    is_repeated: Cell<bool>,
    cancel_flag: Option<CancelFlag>,
    /// Whether the reply was dropped.
    is_abandoned: Cell<bool>,
    result: Cell<Option<UnitResult>>,
    waker: Cell<Option<Waker>>,
}

impl Request {
    /// Adds the unit to the session's next pipeline.
    fn encode(&self, session: &mut Session) -> Result<(), Error> {
        let mut unit = self.unit.borrow_mut();
        let Some(sent) = unit.as_ref() else { panic!("a unit that may be sent is there") };
        session.add(sent, self.is_repeated.get())?;
        if !sent.is_read() {
            *unit = None;
        }
        Ok(())
    }

    fn answer(&self, result: UnitResult) {
        self.unit.take();
        self.result.set(Some(result));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Ticket for Rc<Request> {
    fn is_cancelled(&self) -> bool {
        self.is_abandoned.get() || self.cancel_flag.as_ref().is_some_and(CancelFlag::is_set)
    }
}

/// The result of a unit, to be awaited once. Dropping it gives the unit up.
#[must_use = "a unit whose reply is dropped is given up"]
pub struct Reply(Rc<Request>);

impl Future for Reply {
    type Output = UnitResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<UnitResult> {
        match self.0.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                self.0.waker.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.0.is_abandoned.set(true);
    }
}

//! Ends what waits too long: one sweep a thread, in place of a timer for every read.
//!
//! A read that must end is ended by shutting its socket down, never by dropping it: the kernel still owns its buffer.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_uring::net::TcpStream;

use super::run::Run;

/// Time between two sweeps: how much longer than `--answer-timeout` an answer may be waited for.
const SWEEP: Duration = Duration::from_millis(20);

/// What the watchdog sees of a connection.
#[derive(Default)]
pub(crate) struct Watched {
    /// The open socket.
    pub(crate) stream: RefCell<Option<Rc<TcpStream>>>,
    /// Since when it waits for an answer, in nanoseconds of the run.
    pub(crate) waits_since_ns: Cell<Option<u64>>,
}

/// Sweeps over a thread's connections until it is aborted.
pub(crate) async fn watch(run: Arc<Run>, connections: Vec<Rc<Watched>>) {
    let patience_ns = u64::try_from(run.args().answer_timeout.as_nanos()).unwrap_or(u64::MAX);
    loop {
        tokio::time::sleep(SWEEP).await;
        let now_ns = run.now_ns();
        let end_all = run.is_past_grace();
        for connection in &connections {
            let overdue =
                connection.waits_since_ns.get().is_some_and(|since| now_ns.saturating_sub(since) > patience_ns);
            if !overdue && !end_all {
                continue;
            }
            if let Some(stream) = connection.stream.borrow().as_ref() {
                // Not connected any more is what this is for.
                drop(stream.shutdown(Shutdown::Both));
            }
        }
    }
}

//! Ends reads that wait too long. Each thread has one periodic sweep instead of a timer for every read.
//!
//! The sweep shuts the socket down, which ends the read. Dropping the read would not do: the kernel still owns its buffer.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_uring::net::TcpStream;

use super::run::Run;

/// Time between two sweeps, and so how much longer than `--answer-timeout` a wait may last.
const SWEEP: Duration = Duration::from_millis(20);

/// The part of a connection that the watchdog uses.
#[derive(Default)]
pub(crate) struct Watched {
    /// The open socket.
    pub(crate) stream: RefCell<Option<Rc<TcpStream>>>,
    /// Since when the connection waits for a response, in nanoseconds since the start of the run.
    pub(crate) waits_since_ns: Cell<Option<u64>>,
}

/// Sweeps a thread's connections until the task is aborted.
pub(crate) async fn watch(run: Arc<Run>, connections: Vec<Rc<Watched>>) {
    let timeout_ns = u64::try_from(run.args().answer_timeout.as_nanos()).unwrap_or(u64::MAX);
    loop {
        tokio::time::sleep(SWEEP).await;
        let now_ns = run.now_ns();
        let end_all = run.is_past_grace();
        for connection in &connections {
            let overdue =
                connection.waits_since_ns.get().is_some_and(|since| now_ns.saturating_sub(since) > timeout_ns);
            if !overdue && !end_all {
                continue;
            }
            if let Some(stream) = connection.stream.borrow().as_ref() {
                // An error says that the socket is no longer connected, which is the purpose.
                drop(stream.shutdown(Shutdown::Both));
            }
        }
    }
}

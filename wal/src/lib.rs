//! Forebay's log: group commit on io_uring makes records durable, a reader returns them in order, and recovery goes on
//! after any crash.
//!
//! **It promises:**
//! - A record survives a crash of the process once its lane's durable ordinal has passed it. It survives a crash of the
//!   machine too, unless the log is opened with [`SyncMethod::None`](group::SyncMethod::None).
//! - A batch is in the log whole or not at all.
//! - A record that was never appended is never read.
//! - A segment stays until [`release`](keeper::KeeperHandle::release) names it. A segment with bytes that do not verify is
//!   set aside and never deleted.
//!
//! **It refuses:**
//! - a log of a later format;
//! - every append after a failed write or sync. The lane is poisoned, and a restart recovers it;
//! - growth beyond the quota.
//!
//! **It does not know** what a record means. It knows neither HTTP nor PostgreSQL.
//!
//! Each layer uses only what stands below it:
//!
//! ```text
//!   log            opens a log: recovers every lane and starts the keeper
//!     lane         appends, submits and takes completions, on the thread of one core
//!     keeper       the thread that makes segments ahead of need and releases drained ones
//!       segments   which segments exist; the quota
//!     recovery     reads the files of a lane: where it goes on, and what is wrong with it
//!     reader       returns records in order while others are written
//!       scan       finds frames in a segment's bytes; resynchronises behind damage
//!     group        group commit as a state machine without I/O
//!       buffer     block-aligned memory for a group
//!     ring         io_uring, and all of the crate's unsafe code
//!     tail_cache   the bytes that a lane wrote last
//!     storage      files and directories: a real file system, or a simulated one
//!     frame, segment, position, layout, limits   the format: docs/log-format.md
//!     finding, error                             what can be wrong
//!   presence       whether an open log's directories and segments are still there
//!   probe          which sync methods a file system supports, and which is faster; used before `log`
//! ```

pub mod buffer;
pub mod error;
pub mod finding;
pub mod frame;
pub mod group;
pub mod keeper;
pub mod lane;
pub mod layout;
pub mod limits;
pub mod log;
pub mod position;
pub mod presence;
pub mod probe;
pub mod reader;
pub mod recovery;
pub mod ring;
pub mod scan;
pub mod segment;
pub mod segments;
pub mod storage;
pub mod tail_cache;

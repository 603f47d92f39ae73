//! Forebay's log: records made durable by group commit on io_uring, read back in order, recovered after any crash.
//!
//! **Promises.** A record whose ordinal the lane calls durable survives a crash of the process, and (by
//! [`SyncMethod::Direct`](group::SyncMethod) and `Fdatasync`) of the machine. A batch is in the log whole or not at all. A
//! record that was never appended is never read. Nothing is removed before [`release`](keeper::KeeperHandle::release) says
//! so, and bytes that do not verify are set aside, never deleted.
//!
//! **Refuses.** A log of a newer format; anything after a failed write or sync (the lane is poisoned: restart); growth
//! beyond the quota.
//!
//! **Does not** know what a record means, nor HTTP, nor PostgreSQL.
//!
//! ```text
//!   log      opens: recovers every lane found, starts the keeper
//!   ├─ recovery   files of a lane -> where it goes on, findings
//!   ├─ keeper     thread that makes and releases segments ahead of need  ── segments  which exist, quota
//!   ├─ lane       append / submit / on_event, on its core's thread
//!   │  ├─ group      group commit as a state machine, no I/O  ── buffer  aligned chunks
//!   │  └─ ring       the raw io_uring rings; all unsafe code
//!   └─ reader     records in order, while they are being written  ── recent  a lane's last bytes, in memory
//!      └─ scan       bytes -> frames, resync behind damage
//!         └─ frame, segment, position, layout, limits     the format: docs/log-format.md
//!   probe    before: which sync methods the file system takes, which is faster
//!   storage   the seam below recovery, segments and reader: a real file system, or a simulated one
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
pub mod probe;
pub mod reader;
pub mod recent;
pub mod recovery;
pub mod ring;
pub mod scan;
pub mod segment;
pub mod segments;
pub mod storage;

//! What the threads of one daemon share.
//!
//! ```text
//!   shared ── lane_progress   how far each lane of the log is drained       mark
//!          ├─ drain_signal    cores wake the drain
//!          ├─ mailbox         the drain answers the cores, and so does the thread that asks PostgreSQL    pg_answer
//!          ├─ pulse           cores show the watchdog that they make progress
//!          ├─ cancel_flag     a core takes a request to PostgreSQL back
//!          └─ local_drain_state   what the data directory knows of the drain   database_id
//! ```

pub mod cancel_flag;
pub mod connection_count;
pub mod database_health;
pub mod database_id;
pub mod drain_signal;
pub mod drain_view;
pub mod lane_progress;
pub mod local_drain_state;
pub mod log_view;
pub mod mailbox;
pub mod mark;
pub mod pg_answer;
pub mod pulse;
pub mod shared;

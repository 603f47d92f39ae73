//! What the threads of one daemon share, as narrow views. Each thread gets those that it uses.
//!
//! ```text
//!   log_view          the log: its lanes, its room            lane_progress   how far each lane is drained     mark
//!   drain_view        the drain: what waits, how it fares     drain_signal    cores wake the drain
//!   database_health   whether PostgreSQL answers              database_id     which database it is
//!   mailbox           what a core is told                     pg_answer       by the thread that asks PostgreSQL
//!   cancel_flag       a core withdraws a request to PostgreSQL    answer_to       whom to answer
//!   inbox             what is left for a thread                   commits         the drain tells the queue what is new
//!   unsent_bytes      answers that a thread has made and the cores have not sent
//!   pulse             cores show the watchdog that they make progress
//!   connection_count  open connections                  memory_shortage  whether requests find memory
//!   local_drain_state what the data directory knows of the drain
//!   delivery_state    whether delivery is paused             drain_point     how far all drainers are
//!   place             where the drain continues when a person decides
//!   log_identity      who the log is to PostgreSQL                incarnations    the starts of the data directory's daemon
//!   common_records    what copies of a log have in common
//! ```

pub mod answer_to;
pub mod cancel_flag;
mod checked_file;
pub mod commits;
pub mod common_records;
pub mod connection_count;
pub mod database_health;
pub mod database_id;
pub mod delivery_state;
pub mod drain_point;
pub mod drain_signal;
pub mod drain_view;
pub mod inbox;
pub mod incarnations;
pub mod lane_progress;
pub mod local_drain_state;
pub mod log_identity;
pub mod log_view;
pub mod mailbox;
pub mod mark;
pub mod memory_shortage;
pub mod pg_answer;
pub mod place;
pub mod pulse;
pub mod unsent_bytes;

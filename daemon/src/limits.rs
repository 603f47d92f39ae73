//! Every limit of the daemon in one place, with its reason. Limits of the HTTP and JSON parsers stand in `http` and `json`.

use std::time::Duration;

/// Connections that one core serves at once. More wait in the listener's backlog.
pub const CONNECTIONS_PER_CORE_MAX: u32 = 16_384;

/// Descriptors that connections leave for the log, PostgreSQL and everything else.
pub const DESCRIPTORS_KEPT: u64 = 256;

/// Descriptors for which the process's table has room from the start, if the limit allows so many: half a megabyte of kernel
/// memory.
pub const DESCRIPTOR_TABLE_MAX: u64 = 65_536;

/// Connections that may wait to be accepted, per core.
pub const LISTEN_BACKLOG: i32 = 4096;

/// How long a start waits for an address that is in use. After a daemon was killed, the kernel closes its rings, and the sockets
/// that they hold, in the background.
pub const BIND_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a connection's first read buffer: most requests fit. It is no power of two, because buffers at such distances would
/// share a few sets of the processor's caches.
pub const READ_BUFFER_BYTES: usize = 5 << 10;

/// Largest read buffer that a connection keeps between requests, in bytes.
pub const READ_BUFFER_KEPT_BYTES: usize = 64 << 10;

/// Least room for a read, in bytes.
pub const READ_ROOM_BYTES: usize = 2048;

/// Default of `--max-body-bytes`.
pub const BODY_BYTES_DEFAULT: u64 = 16 << 20;

/// Least value of `--max-body-bytes`: smaller bodies hold no useful push.
pub const BODY_BYTES_MIN: u64 = 1 << 10;

/// Most room for a read of a body that is processed as it arrives, in bytes.
pub const BODY_READ_BYTES: usize = 64 << 10;

/// Bytes in the budget for a piece of a streamed reply. A piece ends with the item that exceeds it.
pub const STREAM_PIECE_BYTES: usize = 256 << 10;

/// Bytes of buffers that each connection may have without counting against the budget: as much as the longest head, so that
/// nothing counts that a client without a token can bring about.
pub const CONNECTION_FREE_BYTES: usize = 16 << 10;

/// Default of `--memory-budget`: bytes that the connections of one core hold together, beyond [`CONNECTION_FREE_BYTES`] each.
pub const MEMORY_BUDGET_DEFAULT: usize = 32 << 20;

/// What a connection that holds no more than this wants comes out of the whole budget: a body of 64 KiB.
pub const SMALL_HELD_BYTES: usize = 64 << 10;

/// This part of the budget is for those alone: one in so many.
pub const SMALL_SHARE: usize = 16;

/// What a connection that holds no more than this wants for a body comes out of all the rest: a body of 1 MB, encoded or not.
pub const MEDIUM_HELD_BYTES: usize = 5 << 19;

/// This part of the budget is for those two alone: one in so many.
pub const MEDIUM_SHARE: usize = 8;

/// Bodies of unknown length that a core reads at once beyond a quarter of a megabyte, while they come fast. Each holds up to 2 MiB
/// before it is known to be large, and then waits for the rest.
pub const BODY_TURNS: usize = 2;

/// After so long in which no such body made way for the next, one more goes on beside them: they are slow.
pub const BODY_TURN_PATIENCE: Duration = Duration::from_secs(1);

/// The part of the budget that one token may hold while others wait: one in so many.
pub const TOKEN_SHARE: usize = 2;

/// What the largest body may take beside its own bytes: the window of its zstd decoder (8 MiB), buffers, and the list of what
/// was pushed.
pub const BODY_EXTRA_BYTES: u64 = 9 << 20;

/// How long bodies wait for memory before the slowest of those who hold some is refused, even if it is not too slow for what it
/// holds. Others give their memory back within a few writes to the disk.
pub const MEMORY_PATIENCE: Duration = Duration::from_secs(5);

/// How long a body waits for memory before it is refused with 503: until then many who were slower were refused for it.
pub const MEMORY_WAIT_MAX: Duration = Duration::from_secs(20);

/// The time over which the pace of a connection is measured that holds memory. On most ways a lost packet is sent again within it.
pub const PACE_PERIOD: Duration = Duration::from_secs(1);

/// While others wait for memory, a connection must move one in so many of the bytes that it holds each second.
pub const PACE_SHARE: u64 = 10;

/// How long `/ready` says so after a push was refused for want of memory: most balancers ask every few seconds.
pub const MEMORY_REFUSED_SHOWN: Duration = Duration::from_secs(5);

/// After so long without a refusal for want of memory the next one is logged again.
pub const MEMORY_REFUSED_LOGGED: Duration = Duration::from_secs(60);

/// Largest body of a request that has no use for one. It is thrown away; more is refused.
pub const UNWANTED_BODY_BYTES_MAX: u64 = 64 << 10;

/// A larger body may hold so many messages that the list of them is several times as large. It is not carried out while more
/// memory is held than may be.
pub const LISTED_BODY_BYTES: usize = 4 << 10;

/// Bytes of replies that a pass over the requests at hand writes before they leave, and of the largest reply that it writes at
/// once. A larger one is written as a whole if there is memory for it at once, else in parts of this size.
pub const REPLY_SMALL_BYTES: usize = 8 << 10;

/// Least value of `--memory-budget`, in bytes: the share for large bodies holds one of `max_body_bytes`.
#[must_use]
pub const fn memory_budget_min(max_body_bytes: u64) -> u64 {
    const ALL: u64 = (SMALL_SHARE * MEDIUM_SHARE) as u64;
    const LARGE: u64 = ALL - (SMALL_SHARE + MEDIUM_SHARE) as u64;
    max_body_bytes.saturating_add(BODY_EXTRA_BYTES).saturating_mul(ALL).div_ceil(LARGE)
}

/// How often the sweep checks the timeouts of connections. Timeouts are exact to this interval.
pub const CONNECTION_SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// How long an idle connection keeps its buffer.
pub const BUFFER_KEPT: Duration = Duration::from_millis(250);

/// Connections of a core that keep their buffer between requests, 5 MiB in all. Further ones give it back with each answer,
/// unless a token lets them in: to verify the token again costs more. Ten thousand connections that come at once, each with a
/// request, would take 50 MiB for a moment otherwise.
pub const BUFFERED_IDLE_PER_CORE_MAX: usize = 1024;

/// Connections that must close or give their buffers back before free memory is returned to the system. For fewer the calls
/// cost more than they free, unless no other connections follow.
pub const COLLECT_AFTER: usize = 256;

/// Default of `--idle-timeout`. It is longer than the 60 s of usual proxies, so they close first and no request meets a
/// connection that is being closed.
pub const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(75);

/// Default of `--request-timeout`: the time for a head, and the time over which a body's rate is measured. TCP sends a lost packet
/// again several times within it.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Least value of `--idle-timeout` and `--request-timeout`.
pub const CONNECTION_TIMEOUT_MIN: Duration = CONNECTION_SWEEP_INTERVAL;

/// Least average rate of a body, in bytes a second. Every working line is far faster, and a client cannot hold a connection by
/// sending a byte now and then.
pub const BODY_BYTES_PER_S_MIN: u64 = 1 << 10;

/// How long a client may read nothing of its answer before its connection is closed.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection is read after the answer that closes it: a client that sends all before it reads is to find the
/// answer. Closing a socket with unread bytes would destroy it.
pub const LINGER: Duration = Duration::from_secs(30);

/// How long nothing may come in that time: then the client is not sending any more.
pub const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// Longest `sub` of a JWT in bytes, as long as the other names of a message. It is stored with each message. A token with a longer
/// one is refused: a truncated `sub` could name somebody else.
pub const PRODUCER_SUB_BYTES_MAX: usize = 255;

/// Turns of the loop for which a commit window stays open at least, for clients that were just answered: an answer, the way of
/// the next request, and its read take a few turns each.
pub const WINDOW_TURNS_MIN: usize = 4;

/// Turns for which it stays open at most, while more pushes come. A turn takes one or two microseconds, so all of them take
/// less than a write.
pub const WINDOW_TURNS_MAX: usize = 24;

/// Turns before the thread pauses, where it has not paused early: with the first the answers leave, with the second the
/// requests come that are there already.
pub const WINDOW_BEFORE_PAUSE_TURNS: usize = 2;

/// Longest pause. A pause is half as long as the last write, so on a fast disk it is short.
pub const WINDOW_PAUSE_MAX: Duration = Duration::from_micros(50);

/// A pause that would be shorter is left out: to fall asleep and to wake up takes a few microseconds itself.
pub const WINDOW_PAUSE_MIN: Duration = Duration::from_micros(20);

/// Expected pushes from which on there is no pause: with so many there is always something to do meanwhile.
pub const WINDOW_PAUSE_PUSHES_MAX: usize = 64;

/// Pushes answered by a write from which on the thread pauses before it reads again: fewer clients are back before the pause
/// is over.
pub const WINDOW_EARLY_PAUSE_PUSHES: usize = 8;

/// Bytes at which a commit window closes: to write them takes the disk longer than to begin.
pub const WINDOW_BYTES: usize = 64 << 10;

/// Messages of an NDJSON body that its answer lists. For more messages it gives their number only.
pub const NDJSON_LISTED_MAX: u64 = 10_000;

/// Bytes of an NDJSON body that may wait for the disk before more is read.
pub const NDJSON_WINDOW_BYTES: usize = 256 << 10;

/// Largest factor by which a compressed NDJSON body may expand, beyond [`EXPANSION_FREE_BYTES`]. Repetitive lines expand
/// by less, and a bomb by more.
pub const EXPANSION_MAX: u64 = 200;

/// Bytes to which such a body may expand by any factor.
pub const EXPANSION_FREE_BYTES: u64 = 64 << 10;

/// Binary logarithm of the largest window of a zstd body: 8 MiB, which RFC 8878 section 3.1.1.1.2 recommends to support.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes that a zstd decoder has before its window is known: its context (160 KiB) and twice the largest block, which RFC 8878
/// section 3.1.1.2.4 bounds by 128 KiB.
pub const ZSTD_BEGIN_BYTES: usize = 416 << 10;

/// Bytes that a gzip decoder has: a window of 32 KiB, and its tables.
pub const GZIP_BYTES: usize = 48 << 10;

/// Pipelined requests that are answered with one write. The next write answers further ones.
pub const PIPELINED_MAX: usize = 256;

/// Most messages of an NDJSON body in one batch. Between two batches other connections append their pushes.
pub const NDJSON_BATCH_MESSAGES: usize = 256;

/// Bytes of payload at which such a batch ends earlier.
pub const NDJSON_BATCH_BYTES: usize = 256 << 10;

/// Most rows of one drain transaction over many partitions.
pub const ROUND_ROWS_MAX: usize = 50_000;

/// Most rows of one drain transaction over few partitions. More rows are no faster there, and they are in memory twice.
pub const ROUND_ROWS_FEW_PARTITIONS: usize = 16_384;

/// Rows for each partition by which a transaction is sized, between those two limits. It updates one row for each of its
/// partitions, so more partitions need more rows to share that cost.
pub const ROUND_ROWS_PER_PARTITION: usize = 8;

/// Most bytes of payload of one drain transaction. A larger message goes alone. Two rounds are in memory: the one that
/// PostgreSQL works on, and the next.
pub const ROUND_BYTES_MAX: usize = 8 << 20;

/// Bytes of records that are read from a lane at once. A larger record is read alone.
pub const LOAD_BYTES: usize = 240 << 10;

/// Most records that are read from a lane at once.
pub const LOAD_ROWS: usize = 4096;

/// How long all lanes wait for a lane that cannot be read before they are drained without it, which costs order. A disk that is
/// reset, or a mount that comes late, is back by then.
pub const LANE_PATIENCE: Duration = Duration::from_secs(5);

/// The same during shutdown, where the grace is for lanes that can be read.
pub const LANE_PATIENCE_AT_END: Duration = Duration::from_millis(500);

/// Time between attempts to read such a lane.
pub const LANE_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Time between attempts to read a lane that was left out.
pub const LANE_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes of other drainers' records that a drainer skips before it lets another one run.
pub const PASS_BYTES: usize = 4 << 20;

/// Most connections of the drain. Each is a backend of PostgreSQL and has its own rounds in memory.
pub const DRAIN_CONNECTIONS_MAX: u8 = 16;

/// Bytes of COPY data that are passed to the connection at once.
pub const COPY_CHUNK_BYTES: usize = 256 << 10;

/// Least value of `--postgres-timeout-ms`. A shorter one would end statements that a busy server still answers.
pub const POSTGRES_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// How often a transaction that was rolled back for no fault of its own is repeated at once. Later attempts wait in between.
pub const REPEATS_AT_ONCE: u32 = 3;

/// Most rows of a round in which rows are refused. PostgreSQL takes its good rows twice, once to find the others, and holds
/// the locks of its partitions meanwhile; it commits soon, so that figures move and good messages arrive.
pub const SIFT_ROWS_MAX: usize = 2000;

/// Groups of rows that are tried with one round trip at most. PostgreSQL's answers to all of them fit into a socket's buffer.
pub const SIFT_GROUPS_MAX: usize = 64;

/// Bytes of such groups that are sent together, save that one group may be larger. They fit into a socket's buffer, so that
/// neither side waits for the other one to read.
pub const SIFT_FLIGHT_BYTES: usize = 64 << 10;

/// Rows that are tried one by one with one statement at most, where that is possible.
pub const SIFT_BULK_ROWS_MAX: usize = 1000;

/// Bytes of payload of such rows at most, save that a single row may be larger.
pub const SIFT_BULK_BYTES: usize = 1 << 20;

/// How often a row has to fail alone, in as many transactions, before it is taken to be the cause of an error that may be
/// PostgreSQL's trouble.
pub const LONE_FAILURES: u32 = 3;

/// Pause between those transactions. What passes by itself, such as a deadlock, is over then, and others are not held up for
/// long.
pub const LONE_FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Rows that are tried alone before the trouble is taken for PostgreSQL's, where none is accepted.
pub const SIFT_SAMPLES_MAX: usize = 64;

/// Time after which few further rows are tried in a transaction in which none was accepted: each try waits for a lock, or for
/// [`trial_timeout`].
pub const SIFT_PATIENCE: Duration = Duration::from_secs(2);

/// Rows that are tried alone in such a transaction at least: one of them may be the only one that waits.
pub const SIFT_LATE_SAMPLES: usize = 3;

/// PostgreSQL's time for a statement that tries rows or names, with `statement_timeout` for all others. Everybody waits while a
/// row is tried whose trigger sleeps. No row takes so long by itself.
#[must_use]
pub fn trial_timeout(statement_timeout: Duration) -> Duration {
    const PART: u32 = 20;
    const LEAST: Duration = Duration::from_secs(1);
    (statement_timeout / PART).max(LEAST).min(statement_timeout)
}

/// Rounds that are sifted after a row was set aside that took too long: the next such row costs seconds then, not the whole
/// `statement_timeout`.
pub const SIFTS_AFTER_TIMEOUT: u32 = 64;

/// Lost sessions in a row, each with rows under way, after which single rows are suspected.
pub const SUSPICIOUS_LOSSES: u32 = 2;

/// Lost sessions in a row up to which the search for such rows goes on without a longer and longer wait: some ten for each of them.
pub const SEARCH_LOSSES_MAX: u32 = 200;

/// Messages refused in a row, with none accepted, after which the schema is looked at again, and after which a rule is taken to
/// refuse all of them.
pub const REFUSED_IN_A_ROW: u64 = 1000;

/// Time between log lines that say that all messages are refused.
pub const REFUSALS_ERROR_INTERVAL: Duration = Duration::from_secs(60);

/// Time between log lines about refused messages otherwise.
pub const REFUSALS_WARN_INTERVAL: Duration = Duration::from_secs(1);

/// Ids that are passed over at once, at most, where a sequence stands behind the ids of its table. To pass over one takes
/// PostgreSQL a few microseconds.
pub const IDS_PASSED_MAX: usize = 1 << 17;

/// Time between attempts to create a queue or partition that PostgreSQL did not create.
pub const NAME_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How often that time doubles where an attempt costs the session, or seconds: to a good minute.
pub const NAME_RETRY_DOUBLINGS: u32 = 6;

/// First wait between attempts to reach PostgreSQL.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest wait between attempts to reach PostgreSQL.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Time between checks of a paused drain whose cause only a person can correct.
pub const PAUSE_INTERVAL: Duration = Duration::from_secs(5);

/// Time between looks of a session at the schema, which somebody may change meanwhile. A look costs a few milliseconds, in which the
/// drain sends nothing.
pub const SCHEMA_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Time after which it is logged again that log and database do not fit. It is long enough not to fill a log, and short enough
/// for whoever looks into it.
pub const MISMATCH_REMINDER_INTERVAL: Duration = Duration::from_secs(60);

/// Units that wait in a channel to PostgreSQL at most. A channel carries some 10,000 units a second, so that these are sent
/// within a tenth of a second.
pub const CHANNEL_UNITS_MAX: usize = 1024;

/// Bytes of those units at most. They are held twice for a moment, as values and as messages.
pub const CHANNEL_BYTES_MAX: usize = 16 << 20;

/// How long a channel keeps a connection that nobody uses: a person who looks at dead letters page by page comes back sooner.
pub const CHANNEL_IDLE: Duration = Duration::from_secs(30);

/// Pause between attempts of a channel to connect: the first, …
pub const CHANNEL_BACKOFF_MIN: Duration = BACKOFF_MIN;

/// … and the longest. Somebody waits for it, so it is shorter than the drain's.
pub const CHANNEL_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Channels that the thread `postgres` shares among its requests: one for a request that takes long, and one beside it.
pub const POOL_CHANNELS: usize = 2;

/// Requests that the cores may have made of that thread, and that are not answered; more are refused. Only people make them.
/// Those of them that work on large values take room for that first; each of the others has [`PG_WORK_FREE_BYTES`].
pub const PG_REQUESTS_MAX: usize = 64;

/// Bytes of large values that these requests work on together: the largest dead letter, or several smaller ones. While it is
/// worked on, a value is in memory about four times.
pub const PG_WORK_BYTES_MAX: usize = 32 << 20;

/// Up to so many bytes a value is not large: a page of 100 dead letters.
pub const PG_WORK_FREE_BYTES: usize = STREAM_PIECE_BYTES;

/// Bytes in the budget for what is said of a dead letter that was put back: PostgreSQL's reason has 16 KiB at most.
pub const RETRY_ANSWER_BYTES: usize = 64 << 10;

/// How long each unit of such a request may take, the wait for its turn and for a connection included.
pub const PG_REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// PostgreSQL's time for one statement of it, unless `--postgres-timeout-ms` is less.
pub const PG_REQUEST_STATEMENT_TIMEOUT: Duration = Duration::from_secs(8);

// PostgreSQL's word comes first: then a slow statement fails alone, and the connection stays.
const _: () = assert!(PG_REQUEST_STATEMENT_TIMEOUT.as_millis() < PG_REQUEST_DEADLINE.as_millis());

/// Bytes of messages that a pop is answered with at most, as far as the size of the queue's messages is known; one is handed out in
/// any case.
pub const POP_BYTES_MAX: u64 = 4 << 20;

/// Bytes of answers to pops that all clients together have not taken, beyond which nothing more is taken for any of them.
pub const UNSENT_BYTES_MAX: usize = 32 << 20;

/// Rounds that look for duplicates before they copy, after the drain met one.
pub const PROBE_ROUNDS: u32 = 64;

/// Rounds that ask PostgreSQL for the last number of each partition, after one was not as expected: another daemon writes to it.
pub const CAREFUL_ROUNDS: u32 = 16;

/// How long the allocator keeps unused memory. Its default of a second is too long: in that time a drain frees a third of the
/// daemon's memory. Returning memory at once would double the kernel calls of a push.
pub const FREE_MEMORY_KEPT: Duration = Duration::from_millis(10);

/// Commands that a running daemon carries out at once; people give them.
pub const CONTROL_CLIENTS_MAX: usize = 8;

/// Time for a request to come over the control socket, and for its reply to leave.
pub const CONTROL_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a decision waits for the drain: for a statement under way to end, and for PostgreSQL.
pub const DECISION_PATIENCE: Duration = Duration::from_secs(120);

/// How long a command waits for the reply of a running daemon.
pub const CONTROL_REPLY_TIMEOUT: Duration = Duration::from_secs(150);

// The daemon's word comes first.
const _: () =
    assert!(DECISION_PATIENCE.as_secs() + 2 * CONTROL_REQUEST_TIMEOUT.as_secs() < CONTROL_REPLY_TIMEOUT.as_secs());

/// How long a push waits until it is settled that it is not kept, where the disk had no room for it. The keeper of segments
/// tries once a second. Beyond that the push is told that nobody knows.
pub const GIVE_UP_WAIT: Duration = Duration::from_secs(5);

/// Interval of the sweep that ends the waits for commits.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(20);

/// Sweeps without a push after which a quiet lane writes a seal: 100 ms. It is soon enough that most kills find a sealed log, and
/// a busy lane writes no seals.
pub const QUIET_SWEEPS_MAX: u32 = 5;

/// Checks, one a second, without a turn of the loop of a core after which the core counts as stalled. The loop turns fifty times a
/// second.
pub const STALLED_CHECKS: u32 = 5;

/// How long a start waits for the lock of the data directory. The io_uring operations of a killed process may hold it for a
/// moment.
pub const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Time for connections to finish their current request at shutdown.
pub const CONNECTIONS_GRACE: Duration = Duration::from_secs(2);

/// Time for the replies that end a wait at shutdown to leave, after [`CONNECTIONS_GRACE`]: a few turns of a core's loop.
pub const LAST_REPLIES_GRACE: Duration = Duration::from_millis(100);

/// Segments have a multiple of this, in bytes, and this at least: smaller ones would only be rolled over more often.
pub const SEGMENT_STEP_BYTES: u64 = 1 << 20;

/// Segments that the quota should hold for each lane: one in use and two ready leave room to drain.
pub const QUOTA_SEGMENTS_PER_LANE: u64 = 8;

/// Default of the log's quota: this share of the free space, in percent.
pub const QUOTA_FREE_SPACE_PERCENT: u64 = 80;

/// Largest default of the log's quota, in bytes.
pub const QUOTA_BYTES_DEFAULT_MAX: u64 = 64 << 30;

// A body of lines is read into a window that holds a whole batch of it.
const _: () = assert!(NDJSON_BATCH_BYTES <= NDJSON_WINDOW_BYTES);
// A first buffer is one that is kept, and a read fits into it.
const _: () = assert!(READ_ROOM_BYTES < READ_BUFFER_BYTES && READ_BUFFER_BYTES < READ_BUFFER_KEPT_BYTES);
const _: () = assert!(BODY_BYTES_MIN <= BODY_BYTES_DEFAULT);
// What each connection has is enough for its first buffer and the replies to what is in it.
const _: () = assert!(READ_BUFFER_BYTES + REPLY_SMALL_BYTES <= CONNECTION_FREE_BYTES);
// The largest body fits into the default of the budget.
const _: () = assert!(memory_budget_min(BODY_BYTES_DEFAULT) <= MEMORY_BUDGET_DEFAULT as u64);
const _: () = assert!(MEMORY_PATIENCE.as_millis() < MEMORY_WAIT_MAX.as_millis());
const _: () = assert!(ROUND_ROWS_FEW_PARTITIONS <= ROUND_ROWS_MAX && LOAD_ROWS <= ROUND_ROWS_FEW_PARTITIONS);
const _: () = assert!(LOAD_BYTES <= ROUND_BYTES_MAX);
const _: () = assert!(WINDOW_TURNS_MIN <= WINDOW_TURNS_MAX && WINDOW_BEFORE_PAUSE_TURNS <= WINDOW_TURNS_MIN);
const _: () = assert!(WINDOW_PAUSE_MIN.as_nanos() <= WINDOW_PAUSE_MAX.as_nanos());
const _: () = assert!(WINDOW_EARLY_PAUSE_PUSHES <= WINDOW_PAUSE_PUSHES_MAX);
const _: () = assert!(BACKOFF_MIN.as_millis() < BACKOFF_MAX.as_millis());
const _: () = assert!(LANE_PATIENCE_AT_END.as_millis() < LANE_PATIENCE.as_millis());
const _: () = assert!(JWT_LEEWAY_DEFAULT.as_millis() <= JWT_LEEWAY_MAX.as_millis());

/// Default of `--jwt-leeway`: how far the clocks of daemon and issuer may differ.
pub const JWT_LEEWAY_DEFAULT: Duration = Duration::from_secs(60);

/// Largest value of `--jwt-leeway`, a day: clocks that differ by more are wrong and must be corrected.
pub const JWT_LEEWAY_MAX: Duration = Duration::from_secs(24 * 3600);

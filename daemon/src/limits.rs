//! Every limit of the daemon in one place, with its reason.

use std::time::Duration;

/// Connections one core serves at once; more wait in the listener's backlog.
pub const CONNECTIONS_PER_CORE_MAX: u32 = 16_384;

/// Descriptors that are left for the log, PostgreSQL and the rest when connections are counted against the limit.
pub const DESCRIPTORS_KEPT: u64 = 256;

/// Descriptors that the process's table has room for from the start, if so many may be open: half a megabyte of the kernel's.
pub const DESCRIPTOR_TABLE_MAX: u64 = 65_536;

/// Connections that may wait to be accepted, per core.
pub const LISTEN_BACKLOG: i32 = 4096;

/// How long the address may still be that of a daemon which was killed: the kernel puts its rings, and the sockets that they
/// hold, away in the background.
pub const BIND_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes a connection's read buffer starts with: most requests fit. No power of two: buffers that far apart would all share a
/// few sets of the processor's caches.
pub const READ_BUFFER_BYTES: usize = 5 << 10;

/// Bytes a read buffer keeps between requests; a larger one is given back.
pub const READ_BUFFER_KEPT_BYTES: usize = 64 << 10;

/// Least room offered to a read, in bytes.
pub const READ_ROOM_BYTES: usize = 2048;

/// Default bound of a request's body, in bytes.
pub const BODY_BYTES_DEFAULT: u64 = 16 << 20;

/// Most room offered to a read of a body that is taken as it comes.
pub const BODY_READ_BYTES: usize = 64 << 10;

/// Bytes in the budget for a piece of a streamed reply: more than most pieces have.
pub const STREAM_PIECE_BYTES: usize = 64 << 10;

/// Bytes of requests and answers that a core holds for its connections, beyond [`READ_BUFFER_BYTES`] each, before bodies
/// wait to be read. With one body beyond it, two cores and what the log keeps, the daemon stays under 64 MiB with usual loads.
pub const IN_FLIGHT_BYTES_PER_CORE: usize = 8 << 20;

/// How long a body waits to be read before it is refused with 503: what is held is given back within the time of a few
/// writes to the disk, unless those who hold it are slow.
pub const IN_FLIGHT_PATIENCE: Duration = Duration::from_secs(5);

/// How often connections are looked at that may have taken too long; times are kept to within this.
pub const CONNECTION_SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// How long a connection keeps its buffer when its client says nothing more.
pub const BUFFER_KEPT: Duration = Duration::from_millis(250);

/// Connections of a core that keep their buffer between requests, 5 MiB in all. Further ones give it back with each answer,
/// unless a token lets them in: to verify the token again costs more. Ten thousand connections that come at once, each with a
/// request, would take 50 MiB for a moment otherwise.
pub const BUFFERED_IDLE_PER_CORE_MAX: usize = 1024;

/// Connections that go, or give their buffers back, after which free memory is: with fewer it is not worth the calls, until
/// nobody follows them.
pub const COLLECT_AFTER: usize = 256;

/// Default of `--idle-timeout`: more than the 60 s of usual proxies, so that they close first and no request meets a
/// connection that is being closed.
pub const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(75);

/// Default of `--request-timeout`: time for a head, and over which a body's rate is taken. Packets that are lost are sent
/// again several times within it.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Least of both.
pub const CONNECTION_TIMEOUT_MIN: Duration = CONNECTION_SWEEP_INTERVAL;

/// Bytes that a body must bring in a second, on the average: far less than any line that is up, and enough that nobody holds
/// a connection for the price of a byte now and then.
pub const BODY_BYTES_PER_S_MIN: u64 = 1 << 10;

/// How long a client may take none of its answer before it is cut.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client is listened to, and …
pub const LINGER: Duration = Duration::from_secs(2);

/// … how much of what it sends is thrown away, after an answer with which the connection closes: a socket closed on bytes that
/// nobody has read takes the answer along.
pub const LINGER_BYTES_MAX: usize = 1 << 20;

/// Bytes of a JWT's `sub`, which is kept with each message: as many as the other names of a message have. A token with a longer
/// one is refused, for one that was cut might be somebody else's.
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

/// Messages of an NDJSON body that its answer lists; with more of them it only says how many.
pub const NDJSON_LISTED_MAX: u64 = 10_000;

/// Bytes of an NDJSON body that are taken before those before are durable.
pub const NDJSON_WINDOW_BYTES: usize = 256 << 10;

/// How many times as large as it came a compressed NDJSON body may become, …
pub const EXPANSION_MAX: u64 = 200;

/// … beyond so many bytes, where it does not matter.
pub const EXPANSION_FREE_BYTES: u64 = 1 << 20;

/// Logarithm of the largest window of a zstd body: 8 MiB, as RFC 8878 section 3.1.1.1.2 asks of everybody.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Pipelined requests answered with one write; more are answered with the next.
pub const PIPELINED_MAX: usize = 256;

/// Messages of an NDJSON body appended as one batch at most: batches interleave with other connections' pushes.
pub const NDJSON_BATCH_MESSAGES: usize = 256;

/// Bytes of payload at which such a batch is closed before.
pub const NDJSON_BATCH_BYTES: usize = 256 << 10;

/// Rows of one drain transaction at most, where each brings [`ROUND_ROWS_PER_PARTITION`] to a partition …
pub const ROUND_ROWS_MAX: usize = 50_000;

/// … and at most otherwise: with few partitions more are no faster, and they are held in memory twice.
pub const ROUND_ROWS_FEW_PARTITIONS: usize = 16_384;

/// A transaction updates a row for each of its partitions, whatever it brings them: more partitions want more rows.
pub const ROUND_ROWS_PER_PARTITION: usize = 8;

/// Bytes of payload of one drain transaction at most; one larger message goes alone. Twice that is held while PostgreSQL is
/// at work: this round, and the next.
pub const ROUND_BYTES_MAX: usize = 8 << 20;

/// Bytes of records read from a lane at once; a larger record is read alone.
pub const LOAD_BYTES: usize = 240 << 10;

/// Records read from a lane at once, however small.
pub const LOAD_ROWS: usize = 4096;

/// How long all lanes wait for one that cannot be read before they are drained without it, which costs order: a disk that
/// is reset, or a mount that comes late, is back by then.
pub const LANE_PATIENCE: Duration = Duration::from_secs(5);

/// The same while the daemon ends: the grace is for what can be read.
pub const LANE_PATIENCE_AT_END: Duration = Duration::from_millis(500);

/// Time between attempts to read such a lane …
pub const LANE_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// … and between looks at one that is left out.
pub const LANE_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes of others' records that a drainer passes over before it lets another one go on.
pub const PASS_BYTES: usize = 4 << 20;

/// Connections that the drain may copy over: each is a backend of PostgreSQL's, and has rounds of its own in memory.
pub const DRAIN_CONNECTIONS_MAX: u8 = 16;

/// Bytes of COPY data handed to the connection at once.
pub const COPY_CHUNK_BYTES: usize = 256 << 10;

/// Least time that PostgreSQL may be given for a statement.
pub const POSTGRES_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// How often a transaction is repeated at once that was rolled back through nobody's fault, before it waits between.
pub const REPEATS_AT_ONCE: u32 = 3;

/// Back-off between attempts to reach PostgreSQL: the first, and the longest.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// See [`BACKOFF_MIN`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Time between looks at a paused drain whose cause only a person can mend.
pub const PAUSE_INTERVAL: Duration = Duration::from_secs(5);

/// Errands to PostgreSQL that wait for their turn; more are refused. Only people ask for them.
pub const ERRANDS_WAITING_MAX: usize = 64;

/// How long an errand may wait for its turn, for a connection, and for each of its statements.
pub const ERRAND_DEADLINE: Duration = Duration::from_secs(10);

/// Rounds that look for duplicates first after one was met.
pub const PROBE_ROUNDS: u32 = 64;

/// Rounds that ask how far partitions are numbered after it was not as believed: somebody else writes to them.
pub const CAREFUL_ROUNDS: u32 = 16;

/// How long the allocator keeps memory that nothing uses. Of its own it would be a second, in which a drain frees a third of
/// all that the daemon then has; at once would be as good for that, and cost pushes twice as many calls of the kernel.
pub const FREE_MEMORY_KEPT: Duration = Duration::from_millis(10);

/// Step of the sweep that ends the wait for commits.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(20);

/// Sweeps without a push after which a lane is sealed, 100 ms: soon enough that a daemon which is killed at some time has
/// most likely said what was durable, and so seldom that a seal costs a busy lane nothing.
pub const QUIET_SWEEPS_MAX: u32 = 5;

/// Checks, one a second, without a turn of the loop of a core after which the core counts as stalled. The loop turns fifty times a
/// second.
pub const STALLED_CHECKS: u32 = 5;

/// How long a second start waits for the lock of the first: a killed process' io_uring work may hold it for a moment.
pub const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Time that connections get at shutdown to finish the request they are in.
pub const CONNECTIONS_GRACE: Duration = Duration::from_secs(2);

/// Time for the replies that end a wait at shutdown to leave, after [`CONNECTIONS_GRACE`]: a few turns of a core's loop.
pub const LAST_REPLIES_GRACE: Duration = Duration::from_millis(100);

/// Segments have a multiple of this, in bytes, and this at least: smaller ones would only be rolled over more often.
pub const SEGMENT_STEP_BYTES: u64 = 1 << 20;

/// Segments the quota should hold for each lane, so that one being filled and two being ready leave room to drain.
pub const QUOTA_SEGMENTS_PER_LANE: u64 = 8;

/// Default of the log's quota: this share of the free space, in percent, …
pub const QUOTA_FREE_SPACE_PERCENT: u64 = 80;
/// … but not more than this many bytes.
pub const QUOTA_BYTES_DEFAULT_MAX: u64 = 64 << 30;

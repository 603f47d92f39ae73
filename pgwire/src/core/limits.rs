//! Every bound of the client, in one place, with its reason.

/// Longest backend message taken once a session is authenticated, in bytes, header included.
///
/// A row may hold a large payload, so this is generous; it stops a corrupt length word from reserving gigabytes.
pub const MESSAGE_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Longest backend message taken before authentication has ended, in bytes.
///
/// Whoever answers is not yet known to be PostgreSQL. An HTTP server's `HTTP/1.1 400` reads as a message of 1.4 GB and
/// is refused by this bound.
pub const STARTUP_MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// Smallest room offered to the kernel for a read, in bytes.
pub const READ_CHUNK_BYTES: usize = 32 * 1024;

/// Bytes sealed at once on an encrypted connection: four records of TLS. More waits until these were sent.
pub const TLS_SEAL_BYTES: usize = 64 * 1024;

/// Longest text kept of one field of an error or notice, in bytes; the rest is cut off.
///
/// PostgreSQL puts whole values into DETAIL, and whatever is kept here ends in logs and dead letters.
pub const DIAGNOSTIC_FIELD_MAX_BYTES: usize = 16 * 1024;

/// Notices kept for `take_notices`; the oldest go first, and are counted.
pub const NOTICES_MAX: usize = 64;

/// Notifications kept for `take_notifications`; the oldest go first, and are counted.
pub const NOTIFICATIONS_MAX: usize = 64;

/// Run-time parameters remembered; a server reports about 15.
pub const PARAMETERS_MAX: usize = 128;

/// Longest run-time parameter remembered, in bytes; a longer one is forgotten, so that it is absent instead of wrong.
pub const PARAMETER_VALUE_MAX_BYTES: usize = 4 * 1024;

/// Largest payload of one CopyData message, in bytes. COPY is a byte stream, so longer buffers are cut anywhere.
///
/// Between two messages the client looks whether the server has refused the COPY: this bounds what is sent in vain.
pub const COPY_DATA_MAX_BYTES: usize = 1024 * 1024;

/// Look-ups of host names under way at once in a process. One that was given up occupies a thread until the resolver
/// gives up as well, so that reconnecting to a name whose servers are away must not heap up threads.
pub const LOOK_UPS_MAX: usize = 16;

/// Longest file of passwords read, in bytes.
pub const PASS_FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Most parameters one statement can bear: the count is 16 bits wide on the wire.
pub const PARAMS_MAX: usize = u16::MAX as usize;

const _: () = assert!(STARTUP_MESSAGE_MAX_BYTES < MESSAGE_MAX_BYTES);
const _: () = assert!(READ_CHUNK_BYTES < MESSAGE_MAX_BYTES);
// The length word of the protocol is signed.
const _: () = assert!(MESSAGE_MAX_BYTES < i32::MAX as usize);
const _: () = assert!(COPY_DATA_MAX_BYTES < MESSAGE_MAX_BYTES);
// A notice is kept whole, so the two bounds together are what a flood can occupy (13 fields each).
const _: () = assert!(NOTICES_MAX * DIAGNOSTIC_FIELD_MAX_BYTES * 13 <= 16 * 1024 * 1024);

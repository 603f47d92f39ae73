//! All limits of the client, with their reasons.

/// Longest message accepted from the server after authentication, in bytes, header included.
///
/// A row may hold a large payload, so the limit is generous. It keeps a corrupt length word from reserving gigabytes.
pub const MESSAGE_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Longest message accepted from the server before authentication has ended, in bytes, header included.
///
/// At that point it is not known whether the server is PostgreSQL. The `HTTP/1.1 400` of an HTTP server looks like a
/// message of 1.4 GB, and this limit refuses it.
pub const STARTUP_MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// Smallest free space in the buffer for a read, in bytes.
pub const READ_CHUNK_BYTES: usize = 32 * 1024;

/// Plain text encrypted at once, in bytes: four TLS records. More waits until these records were sent, so that memory
/// does not grow with the size of what is sent.
pub const TLS_ENCRYPT_BYTES: usize = 64 * 1024;

/// Largest buffer kept for the next request, in bytes. A larger one is freed after its request was sent.
///
/// It holds the requests of a busy connection, and the COPY data that a flight adds to them.
pub const SEND_BUFFER_KEEP_BYTES: usize = 1024 * 1024;

/// Longest text kept of a field of an error or notice, in bytes. The rest is cut off.
///
/// PostgreSQL puts whole values into DETAIL, and the text ends up in logs and dead letters.
pub const DIAGNOSTIC_FIELD_MAX_BYTES: usize = 16 * 1024;

/// Notices kept for `take_notices`. The oldest are dropped first, and counted.
pub const NOTICES_MAX: usize = 64;

/// Notifications kept for `take_notifications`. The oldest are dropped first, and counted.
pub const NOTIFICATIONS_MAX: usize = 64;

/// Run-time parameters kept. A server reports about 15.
pub const PARAMETERS_MAX: usize = 128;

/// Longest run-time parameter kept, in bytes. A longer one is dropped, so that it is absent and not wrong.
pub const PARAMETER_VALUE_MAX_BYTES: usize = 4 * 1024;

/// Largest payload of a CopyData message, in bytes. COPY data is a byte stream, so longer buffers are cut anywhere.
///
/// Between two messages the client checks whether the server has refused the COPY, so this limits what is sent in vain.
pub const COPY_DATA_MAX_BYTES: usize = 1024 * 1024;

/// Concurrent look-ups of host names in the process. A look-up whose caller has timed out occupies a thread until the
/// resolver times out, too. Without the limit, repeated connection attempts while name servers are away would pile up
/// threads.
pub const LOOK_UPS_MAX: usize = 16;

/// Longest password file that is read, in bytes. A real one has a few lines.
pub const PASS_FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Most parameters of a statement: their number has 16 bits on the wire.
pub const PARAMS_MAX: usize = u16::MAX as usize;

const _: () = assert!(STARTUP_MESSAGE_MAX_BYTES < MESSAGE_MAX_BYTES);
const _: () = assert!(READ_CHUNK_BYTES < MESSAGE_MAX_BYTES);
// The protocol's length word is signed.
const _: () = assert!(MESSAGE_MAX_BYTES < i32::MAX as usize);
const _: () = assert!(COPY_DATA_MAX_BYTES < MESSAGE_MAX_BYTES);
// A notice is kept whole and has at most 13 fields, so this is the memory that a flood of notices can occupy.
const _: () = assert!(NOTICES_MAX * DIAGNOSTIC_FIELD_MAX_BYTES * 13 <= 16 * 1024 * 1024);

//! The command line: the options, and the combinations that are refused.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Most connections. A transaction id contains the connection's number in five digits.
pub(crate) const MAX_CONNECTIONS: u32 = 100_000;
/// Most partitions. A partition's name contains its number in six digits.
pub(crate) const MAX_PARTITIONS: u32 = 1_000_000;
/// Duration of the run, in seconds, if neither `--duration` nor `--requests` bounds it.
const DEFAULT_DURATION_S: f64 = 10.0;
/// Longest run, in seconds: a day. A longer one is probably a mistake in the unit.
const MAX_DURATION_S: f64 = 86_400.0;
/// Longest name of a queue or run, in bytes: far below every limit of the server.
const MAX_NAME_BYTES: usize = 64;

/// Load generator for Forebay. Checks every response. Runs a closed loop, or an open loop with --rate.
#[derive(Debug, Parser)]
#[command(name = "forebay-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push messages and measure the responses.
    Push(Box<PushArgs>),
    /// Open connections, use each once, and hold them idle until standard input ends.
    Hold(HoldArgs),
}

/// How to continue after a connection was lost before a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Send the request again, with the same transaction ids, until there is a response.
    Retry,
    /// Continue with the next request.
    Abandon,
    /// End the run.
    Fail,
}

/// Why an argument, or a combination of arguments, is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgumentError {
    /// Without a new connection the request cannot be retried, nor followed by another.
    #[error("--on-error retry and --on-error abandon need --reconnect")]
    ReconnectMissing,
    /// A URL with another scheme, or none.
    #[error("the URL must begin with http://")]
    UrlScheme,
    /// A URL without a host, or with more than host and port.
    #[error("the URL must be http://HOST[:PORT] and no more")]
    UrlParts,
    /// The name of the host, or the port, cannot be resolved.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// Host and port.
        host: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// The name of the host has no address.
    #[error("{host} has no address")]
    NoAddress {
        /// Host and port.
        host: String,
    },
    /// Not a number.
    #[error("not a number of seconds")]
    NotSeconds,
    /// A number of seconds out of range.
    #[error("must be above 0 and at most {MAX_DURATION_S} seconds")]
    SecondsRange,
    /// A name that would need escaping in a URL or in JSON.
    #[error("must be 1 to {MAX_NAME_BYTES} letters, digits, dots, dashes or underscores")]
    Name,
}

/// Options of `forebay-bench hold`.
#[derive(Clone, Debug, Args)]
pub(crate) struct HoldArgs {
    /// Server to connect to.
    #[arg(long, default_value = "http://127.0.0.1:6632", value_name = "URL")]
    pub(crate) url: ServerUrl,

    /// Connections to hold.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub(crate) connections: u32,
}

/// Options of `forebay-bench push`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PushArgs {
    /// Server to push to.
    #[arg(long, default_value = "http://127.0.0.1:6632", value_name = "URL")]
    pub(crate) url: ServerUrl,

    /// Connections, distributed over the threads.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub(crate) connections: u32,

    /// Threads, each with a ring of its own. Default: one per core, but at most one per connection.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Seconds to run. Default: 10, unless --requests is given. At the end the run waits for outstanding responses.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,

    /// Requests to send in total.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: Option<u64>,

    /// Requests per second in total, evenly distributed over time and connections, whether or not the server keeps up (open
    /// loop). If a request is due while its connection waits for an earlier response, its latency counts from the time it was
    /// due, so that a stall of the server shows in all requests that it delayed.
    #[arg(long, value_name = "R", conflicts_with_all = ["pipeline", "requests"],
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,

    /// Messages per request.
    #[arg(long, default_value_t = 1, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) messages_per_request: u32,

    /// Bytes of JSON per payload.
    #[arg(long, default_value_t = 50, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) payload_bytes: u32,

    /// Queue to push to.
    #[arg(long, default_value = "bench", value_parser = plain_name)]
    pub(crate) queue: String,

    /// Distribute the messages over this many partitions, p000000 and so on. Default: the server's default partition.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARTITIONS)))]
    pub(crate) partitions: Option<u32>,

    /// Send plain pushes. The server responds after the commit in PostgreSQL. This is the default.
    #[arg(long, conflicts_with = "buffered")]
    pub(crate) plain: bool,

    /// Send buffered pushes. The server responds when they are durable in its log.
    #[arg(long)]
    pub(crate) buffered: bool,

    /// bufferMs of buffered pushes, in milliseconds.
    #[arg(long, default_value_t = 100, value_name = "MS", requires = "buffered")]
    pub(crate) buffer_ms: u32,

    /// bufferMax of buffered pushes, in messages.
    #[arg(long, default_value_t = 100, value_name = "N", requires = "buffered")]
    pub(crate) buffer_max: u32,

    /// Requests that a connection sends at once before it reads the responses.
    #[arg(long, default_value_t = 1, value_name = "DEPTH", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) pipeline: u32,

    /// Send NDJSON to /push/QUEUE[/PARTITION] instead of JSON to /api/v1/push. All messages of a request have one partition.
    #[arg(long)]
    pub(crate) ndjson: bool,

    /// Give each message a transaction id. Implied by --audit, --audit-lost and --on-error retry.
    #[arg(long)]
    pub(crate) transaction_ids: bool,

    /// Use UUIDs that look random as transaction ids, as most clients do. Implies --transaction-ids.
    #[arg(long, conflicts_with = "ndjson")]
    pub(crate) uuids: bool,

    /// Give every Nth message the transaction id of a much earlier message of its connection, so that it is a duplicate.
    #[arg(long, value_name = "N", requires = "uuids", conflicts_with_all = ["audit", "audit_lost"],
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) duplicate_every: Option<u64>,

    /// Prefix of the transaction ids. Default: derived from the clock and the process id.
    #[arg(long, value_parser = plain_name)]
    pub(crate) run_id: Option<String>,

    /// Append a line for each answered message: transaction id, partition, time sent, time answered (tab-separated; ns).
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,

    /// Append such a line for each message that was sent but never answered. The server may or may not have stored it.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_lost: Option<PathBuf>,

    /// Connect again when a connection is lost, until the run ends.
    #[arg(long, requires = "duration")]
    pub(crate) reconnect: bool,

    /// How to treat a request without a response when its connection is lost. retry and abandon need --reconnect.
    #[arg(long, value_enum, default_value_t = OnError::Fail, value_name = "WHAT")]
    pub(crate) on_error: OnError,

    /// Seconds to wait for a response before the connection counts as lost.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) answer_timeout: Duration,

    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl PushArgs {
    /// Checks the combinations that clap cannot express.
    ///
    /// # Errors
    /// [`ArgumentError::ReconnectMissing`]
    pub(crate) fn check(&self) -> Result<(), ArgumentError> {
        if self.on_error != OnError::Fail && !self.reconnect {
            return Err(ArgumentError::ReconnectMissing);
        }
        Ok(())
    }

    /// Whether the messages have transaction ids.
    pub(crate) fn wants_transaction_ids(&self) -> bool {
        self.transaction_ids
            || self.uuids
            || self.audit.is_some()
            || self.audit_lost.is_some()
            || self.on_error == OnError::Retry
    }

    /// How long the run may last; none if only `--requests` bounds it.
    pub(crate) fn run_time(&self) -> Option<Duration> {
        match (self.duration, self.requests) {
            (None, None) => Some(Duration::from_secs_f64(DEFAULT_DURATION_S)),
            (duration, _) => duration,
        }
    }
}

/// `http://host:port`, resolved. Only `/` may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    /// The address to connect to.
    pub(crate) address: SocketAddr,
    /// Host and port as given, for the `Host` header.
    pub(crate) host: String,
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.host)
    }
}

impl FromStr for ServerUrl {
    type Err = ArgumentError;

    fn from_str(url: &str) -> Result<Self, ArgumentError> {
        let rest = url.strip_prefix("http://").ok_or(ArgumentError::UrlScheme)?;
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace) {
            return Err(ArgumentError::UrlParts);
        }
        // The last colon begins a port, unless it is inside the brackets of an IPv6 address.
        let has_port = host.rfind(':') > host.rfind(']');
        let with_port = if has_port { host.to_owned() } else { format!("{host}:80") };
        let mut addresses =
            with_port.to_socket_addrs().map_err(|source| ArgumentError::Resolve { host: host.to_owned(), source })?;
        let address = addresses.next().ok_or_else(|| ArgumentError::NoAddress { host: host.to_owned() })?;
        Ok(Self { address, host: host.to_owned() })
    }
}

/// A positive number of seconds. Fractions are allowed.
fn seconds(text: &str) -> Result<Duration, ArgumentError> {
    let seconds: f64 = text.parse().map_err(|_| ArgumentError::NotSeconds)?;
    if seconds > 0.0 && seconds <= MAX_DURATION_S {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(ArgumentError::SecondsRange)
    }
}

/// A name that needs no escaping in a URL or in JSON.
fn plain_name(text: &str) -> Result<String, ArgumentError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(ArgumentError::Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(line: &str) -> Result<PushArgs, clap::Error> {
        let words = ["forebay-bench", "push"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| match cli.command {
            Command::Push(args) => *args,
            Command::Hold(_) => unreachable!("a push was parsed"),
        })
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_url_names_a_server_and_nothing_else() {
        let url: ServerUrl = "http://127.0.0.1:6632/".parse().unwrap();
        assert_eq!(url.address, "127.0.0.1:6632".parse().unwrap());
        assert_eq!(url.host, "127.0.0.1:6632");
        let url: ServerUrl = "http://[::1]".parse().unwrap();
        assert_eq!(url.address, "[::1]:80".parse().unwrap());
        for wrong in ["https://127.0.0.1", "127.0.0.1:6632", "http://", "http://a b", "http://127.0.0.1:1/api"] {
            assert!(wrong.parse::<ServerUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_run_without_bounds_lasts_ten_seconds() {
        assert_eq!(push("").unwrap().run_time(), Some(Duration::from_secs(10)));
        assert_eq!(push("--requests 5").unwrap().run_time(), None);
        assert_eq!(push("--duration 0.5 --requests 5").unwrap().run_time(), Some(Duration::from_millis(500)));
    }

    #[test]
    fn meaningless_combinations_are_refused() {
        assert!(push("--plain --buffered").is_err());
        assert!(push("--buffer-ms 5").is_err());
        assert!(push("--reconnect").is_err(), "reconnecting must be bounded");
        assert!(push("--on-error retry").unwrap().check().is_err());
        assert!(push("--on-error retry --reconnect --duration 1").unwrap().check().is_ok());
        assert!(push("--duration 0").is_err());
        assert!(push("--duration nan").is_err());
        assert!(push("--queue a/b").is_err());
    }

    #[test]
    fn audits_and_retries_imply_transaction_ids() {
        assert!(!push("").unwrap().wants_transaction_ids());
        assert!(push("--audit f").unwrap().wants_transaction_ids());
        assert!(push("--on-error retry --reconnect --duration 1").unwrap().wants_transaction_ids());
    }
}

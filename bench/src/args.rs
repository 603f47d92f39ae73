//! The command line: what may be asked for, and which combinations make no sense.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Connections beyond this do not fit the five digits that a transaction id keeps for them.
pub(crate) const MAX_CONNECTIONS: u32 = 100_000;
/// Partitions beyond this do not fit the six digits of a partition's name.
pub(crate) const MAX_PARTITIONS: u32 = 1_000_000;
/// Run time, in seconds, when neither `--duration` nor `--requests` bounds the run.
const DEFAULT_DURATION_S: f64 = 10.0;
/// Longest run, in seconds: a day. A longer one is a mistake in the unit.
const MAX_DURATION_S: f64 = 86_400.0;

/// Load generator for Forebay: every answer checked; closed loop, or open with `--rate`.
#[derive(Debug, Parser)]
#[command(name = "forebay-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push messages and measure the answers.
    Push(Box<PushArgs>),
    /// Open connections, use each once, and hold them idle until standard input ends.
    Hold(HoldArgs),
}

/// What becomes of a request whose answer was lost with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Send it again, with the same transaction ids, until it is answered.
    Retry,
    /// Leave it and go on with the next.
    Abandon,
    /// End the run.
    Fail,
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

    /// Connections held open, spread over the threads.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub(crate) connections: u32,

    /// Threads, each with a ring of its own. Default: one a core, and no more than connections.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Seconds to run; 10 when --requests does not bound the run either. Answers outstanding at the end are waited for.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,

    /// Requests to send in all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: Option<u64>,

    /// Requests a second in all, evenly spread over time and connections, whether or not the server keeps up (open loop). The
    /// time of an answer counts from when its request was due if its connection still waited for another answer then, so a server
    /// that stalls is not spared the requests of that time.
    #[arg(long, value_name = "R", conflicts_with_all = ["pipeline", "requests"],
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,

    /// Messages in one request.
    #[arg(long, default_value_t = 1, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) messages_per_request: u32,

    /// Bytes of one message's payload, as JSON.
    #[arg(long, default_value_t = 50, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) payload_bytes: u32,

    /// Queue to push to.
    #[arg(long, default_value = "bench", value_parser = plain_name)]
    pub(crate) queue: String,

    /// Spread the messages over this many partitions, p000000 and on. Default: the server's default partition.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARTITIONS)))]
    pub(crate) partitions: Option<u32>,

    /// Plain pushes, answered after the commit in PostgreSQL (the default).
    #[arg(long, conflicts_with = "buffered")]
    pub(crate) plain: bool,

    /// Buffered pushes, answered once they are durable in the server's log.
    #[arg(long)]
    pub(crate) buffered: bool,

    /// bufferMs of buffered pushes, in milliseconds.
    #[arg(long, default_value_t = 100, value_name = "MS", requires = "buffered")]
    pub(crate) buffer_ms: u32,

    /// bufferMax of buffered pushes, in messages.
    #[arg(long, default_value_t = 100, value_name = "N", requires = "buffered")]
    pub(crate) buffer_max: u32,

    /// Requests written to a connection at once, before their answers are read.
    #[arg(long, default_value_t = 1, value_name = "DEPTH", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) pipeline: u32,

    /// Send NDJSON to /push/QUEUE[/PARTITION] instead of JSON to /api/v1/push; a request has one partition then.
    #[arg(long)]
    pub(crate) ndjson: bool,

    /// Give each message a transaction id. Implied by --audit, --audit-lost and --on-error retry.
    #[arg(long)]
    pub(crate) transaction_ids: bool,

    /// Make the transaction ids UUIDs that look random, as clients do who make their own. Implies --transaction-ids.
    #[arg(long, conflicts_with = "ndjson")]
    pub(crate) uuids: bool,

    /// Let every Nth message bear the transaction id of one long before it on its connection: a duplicate.
    #[arg(long, value_name = "N", requires = "uuids", conflicts_with_all = ["audit", "audit_lost"],
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) duplicate_every: Option<u64>,

    /// First part of the transaction ids. Default: made from the clock and the process id.
    #[arg(long, value_parser = plain_name)]
    pub(crate) run_id: Option<String>,

    /// Append a line for each answered message: transaction id, partition, sent at, answered at (tab-separated; ns).
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,

    /// Append such a line for each message that was sent and never answered: the server may or may not have it.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_lost: Option<PathBuf>,

    /// Connect again, for as long as the run lasts, when the server goes away.
    #[arg(long, requires = "duration")]
    pub(crate) reconnect: bool,

    /// What becomes of a request whose answer was lost; retry and abandon need --reconnect.
    #[arg(long, value_enum, default_value_t = OnError::Fail, value_name = "WHAT")]
    pub(crate) on_error: OnError,

    /// Seconds to wait for an answer before it counts as lost.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) answer_timeout: Duration,

    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl PushArgs {
    /// Checks what clap cannot express; the message is for the user.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.on_error != OnError::Fail && !self.reconnect {
            return Err("--on-error retry and --on-error abandon need --reconnect".to_owned());
        }
        Ok(())
    }

    /// Whether the client names its messages.
    pub(crate) fn wants_transaction_ids(&self) -> bool {
        self.transaction_ids
            || self.uuids
            || self.audit.is_some()
            || self.audit_lost.is_some()
            || self.on_error == OnError::Retry
    }

    /// How long the run may last; none when only `--requests` bounds it.
    pub(crate) fn run_time(&self) -> Option<Duration> {
        match (self.duration, self.requests) {
            (None, None) => Some(Duration::from_secs_f64(DEFAULT_DURATION_S)),
            (duration, _) => duration,
        }
    }
}

/// `http://host:port`, resolved; nothing but `/` may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// Value of the `Host` header: what was typed.
    pub(crate) host: String,
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.host)
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or("the URL must begin with http://")?;
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace) {
            return Err("the URL must be http://HOST[:PORT] and no more".to_owned());
        }
        // The last colon begins a port, save inside the brackets of an IPv6 address.
        let has_port = host.rfind(':') > host.rfind(']');
        let with_port = if has_port { host.to_owned() } else { format!("{host}:80") };
        let mut addresses = with_port.to_socket_addrs().map_err(|error| format!("cannot resolve {host}: {error}"))?;
        let address = addresses.next().ok_or_else(|| format!("{host} has no address"))?;
        Ok(Self { address, host: host.to_owned() })
    }
}

/// A positive number of seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if seconds > 0.0 && seconds <= MAX_DURATION_S {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("must be above 0 and at most {MAX_DURATION_S} seconds"))
    }
}

/// A name that needs no escaping, neither in a URL nor in JSON.
fn plain_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits, dots, dashes or underscores".to_owned())
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
    fn combinations_without_a_meaning_are_refused() {
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
    fn what_names_messages_implies_transaction_ids() {
        assert!(!push("").unwrap().wants_transaction_ids());
        assert!(push("--audit f").unwrap().wants_transaction_ids());
        assert!(push("--on-error retry --reconnect --duration 1").unwrap().wants_transaction_ids());
    }
}

//! Choices of a [`Config`](crate::Config): encryption, what TCP does in silence, which session is wanted.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Whether a TCP connection is encrypted, and what the server has to show: libpq's `sslmode`.
///
/// A unix socket is never encrypted, whatever the mode, as with libpq: the kernel says who is on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Not encrypted.
    Disable,
    /// As [`SslMode::Prefer`]: where libpq tries without encryption first, this client tries with it.
    Allow,
    /// Encrypted if the server can, else in the open. The certificate is not looked at. It stops nobody who can change
    /// what passes: he answers that there is no TLS.
    Prefer,
    /// Encrypted, or no connection. The certificate is looked at only where a root certificate is set, and then as
    /// with [`SslMode::VerifyCa`].
    Require,
    /// Encrypted, with a certificate that leads to a root certificate of ours.
    VerifyCa,
    /// The same, made out for the host's name or address (as subject alternative name; the common name is not read).
    VerifyFull,
}

/// Which certificates are trusted to vouch for a server: libpq's `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// Those of the system (`sslrootcert=system`), with [`SslMode::VerifyFull`] only: anybody can get a certificate
    /// from them for a name of his own.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// Whether the proof of SCRAM is bound to the server's certificate, so that nobody between can pass it on: libpq's
/// `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the connection is encrypted, and the server and its certificate allow it.
    Prefer,
    /// Or no log-in: not by another method, not without TLS.
    Require,
}

/// How a TCP connection is encrypted. The files are read at each connect, so that they may be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether, and with whom. [`SslMode::Prefer`] by default.
    pub mode: SslMode,
    /// Whom to trust; needed from [`SslMode::VerifyCa`] on.
    pub root_cert: Option<RootCert>,
    /// Our own certificate, with the intermediate ones behind it, in PEM; together with `key`.
    pub cert: Option<PathBuf>,
    /// Its private key in PEM, not encrypted. Nobody but its owner may read it, or root's group if it is root's.
    pub key: Option<PathBuf>,
    /// Whether SCRAM is bound to the certificate. [`ChannelBinding::Prefer`] by default.
    pub channel_binding: ChannelBinding,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { mode: SslMode::Prefer, root_cert: None, cert: None, key: None, channel_binding: ChannelBinding::Prefer }
    }
}

/// When the kernel gives a silent TCP peer up. `None` leaves a value to the system (keep-alive after two hours).
///
/// Unlike libpq's, the defaults notice a lost machine after about a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Whether the kernel probes a silent peer at all.
    pub keepalives: bool,
    /// Silence before the first probe, in whole seconds. 30 s.
    pub keepalives_idle: Option<Duration>,
    /// Time between probes, in whole seconds. 10 s.
    pub keepalives_interval: Option<Duration>,
    /// Probes without answer after which the connection is dead. 3.
    pub keepalives_count: Option<u32>,
    /// Time that sent bytes may stay unacknowledged, in whole milliseconds. 60 s: about what silence is given, so that
    /// a lost machine is noticed as soon while writing.
    pub user_timeout: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            keepalives: true,
            keepalives_idle: Some(Duration::from_secs(30)),
            keepalives_interval: Some(Duration::from_secs(10)),
            keepalives_count: Some(3),
            user_timeout: Some(Duration::from_secs(60)),
        }
    }
}

/// Which server of several is wanted: libpq's `target_session_attrs`, without `prefer-standby`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// The first that lets us in.
    Any,
    /// One whose transactions may write: not in recovery, and not read-only by default.
    ReadWrite,
    /// One whose transactions may not write.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
}

/// Gives an option its words, as libpq spells them.
macro_rules! words {
    ($option:ty, $($variant:ident = $word:literal),+) => {
        impl $option {
            /// The word for it in an address.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            pub(crate) fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $option {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words!(
    SslMode,
    Disable = "disable",
    Allow = "allow",
    Prefer = "prefer",
    Require = "require",
    VerifyCa = "verify-ca",
    VerifyFull = "verify-full"
);
words!(ChannelBinding, Disable = "disable", Prefer = "prefer", Require = "require");
words!(
    TargetSession,
    Any = "any",
    ReadWrite = "read-write",
    ReadOnly = "read-only",
    Primary = "primary",
    Standby = "standby"
);

//! Options of a connection: encryption, TCP timeouts, the required kind of session, where the session looks for names.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Whether a TCP connection is encrypted, and whether the server's certificate is verified: libpq's `sslmode`.
///
/// As in libpq, a unix socket is never encrypted, because its directory's permissions decide who may listen there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Not encrypted.
    Disable,
    /// As [`SslMode::Prefer`]. (libpq first tries to connect without encryption.)
    Allow,
    /// Encrypted if the server has TLS, else not encrypted. The certificate is not verified. This mode does not protect
    /// from an attacker who can change the traffic: the attacker can answer that there is no TLS.
    Prefer,
    /// Encrypted. The certificate is verified only if a root certificate is set, and then as in [`SslMode::VerifyCa`].
    Require,
    /// Encrypted, with a certificate whose chain ends at a trusted root certificate.
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate must have the host's name or address as a subject alternative
    /// name. The common name is not read.
    VerifyFull,
}

/// The trusted root certificates: libpq's `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// The root certificates of the system (`sslrootcert=system`). They require [`SslMode::VerifyFull`], because
    /// anybody can get a certificate from these authorities for a host name of their own.
    System,
    /// The root certificates in a PEM file.
    File(PathBuf),
}

/// Whether SCRAM authentication is bound to the server's certificate, so that an attacker in the middle cannot relay
/// it: libpq's `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// It is not bound.
    Disable,
    /// It is bound if the connection is encrypted, and the server and its certificate allow it.
    Prefer,
    /// It is bound. Other authentication methods, and connections without TLS, are refused.
    Require,
}

/// How a TCP connection is encrypted. The files are read at each connect, so they can be replaced at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether the connection is encrypted and the server verified. [`SslMode::Prefer`] by default.
    pub mode: SslMode,
    /// The trusted root certificates. Required from [`SslMode::VerifyCa`] on.
    pub root_cert: Option<RootCert>,
    /// The client's certificate, followed by the intermediate certificates, in PEM. Requires `key`.
    pub cert: Option<PathBuf>,
    /// The certificate's private key in PEM, not encrypted. Only the file's owner may have access to it. If root owns
    /// it, its group may read it, too.
    pub key: Option<PathBuf>,
    /// Whether SCRAM authentication is bound to the server's certificate. [`ChannelBinding::Prefer`] by default.
    pub channel_binding: ChannelBinding,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { mode: SslMode::Prefer, root_cert: None, cert: None, key: None, channel_binding: ChannelBinding::Prefer }
    }
}

/// When the kernel ends a TCP connection whose peer is silent. `None` stands for the system's value, which for
/// keep-alive is two hours.
///
/// With the defaults, the loss of the server's machine is noticed after about a minute. libpq uses the system's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Whether the kernel probes a silent peer.
    pub keepalives: bool,
    /// The silence before the first probe, in whole seconds. 30 s by default.
    pub keepalives_idle: Option<Duration>,
    /// The time between probes, in whole seconds. 10 s by default.
    pub keepalives_interval: Option<Duration>,
    /// The number of unanswered probes after which the connection ends. 3 by default.
    pub keepalives_count: Option<u32>,
    /// The time that sent bytes may stay unacknowledged, in whole milliseconds. 60 s by default: a peer that is lost
    /// during a write is noticed about as soon as a silent one.
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

/// The required kind of session: libpq's `target_session_attrs`, without `prefer-standby`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// Any session.
    Any,
    /// A session whose transactions may write. The server is not in recovery, and not read-only by default.
    ReadWrite,
    /// A session whose transactions may not write.
    ReadOnly,
    /// A session on a server that is not in recovery.
    Primary,
    /// A session on a server that is in recovery.
    Standby,
}

/// In which schemas a session looks for names that have no schema: PostgreSQL's `search_path`.
///
/// It is no part of [`Config`](crate::Config), and it has no default, so that whoever connects has to choose. For a
/// function or an operator PostgreSQL takes the best match among all schemas of the path. Whoever may create one in any
/// of them can therefore take the place of one that a statement means, and run with the rights of the session's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchPath {
    /// `pg_catalog, pg_temp`: a name without a schema is the system's. It is set once the session is open, so that it
    /// overrides the role's and the database's setting, and [`Config::options`](crate::Config::options).
    System,
    /// What is set for the role, the database or the session. This is for statements that name objects as their author's
    /// own session would, such as those of a test.
    Inherited,
}

/// Defines the words for an option's values, as libpq spells them.
macro_rules! words {
    ($option:ty, $($variant:ident = $word:literal),+) => {
        impl $option {
            /// The word for this value in a URL.
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

//! Settings that are one of several words.

use forebay_wal::group::SyncMethod;
use serde::{Deserialize, Serialize};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs, one object a line.
    Json,
}

impl LogFormat {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// `--probe-duplicates` as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeDuplicates {
    /// after one was met, for a while
    Auto,
    /// before every transaction: spares the work of those that fail where duplicates are common
    Always,
}

/// `--sync` as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// `O_DIRECT` with per-write data sync
    Direct,
    /// buffered, each write synced as fdatasync does
    Fdatasync,
    /// page cache only: survives a crash of the process, not of the machine
    None,
    /// direct, or fdatasync where that is clearly faster on this disk: measured at the first start, then kept
    Auto,
}

impl Sync {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fdatasync => "fdatasync",
            Self::None => "none",
            Self::Auto => "auto",
        }
    }

    /// The method of the log. `auto` is the default until [`super::sync_method::resolve`] has replaced it.
    #[must_use]
    pub fn method(self) -> SyncMethod {
        match self {
            Self::Direct | Self::Auto => SyncMethod::Direct,
            Self::Fdatasync => SyncMethod::Fdatasync,
            Self::None => SyncMethod::None,
        }
    }
}

impl From<SyncMethod> for Sync {
    fn from(method: SyncMethod) -> Self {
        match method {
            SyncMethod::Direct => Self::Direct,
            SyncMethod::Fdatasync => Self::Fdatasync,
            SyncMethod::None => Self::None,
        }
    }
}

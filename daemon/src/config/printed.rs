//! How settings are printed, where their TOML differs from their type. Each is printed as the file and the flags take it.

use serde::{Serialize, Serializer};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// A duration, such as `1m 15s`.
pub(super) fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// A duration as a number of milliseconds.
pub(super) fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis() as u64)
}

/// A path. What is not UTF-8 of it is shown as such.
pub(super) fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The same, if there is one.
#[expect(clippy::ref_option, reason = "the signature is serde's")]
pub(super) fn path_if_set<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

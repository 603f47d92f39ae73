//! The TOML file.

use super::{ConfigError, args::ServeArgs};
use clap::Args;
use std::path::Path;

/// How alike a name must be to be suggested, from 0 to 1.
const SUGGESTION_SIMILARITY: f64 = 0.7;

/// Reads the settings of a file.
///
/// # Errors
/// [`ConfigError`] for a file that cannot be read, is no TOML, has a key that there is not (with the nearest that there
/// is), or a value of another type.
pub(super) fn read(path: &Path) -> Result<ServeArgs, ConfigError> {
    let fail = |what: String| ConfigError(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| fail(error.to_string()))?;
    let names = names();
    if let Some(unknown) = table.keys().find(|key| !names.contains(key)) {
        let similarity = |name: &String| strsim::jaro_winkler(name, unknown);
        let nearest = names.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let suggestion = nearest.filter(|name| similarity(name) >= SUGGESTION_SIMILARITY);
        let suggestion = suggestion.map_or_else(String::new, |name| format!("; is {name:?} meant?"));
        return Err(fail(format!("there is no setting {unknown:?}{suggestion}")));
    }
    toml::from_str(&text).map_err(|error| fail(error.to_string()))
}

/// Names of all settings.
fn names() -> Vec<String> {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    command
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .filter(|name| *name != "config")
        .map(str::to_owned)
        .collect()
}

//! The TOML file.

use super::{ConfigFileError, args::ServeArgs};
use clap::Args;
use std::path::Path;

/// How similar a name must be to be suggested, from 0 to 1.
const SUGGESTION_SIMILARITY: f64 = 0.7;

/// Reads the settings of a file.
///
/// # Errors
/// [`ConfigFileError`].
pub(super) fn read(path: &Path) -> Result<ServeArgs, ConfigFileError> {
    let text = std::fs::read_to_string(path)?;
    let table: toml::Table = text.parse()?;
    let names = names();
    if let Some(unknown) = table.keys().find(|key| !names.contains(key)) {
        let similarity = |name: &String| strsim::jaro_winkler(name, unknown);
        let nearest = names.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let nearest = nearest.filter(|name| similarity(name) >= SUGGESTION_SIMILARITY).cloned();
        return Err(ConfigFileError::UnknownSetting { name: unknown.clone(), nearest });
    }
    Ok(toml::from_str(&text)?)
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

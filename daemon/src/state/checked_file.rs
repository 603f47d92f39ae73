//! A small file of one line of JSON and one line with its checksum.

use serde::{Serialize, de::DeserializeOwned};
use std::io;

/// The text of the file that holds `content`.
///
/// # Errors
/// When `content` is nothing that JSON can hold.
pub(super) fn render(content: &impl Serialize) -> io::Result<String> {
    let line = serde_json::to_string(content)?;
    Ok(format!("{line}\n{}\n", checksum(&line)))
}

/// What the file of that text holds; `None` if it is damaged. Anything behind the two lines is left out of account.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Option<T> {
    let (line, rest) = text.split_once('\n')?;
    let (found, _) = rest.split_once('\n')?;
    (found == checksum(line)).then(|| serde_json::from_str(line).ok()).flatten()
}

fn checksum(line: &str) -> String {
    const SHOWN_CHARS: usize = 16;
    let mut hex = blake3::hash(line.as_bytes()).to_hex().to_string();
    hex.truncate(SHOWN_CHARS);
    hex
}

//! Ranges of numbers and times, as tables show them.

/// `first..last`, or a dash.
pub(super) fn span<T: std::fmt::Display>(ends: Option<(T, T)>) -> String {
    ends.map_or_else(|| "-".to_owned(), |(first, last)| format!("{first}..{last}"))
}

//! What Forebay asks of the operating system so that nobody leads it astray: files are reached from the descriptor of a
//! directory, and threads keep no right that they do not need.
//!
//! ```text
//!   dir      a directory, and the files below it: open, create, replace, list
//!   rights   capabilities of a thread, and acting as another account
//! ```
//!
//! # What it promises
//! - No name below a directory is followed if it is a symbolic link, nor is any directory on the way to it.
//! - What is opened is a regular file. A fifo or a device in its place is an error, and nobody waits for it.
//! - A file that is written whole gets its name only when its content is durable.
//!
//! # What it refuses
//! - Paths that lead out of the directory: absolute ones of another directory, and those with `..`.
//! - To read more of a small file than its caller expects.

pub mod dir;
pub mod rights;

//! The command line's side: asks the running daemon.

use super::{
    protocol::{ControlReply, ControlRequest, read_line, write_line},
    socket,
};
use crate::limits::CONTROL_REPLY_TIMEOUT;
use std::{io, path::Path};

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens. Next step: see who has locked the data directory.
    #[error("nobody listens on control.sock: {0}")]
    NotThere(io::Error),
    /// The connection failed, or the answer is none that this release understands. Next step: read the daemon's log.
    #[error("the daemon did not answer on control.sock: {0}")]
    Failed(io::Error),
}

/// Asks the daemon of `data_dir`, and waits for its reply.
///
/// # Errors
/// [`ControlError`].
pub fn ask(data_dir: &Path, request: &ControlRequest) -> Result<ControlReply, ControlError> {
    let stream = socket::connect(data_dir).map_err(ControlError::NotThere)?;
    let exchange = || {
        stream.set_read_timeout(Some(CONTROL_REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(CONTROL_REPLY_TIMEOUT))?;
        write_line(&stream, request)?;
        read_line(&stream)
    };
    exchange().map_err(ControlError::Failed)
}

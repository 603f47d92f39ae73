//! Descriptors of tokio-uring's sockets and files, which it gives only raw. This is the bench's only unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use tokio_uring::{fs::File, net::TcpStream};

/// A socket's descriptor.
pub(crate) fn of_socket(socket: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: `socket` owns the descriptor, and it is borrowed for as long as the result lives.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// A file's descriptor.
pub(crate) fn of_file(file: &File) -> BorrowedFd<'_> {
    // SAFETY: `file` owns the descriptor, and it is borrowed for as long as the result lives.
    unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) }
}

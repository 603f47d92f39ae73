//! `forebay-bench hold`: idle connections, to see what they cost a server.

use crate::args::HoldArgs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the connections, has each answered once, prints a line, and holds them until standard input ends.
///
/// # Errors
/// When one is refused, or answered with anything but a 200.
pub(crate) fn run(args: &HoldArgs) -> io::Result<()> {
    let connections = (0..args.connections).map(|_| open(args)).collect::<io::Result<Vec<_>>>()?;
    println!("{} connections are held", connections.len());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn open(args: &HoldArgs) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&args.url.address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", args.url.host)?;
    let mut answer = [0; 4096];
    let mut length = 0;
    // The body ends with a line's end, the head with an empty line.
    while !(answer[..length].windows(4).any(|bytes| bytes == b"\r\n\r\n") && answer[..length].ends_with(b"}\n")) {
        match stream.read(&mut answer[length..])? {
            0 => return Err(io::Error::other("the server closed a connection")),
            read_bytes => length += read_bytes,
        }
    }
    if answer.starts_with(b"HTTP/1.1 200 ") {
        Ok(stream)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&answer[..length]).into_owned()))
    }
}

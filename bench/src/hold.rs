//! `forebay-bench hold`: holds idle connections, to measure what they cost the server.

use crate::args::HoldArgs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a connect or a response may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the connections, sends one request on each, prints a line, and holds them until standard input ends.
///
/// # Errors
/// If a connection is refused, or its response is not a 200.
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
    let mut response = [0; 4096];
    let mut length = 0;
    // The head ends with an empty line, the body with a newline.
    while !(response[..length].windows(4).any(|bytes| bytes == b"\r\n\r\n") && response[..length].ends_with(b"}\n")) {
        match stream.read(&mut response[length..])? {
            0 => return Err(io::Error::other("the server closed a connection")),
            read_bytes => length += read_bytes,
        }
    }
    if response.starts_with(b"HTTP/1.1 200 ") {
        Ok(stream)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&response[..length]).into_owned()))
    }
}

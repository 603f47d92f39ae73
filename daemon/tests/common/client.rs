//! A blocking HTTP client that keeps its connection and sends exactly what it is given.

use super::PATIENCE;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// An open connection.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A reply.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The `code` of an error.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The `error` of an error.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        // The system may give a free port to the very socket that connects to it.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Closes the sending side; replies can still be received.
    pub fn finish_sending(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.request("GET", path, &[], None)
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Response> {
        self.request("POST", path, &[("Content-Type", "application/json")], Some(body))
    }

    pub fn push(&mut self, body: &serde_json::Value) -> io::Result<Response> {
        self.post("/api/v1/push", body.to_string().as_bytes())
    }

    pub fn post_ndjson(&mut self, path: &str, body: &[u8]) -> io::Result<Response> {
        self.request("POST", path, &[("Content-Type", "application/x-ndjson")], Some(body))
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<Response> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body.unwrap_or_default());
        self.send(&request)?;
        self.receive(method == "HEAD")
    }

    /// The next final reply; interim replies are skipped.
    pub fn receive(&mut self, head_only: bool) -> io::Result<Response> {
        loop {
            let response = self.receive_one(head_only)?;
            if response.status >= 200 {
                return Ok(response);
            }
        }
    }

    /// The next reply, interim or final.
    pub fn receive_one(&mut self, head_only: bool) -> io::Result<Response> {
        let head_end = loop {
            if let Some(at) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more()?;
        };
        let head = String::from_utf8_lossy(&self.received[..head_end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.get(9..12)).and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or(io::ErrorKind::InvalidData)?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        let length = if head_only || status < 200 { 0 } else { length };
        while self.received.len() < head_end + length {
            self.read_more()?;
        }
        let rest = self.received.split_off(head_end + length);
        let body = std::mem::replace(&mut self.received, rest).split_off(head_end);
        Ok(Response { status, headers, body })
    }

    /// Whether the other side has closed the connection without sending anything more.
    pub fn is_closed(&mut self) -> bool {
        self.received.is_empty() && matches!(self.read_more(), Err(error) if error.kind() != io::ErrorKind::WouldBlock)
    }

    /// Whether data has arrived; does not wait.
    pub fn has_received(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let outcome = self.read_more();
        self.stream.set_nonblocking(false).unwrap();
        outcome.is_ok() || !self.received.is_empty()
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.received.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }
}

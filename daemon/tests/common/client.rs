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
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
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
        let (status, headers) = self.receive_head()?;
        let header = |name: &str| headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        let length = header("content-length").and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        let body = if head_only || status < 200 {
            Vec::new()
        } else if header("transfer-encoding").is_some() {
            self.receive_chunks()?
        } else {
            self.take(length)?
        };
        Ok(Response { status, headers, body })
    }

    /// Status and headers of the next reply; its body is not received yet.
    pub fn receive_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let head = self.take_through(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.get(9..12)).and_then(|status| status.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok((status.ok_or(io::ErrorKind::InvalidData)?, headers))
    }

    /// A body that is sent in chunks.
    pub fn receive_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_through(b"\r\n")?;
            let digits = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
            let size = usize::from_str_radix(&digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            let chunk = self.take(size + 2)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    /// All that is received until the other side closes the connection.
    pub fn receive_to_end(&mut self) -> Vec<u8> {
        while self.read_more().is_ok() {}
        std::mem::take(&mut self.received)
    }

    /// The next `count` bytes.
    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < count {
            self.read_more()?;
        }
        let rest = self.received.split_off(count);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    /// The next bytes up to `end`, which is included.
    fn take_through(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|bytes| bytes == end) {
                return self.take(at + end.len());
            }
            self.read_more()?;
        }
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

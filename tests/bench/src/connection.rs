//! An HTTP/1.1 client that costs next to nothing: the load generator shares two cores with the server that it measures.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Answers longer than this are no answers to the bench's requests.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// One kept-alive connection with one request at a time in flight.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// `address` is host and port.
    pub(crate) async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a whole request and reads its answer to the end; answers the status.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.received.clear();
        let body_at = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.receive().await?;
        };
        let (status, length) = parse_head(&self.received[..body_at])?;
        while self.received.len() < body_at + length {
            self.receive().await?;
        }
        Ok(status)
    }

    async fn receive(&mut self) -> io::Result<()> {
        if self.received.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
        }
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// A POST of JSON, up to its body.
pub(crate) fn post_head(path: &str, key: &str, body_length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {body_length}\r\n\r\n"
    )
}

/// Status and length of the body.
fn parse_head(head: &[u8]) -> io::Result<(u16, usize)> {
    let broken = || io::Error::new(ErrorKind::InvalidData, "the answer's head is not understood");
    let head = std::str::from_utf8(head).map_err(|_| broken())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(broken)?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length")).and_then(|(_, value)| value.trim().parse().ok());
    Ok((status, length.ok_or_else(broken)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let head = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: x\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(parse_head(head).expect("a whole head"), (429, 12));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}

//! HTTP/1.1 by hand, for both ends: what is written is exactly what a test says, what is read is shown as it came.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Wire(BufReader<TcpStream>);

/// The first line and the fields of a message, names in lower case, in the order in which they came.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// A whole message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Head {
    /// The values of all lines of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field with at most one line.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} has several lines: {self:?}");
        all.first().copied()
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks that this is a problem of the gateway (RFC 9457), and returns its `detail`.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.head.get("content-type"), Some("application/problem+json"));
        assert_eq!(self.head.get("cache-control"), Some("no-store"));
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("the problem is JSON");
        assert_eq!(problem["status"], status);
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::from(TcpStream::connect(address).expect("the server listens"))
    }

    pub(crate) fn from(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(BufReader::new(stream))
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// A second handle, to write while another thread reads.
    pub(crate) fn writer(&self) -> TcpStream {
        self.stream().try_clone().expect("a second handle")
    }

    /// The other side has had enough, or is gone: that is for the reading side to find.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.get_mut().write_all(bytes.as_ref());
    }

    /// Says that no more will be sent.
    pub(crate) fn finish(&self) {
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    /// When this side is dropped, the other gets a reset instead of an end.
    pub(crate) fn reset_on_drop(&self) {
        let _ = socket2::SockRef::from(self.stream()).set_linger(Some(Duration::ZERO));
    }

    /// Sends a request and reads the whole answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        let head_only = request.as_ref().starts_with(b"HEAD ");
        self.send(request);
        self.answer(head_only)
    }

    /// `GET`, and nothing to it but `Host` and the lines given.
    pub(crate) fn get(&mut self, path: &str, lines: &str) -> Message {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n"))
    }

    /// Reads an answer.
    pub(crate) fn answer(&mut self, head_only: bool) -> Message {
        let head = self.head().expect("an answer");
        self.rest(head, head_only).expect("a whole answer")
    }

    pub(crate) fn head(&mut self) -> io::Result<Head> {
        let line = self.line()?;
        Ok(Head { line, fields: self.fields()? })
    }

    /// Reads the content of the message that `head` begins.
    pub(crate) fn rest(&mut self, head: Head, head_only: bool) -> io::Result<Message> {
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        let is_response = head.line.starts_with("HTTP/");
        let empty = head_only || (is_response && matches!(head.status(), 100..=199 | 204 | 304));
        if empty {
        } else if head.get("transfer-encoding") == Some("chunked") {
            assert!(head.get("content-length").is_none(), "both lengths: {head:?}");
            while let Some(chunk) = self.chunk()? {
                body.extend(chunk);
            }
            trailers = self.fields()?;
        } else if let Some(length) = head.get("content-length") {
            body.resize(length.parse().expect("a length"), 0);
            self.0.read_exact(&mut body)?;
        } else if is_response {
            self.0.read_to_end(&mut body)?;
        }
        Ok(Message { head, body, trailers })
    }

    /// The next chunk; none at the end, before the trailers.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
            .map_err(|_| io::Error::other(format!("no length of a chunk: {line:?}")))?;
        if length == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; length + 2];
        self.0.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok(Some(chunk))
    }

    pub(crate) fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("more bytes");
        bytes
    }

    /// Some bytes; none at the end.
    pub(crate) fn some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    /// Whether the other side closes, with nothing more to say.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.some(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                assert!(line.is_empty(), "not a field: {line:?}");
                return Ok(fields);
            };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Bytes beyond ASCII are read as Latin-1, so that none is lost.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        Ok(line.iter().copied().map(char::from).collect())
    }
}

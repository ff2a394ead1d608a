//! The smallest Redis client that the tests need: RESP2, blocking, one command at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a test waits for a reply before it gives up.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What Redis answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Integer(i64),
    /// Simple and bulk strings.
    Bytes(Vec<u8>),
    Array(Vec<Reply>),
    Error(String),
}

impl Reply {
    /// A string or a number as text; nil as the empty text.
    ///
    /// # Panics
    /// For an array, an error, or bytes that are not UTF-8.
    pub fn text(&self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Integer(number) => number.to_string(),
            Self::Bytes(bytes) => String::from_utf8(bytes.clone()).expect("a reply of text"),
            Self::Array(_) | Self::Error(_) => panic!("expected a text, got {self:?}"),
        }
    }

    /// # Panics
    /// For anything but an integer.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            _ => panic!("expected an integer, got {self:?}"),
        }
    }

    /// The bytes of a string; `None` for nil.
    ///
    /// # Panics
    /// For anything else.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Nil => None,
            Self::Bytes(bytes) => Some(bytes),
            _ => panic!("expected bytes or nil, got {self:?}"),
        }
    }

    /// # Panics
    /// For anything but an array.
    pub fn array(&self) -> &[Reply] {
        match self {
            Self::Array(items) => items,
            _ => panic!("expected an array, got {self:?}"),
        }
    }

    pub fn is_nil(&self) -> bool {
        *self == Self::Nil
    }
}

/// A connection to a Redis server on 127.0.0.1.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// # Errors
    /// Where nothing listens there.
    pub fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends one command and reads its reply; an error of Redis is a [`Reply::Error`].
    ///
    /// # Errors
    /// Where the connection fails, or no reply comes within 10 s.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            let arg = arg.as_ref();
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request)?;
        self.read()
    }

    /// Reads the next reply, as subscriptions and MONITOR need it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn read(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| malformed(&line))?;
        let number = || rest.parse::<i64>().map_err(|_| malformed(&line));
        Ok(match kind {
            "+" => Reply::Bytes(rest.as_bytes().to_vec()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Reply::Bytes(bytes)
                }
            },
            "*" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(count) => Reply::Array((0..count).map(|_| self.read()).collect::<io::Result<_>>()?),
            },
            _ => return Err(malformed(&line)),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches("\r\n").len());
        Ok(line)
    }
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply of Redis: {line:?}"))
}

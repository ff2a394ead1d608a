//! What the server answered.

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};

use super::error::Fault;
use crate::backend::{BackendError, ErrorKind};

/// A reply; strings are slices of the buffer that was read from the socket.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Nil,
    Int(i64),
    Bytes(Bytes),
    Array(Vec<Reply>),
}

impl Reply {
    /// Error replies become faults; inside arrays they read as nil (nothing of ours nests errors).
    pub(super) fn from_frame(frame: Resp3Frame) -> Result<Self, Fault> {
        Ok(match frame {
            Resp3Frame::SimpleError { data, .. } => return Err(Fault::from_reply(&data)),
            Resp3Frame::BlobError { data, .. } => return Err(Fault::from_reply(&String::from_utf8_lossy(&data))),
            Resp3Frame::Number { data, .. } => Self::Int(data),
            Resp3Frame::BlobString { data, .. } | Resp3Frame::SimpleString { data, .. } => Self::Bytes(data),
            Resp3Frame::Array { data, .. } => {
                Self::Array(data.into_iter().map(|frame| Self::from_frame(frame).unwrap_or(Self::Nil)).collect())
            }
            // Names and values in turns, as RESP2 has them.
            Resp3Frame::Map { data, .. } => {
                let all = data.into_iter().flat_map(|(name, value)| [name, value]);
                Self::Array(all.map(|frame| Self::from_frame(frame).unwrap_or(Self::Nil)).collect())
            }
            _ => Self::Nil,
        })
    }

    /// From what fred has made of a reply.
    pub(super) fn from_value(value: Value) -> Self {
        match value {
            Value::Integer(n) => Self::Int(n),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from_value).collect()),
            // Names and values in turns, as the server has sent them.
            Value::Map(map) => {
                let pairs = map.inner().into_iter();
                Self::Array(
                    pairs.flat_map(|(name, value)| [Self::Bytes(name.into_bytes()), Self::from_value(value)]).collect(),
                )
            }
            other => other.into_bytes().map_or(Self::Nil, Self::Bytes),
        }
    }

    /// The string, if it is one.
    pub(super) fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The string as text, if it is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The number, also one that is written as a string.
    pub(super) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => self.as_str()?.parse().ok(),
        }
    }

    /// The number, if it is not negative.
    pub(super) fn as_u64(&self) -> Option<u64> {
        self.as_int().and_then(|n| n.try_into().ok())
    }

    /// The elements, if it is an array.
    pub(super) fn into_array(self) -> Option<Vec<Reply>> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The error for a reply that has not the form that `what` promises.
    pub(super) fn unexpected(what: &str) -> BackendError {
        BackendError::new(ErrorKind::Protocol, format!("Redis answered {what} with something unexpected"))
    }
}

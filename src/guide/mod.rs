//! Pages to read before and while one runs it.

#[doc = include_str!("security.md")]
pub mod security {}

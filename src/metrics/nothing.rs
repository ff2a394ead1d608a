//! Without the feature `metrics` nothing is recorded, and nothing is left of it.

#![allow(clippy::unused_self, reason = "the same as with the feature")]

use super::{Metric, Word};

#[inline]
pub(crate) fn count<const N: usize>(_: &'static Metric, _: [Word<'_>; N]) {}

#[inline]
pub(crate) fn gauge<const N: usize>(_: &'static Metric, _: [Word<'_>; N], _: impl FnOnce() -> f64) {}

#[inline]
pub(crate) fn add<const N: usize>(_: &'static Metric, _: [Word<'_>; N], _: f64) {}

#[inline]
pub(crate) fn observe<const N: usize>(_: &'static Metric, _: [Word<'_>; N], _: f64) {}

#[derive(Clone, Debug, Default)]
pub(crate) struct Counters<const N: usize>(());

impl<const N: usize> Counters<N> {
    #[inline]
    pub(crate) fn count<'a, const M: usize>(&self, _: usize, _: &'static Metric, _: impl FnOnce() -> [Word<'a>; M]) {}
}

#[derive(Debug, Default)]
pub(crate) struct Histograms<const N: usize>(());

impl<const N: usize> Histograms<N> {
    #[inline]
    pub(crate) fn start<'a, const M: usize>(
        &self,
        _: usize,
        _: &'static Metric,
        _: impl FnOnce() -> [Word<'a>; M],
    ) -> Stopwatch {
        Stopwatch
    }

    #[inline]
    pub(crate) fn observe<'a, const M: usize>(
        &self,
        _: usize,
        _: &'static Metric,
        _: impl FnOnce() -> [Word<'a>; M],
        _: Stopwatch,
    ) {
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch;

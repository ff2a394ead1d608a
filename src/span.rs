//! Spans and their fields.

use tracing::Span;

/// As `tracing`'s, but nothing is made where nobody looks at spans of this level: with `tracing`'s feature `log`, which
/// a dependency may have switched on, a span that is disabled still goes through all of its fields.
macro_rules! debug_span {
    ($($span:tt)*) => {
        if $crate::span::is_seen(tracing::Level::DEBUG) { tracing::debug_span!($($span)*) } else { tracing::Span::none() }
    };
}

/// As [`debug_span`].
macro_rules! trace_span {
    ($($span:tt)*) => {
        if $crate::span::is_seen(tracing::Level::TRACE) { tracing::trace_span!($($span)*) } else { tracing::Span::none() }
    };
}

pub(crate) use {debug_span, trace_span};

/// Whether anybody looks at spans of this level.
pub(crate) fn is_seen(level: tracing::Level) -> bool {
    level <= tracing::level_filters::LevelFilter::current()
}

/// Records what became of something. Nobody looks at most spans; to find that out here is cheaper than to record.
pub(crate) fn record(span: &Span, field: &'static str, value: &'static str) {
    if !span.is_disabled() {
        span.record(field, value);
    }
}

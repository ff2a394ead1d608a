//! Fields of spans.

use tracing::Span;

/// Records what became of something. Nobody looks at most spans; to find that out here is cheaper than to record.
pub(crate) fn record(span: &Span, field: &'static str, value: &'static str) {
    if !span.is_disabled() {
        span.record(field, value);
    }
}

//! Services that were polled.

/// Takes the service that was polled. The clone that takes its place is not ready.
pub(crate) fn take_ready<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    std::mem::replace(inner, clone)
}

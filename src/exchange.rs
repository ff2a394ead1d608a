//! What layers leave for each other in the extensions of requests and responses.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Says whether the answer to a request depends on who asks.
///
/// `SessionLayer` leaves it in the extensions of the request, for layers within; the session's handle sets it when a
/// handler reads or writes the session; and the answer carries it too, for layers around. A layer that shares answers
/// looks at it when the head of the answer has come, and does not share what is personal, unless the answer says that
/// it is public. Clones share the mark.
#[derive(Clone, Debug, Default)]
pub struct Personal(Arc<AtomicBool>);

impl Personal {
    /// Marks the answer; for good.
    pub fn mark(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the answer is marked.
    pub fn is_marked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

//! Gateways: as large after the run as before.

use super::{Promise, Violation};
use crate::history::{History, Sizes};

/// Connections to Redis that come and go by themselves.
pub(crate) const MORE_TASKS: usize = 12;
pub(crate) const MORE_DESCRIPTORS: usize = 16;
/// What the allocator keeps, and the bounded memories (hints, denials) that fill.
pub(crate) const MORE_KIB: u64 = 48 * 1024;

pub(super) fn check(history: &History) -> Vec<Violation> {
    let grown = |sizes: &&Sizes| !is_back(sizes);
    let violation = |sizes: &Sizes| Violation::new(Promise::BackToTheStart, format!("a gateway has grown: {sizes:?}"));
    history.sizes.iter().filter(grown).map(violation).collect()
}

pub(crate) fn is_back(sizes: &Sizes) -> bool {
    let Sizes { before, after } = sizes;
    after.tasks <= before.tasks + MORE_TASKS
        && after.descriptors <= before.descriptors + MORE_DESCRIPTORS
        && after.memory_kib <= before.memory_kib + MORE_KIB
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Size;

    #[test]
    fn whatever_grows_is_found() {
        let before = Size { tasks: 20, descriptors: 30, memory_kib: 20_000 };
        let found = |after| check(&History { sizes: vec![Sizes { before, after }], ..History::default() }).len();
        assert_eq!(found(Size { tasks: 25, descriptors: 20, memory_kib: 40_000 }), 0);
        for grown in
            [Size { tasks: 100, ..before }, Size { descriptors: 100, ..before }, Size { memory_kib: 200_000, ..before }]
        {
            assert_eq!(found(grown), 1, "{grown:?}");
        }
    }
}

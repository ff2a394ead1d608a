//! Several at once.

use std::future::Future;

use futures_util::future::join_all;
use tokio::runtime::Runtime;

/// So many at once, and when all are done, so many again; each is told its number.
pub(crate) fn rounds<'a, F: Future + 'a>(
    runtime: &'a Runtime,
    name: &'a str,
    at_once: usize,
    once: impl Fn(usize) -> F + 'a,
) -> (&'a str, Box<dyn FnMut(u64) + 'a>) {
    let many = move |times| {
        runtime.block_on(async {
            for _ in 0..times {
                if at_once == 1 {
                    once(0).await;
                } else {
                    join_all((0..at_once).map(&once)).await;
                }
            }
        });
    };
    (name, Box::new(many))
}

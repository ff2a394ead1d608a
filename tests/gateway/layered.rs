//! What passes a plain proxy unchanged passes all cache layers unchanged: the same tests, once more.

#[path = "switching.rs"]
mod switching;
#[path = "unchanged.rs"]
mod unchanged;

const LAYERS: &str = "tags,swr,cache,coalesce";

//! The cache that all cache layers share.

use tower_gatehouse::{Backend, HttpCache, Rule};

use crate::{
    BoxError,
    cli::{CacheArgs, PathRule},
};

/// Sets the cache up as the flags say.
pub(super) fn set_up(backend: &Backend, args: &CacheArgs) -> Result<HttpCache, BoxError> {
    let mut cache = HttpCache::new(backend).profile(args.profile);
    if let Some(ttl) = args.default_ttl {
        cache = cache.default_ttl(ttl);
    }
    if let Some(bytes) = args.max_body {
        cache = cache.max_body(bytes);
    }
    if args.purge_token.is_some() {
        // Prefixes cost tags, so only where somebody may invalidate by them.
        cache = cache.tag_path_prefixes();
    }
    for (prefix, rule) in &args.rules {
        let rule = match rule {
            PathRule::Ttl(ttl) => Rule::ttl(*ttl),
            PathRule::Bypass => Rule::bypass(),
        };
        let prefix = &prefix.0;
        // The path itself, and all below it.
        if !prefix.is_empty() {
            cache = cache.rule(prefix, rule.clone())?;
        }
        cache = cache.rule(&format!("{prefix}/"), rule.clone())?.rule(&format!("{prefix}/{{*rest}}"), rule)?;
    }
    Ok(cache)
}

//! The layer and its rules.

use std::{fmt, sync::Arc};

use http::Method;
use tower_layer::Layer;

use super::{service::TagInvalidation, token::PurgeToken};
use crate::{
    HttpCache, Rule, RuleError,
    http_cache::{Captures, PathTable},
    policy::invalidation::is_safe,
};

/// Invalidates by what passes through; see the [module](crate::tag_invalidation).
///
/// Stands outside the cache layers of the same [`HttpCache`].
#[derive(Clone)]
pub struct TagInvalidationLayer {
    pub(super) shared: Arc<Shared>,
}

#[derive(Clone)]
pub(super) struct Shared {
    pub(super) cache: HttpCache,
    pub(super) purge: Option<PurgeToken>,
    rules: Vec<(Option<Method>, PathTable)>,
}

impl TagInvalidationLayer {
    /// Without rules and without PURGE.
    pub fn new(cache: impl Into<HttpCache>) -> Self {
        Self { shared: Arc::new(Shared { cache: cache.into(), purge: None, rules: Vec::new() }) }
    }

    /// One more rule: a successful request of this method and path (`PUT /products/{id}`; a path alone means every
    /// unsafe method) invalidates these tags. `{name}` in a tag is what the pattern captured, as in
    /// [`Rule::tag`](crate::Rule::tag).
    pub fn on<'a>(mut self, request: &str, tags: impl IntoIterator<Item = &'a str>) -> Result<Self, RuleError> {
        let (method, pattern) = match request.split_once(' ') {
            Some((method, pattern)) => {
                let method =
                    method.parse::<Method>().map_err(|_| RuleError::new(request, "its method is malformed"))?;
                if method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
                    return Err(RuleError::new(request, "its method is not in upper case"));
                }
                if is_safe(&method) {
                    return Err(RuleError::new(request, "a safe method invalidates nothing"));
                }
                (Some(method), pattern.trim())
            }
            None => (None, request),
        };
        let rule = tags.into_iter().fold(Rule::new(), Rule::tag);
        let shared = Arc::make_mut(&mut self.shared);
        let table = match shared.rules.iter_mut().find(|(known, _)| *known == method) {
            Some((_, table)) => table,
            None => &mut shared.rules.push_mut((method, PathTable::default())).1,
        };
        table.insert(pattern, rule)?;
        Ok(self)
    }

    /// Answers PURGE to those who have the token; unless called, PURGE goes on to the inner service.
    ///
    /// `PURGE <url>` invalidates that URL, all variants; with `Surrogate-Key: a b` these tags instead; with
    /// `X-Purge-Mode: soft` softly. 200 with `{"invalidated":[…],"mode":"hard"}`; 400, 401 and 503 as problem+json.
    #[must_use]
    pub fn purge(mut self, token: PurgeToken) -> Self {
        Arc::make_mut(&mut self.shared).purge = Some(token);
        self
    }
}

impl Shared {
    /// The tags that the rules name for a request.
    pub(super) fn tags_for(&self, method: &Method, path: &str) -> Vec<String> {
        let mut tags = Vec::new();
        for (of, table) in &self.rules {
            if of.as_ref().is_none_or(|of| of == method)
                && let Some(found) = table.find(path)
            {
                let captures = Captures::of(&found.0, path);
                for template in &found.1.parts.tags {
                    if let Some(tag) = template.render(&captures) {
                        tags.push(tag.as_str().to_owned());
                    } else {
                        tracing::warn!(pattern = %found.0, "a captured part makes no tag: nothing invalidated");
                    }
                }
            }
        }
        tags
    }
}

impl<S> Layer<S> for TagInvalidationLayer {
    type Service = TagInvalidation<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TagInvalidation { shared: Arc::clone(&self.shared), inner }
    }
}

impl fmt::Debug for TagInvalidationLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TagInvalidationLayer")
            .field("cache", &self.shared.cache)
            .field("purge", &self.shared.purge)
            .finish_non_exhaustive()
    }
}

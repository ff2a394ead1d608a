//! By which tags an answer is invalidated.

use http::Response;

use super::{HttpCache, invalidate, route_rule::RouteRule, rule::Captures, visit::Visit};
use crate::{
    Tag, TagDigest,
    exchange::{Answered, CacheTags},
    key::Target,
    policy::tags::{self, BadTags},
};

impl HttpCache {
    /// All tags of an answer: its own, its handler's, its rules', those that a layer within has taken away, and those that
    /// stand for its URL.
    pub(super) fn tags_of<R>(
        &self,
        visit: &Visit,
        response: &Response<R>,
        route: Option<&RouteRule>,
    ) -> Result<Vec<TagDigest>, BadTags> {
        let keys = &self.config.keys;
        let mut more = Vec::new();
        more.extend(response.extensions().get::<CacheTags>().into_iter().flat_map(|tags| tags.0.iter().cloned()));
        if let Some(path) = &visit.rule
            && !path.1.parts.tags.is_empty()
        {
            let captures = Captures::of(&path.0, visit.head.uri.path());
            for template in &path.1.parts.tags {
                more.push(template.render(&captures).ok_or(BadTags)?);
            }
        }
        if let Some(route) = route {
            more.extend(route.tags.clone().ok_or(BadTags)?);
        }
        let target = Target::of(&visit.head.uri, &visit.head.headers).ok_or(BadTags)?;
        let named = tags::collect(response.headers(), keys.origin(&target), more.iter().map(Tag::digest))?;
        let mut digests: Vec<TagDigest> = named.into_iter().map(|tag| keys.scoped(tag)).collect();
        if let Some(Answered { entry: Some(entry), .. }) = self.answered_within(response) {
            digests = tags::union(digests, entry.tags())?;
        }
        if visit.head.keyed_beyond_url {
            digests.push(keys.url_tag(&target));
        }
        if self.config.tag_path_prefixes {
            digests.extend(invalidate::prefixes(target.path).map(|prefix| keys.prefix_tag(prefix)));
        }
        Ok(digests)
    }

    /// The tags that an answer will carry as far as rules and URLs tell: the backend remembers them from now on, so
    /// that the commit can be decided exactly.
    pub(crate) fn expected_tags(&self, visit: &Visit) -> Vec<TagDigest> {
        let nothing = Response::new(());
        let mut tags = self.tags_of(visit, &nothing, None).unwrap_or_default();
        let found = visit.lookup.as_ref().and_then(|lookup| lookup.found.as_ref());
        tags.extend(found.iter().flat_map(|found| found.entry.tags()));
        tags.sort_unstable();
        tags.dedup();
        tags
    }
}

//! A rule on one route: it is known when the response comes back.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "axum")]
use super::original_uri;
use super::rule::{Captures, Rule};
use crate::Tag;

/// The rule of the route that answered, in the extensions of its response.
#[derive(Clone, Debug)]
pub(crate) struct RouteRule {
    pub(crate) rule: Rule,
    /// The rule's tags for this request; `None` where one of them is not a tag, so that the response cannot be
    /// invalidated by it and is not stored.
    pub(crate) tags: Option<Vec<Tag>>,
}

impl<S> Layer<S> for Rule {
    type Service = RuleService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RuleService { rule: self.clone(), inner }
    }
}

/// The service of [`Rule`] as a layer: leaves the rule for the cache layers around it.
#[derive(Clone, Debug)]
pub struct RuleService<S> {
    rule: Rule,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for RuleService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RuleFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let parts = &self.rule.parts;
        let tags = if parts.tags.is_empty() {
            Some(Vec::new())
        } else {
            let captures = captures(&request);
            parts.tags.iter().map(|template| template.render(&captures)).collect()
        };
        let rule = RouteRule { rule: self.rule.clone(), tags };
        RuleFuture { rule: Some(rule), inner: self.inner.call(request) }
    }
}

#[cfg(feature = "axum")]
fn captures<B>(request: &Request<B>) -> Captures {
    let extensions = request.extensions();
    let Some(pattern) = extensions.get::<axum::extract::MatchedPath>() else { return Captures::default() };
    Captures::of(pattern.as_str(), original_uri(request.uri(), extensions).path())
}

/// Without axum nobody knows the pattern of a route: tags that name captures need the path table.
#[cfg(not(feature = "axum"))]
fn captures<B>(_: &Request<B>) -> Captures {
    Captures::default()
}

pin_project! {
    /// The future of [`RuleService`].
    #[derive(Debug)]
    pub struct RuleFuture<F> {
        rule: Option<RouteRule>,
        #[pin]
        inner: F,
    }
}

impl<F, R, E> Future for RuleFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(mut rule) = this.rule.take() {
            // A rule nearer to the handler wins, part by part.
            if let Some(inner) = response.extensions_mut().remove::<RouteRule>() {
                rule = RouteRule {
                    rule: inner.rule.over(rule.rule),
                    tags: inner.tags.zip(rule.tags).map(|(inner, outer)| [inner, outer].concat()),
                };
            }
            response.extensions_mut().insert(rule);
        }
        Poll::Ready(Ok(response))
    }
}

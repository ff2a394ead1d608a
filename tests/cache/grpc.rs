//! Around a tonic server: gRPC passes through untouched.

use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};
use tower::Layer;
use tower_gatehouse::{Backend, HttpCache};

/// A health server behind all cache layers, on a loopback port, and a client of it.
async fn health() -> (tonic_health::server::HealthReporter, HealthClient<Channel>) {
    let (reporter, service) = tonic_health::server::health_reporter();
    let cache = HttpCache::new(&Backend::memory()).default_ttl(std::time::Duration::from_mins(1));
    let router = tonic::service::Routes::new(service).prepare().into_axum_router();
    let stack = cache.layers().layer(router);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(stack);
        hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
            .await
    });
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (reporter, HealthClient::new(channel))
}

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn unary_calls_errors_and_streams_of_a_tonic_server_pass_through() {
    let (reporter, mut client) = health().await;
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let first = client.check(ask("shop")).await.unwrap();
    assert!(!first.metadata().contains_key("x-cache") && !first.metadata().contains_key("cache-status"));
    assert_eq!(first.into_inner().status, ServingStatus::Serving as i32);
    // Nothing of it was kept.
    reporter.set_service_status("shop", ServingStatus::NotServing).await;
    assert_eq!(client.check(ask("shop")).await.unwrap().into_inner().status, ServingStatus::NotServing as i32);
    // An error is in the head or in the trailers, not in the status.
    assert_eq!(client.check(ask("nothing")).await.unwrap_err().code(), tonic::Code::NotFound);
    // A stream whose messages come one by one.
    let mut watched = client.watch(ask("shop")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, ServingStatus::NotServing as i32);
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    assert_eq!(watched.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
}

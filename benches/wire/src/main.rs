//! The floor over the wire: hyper with one thread and a handler that has its bytes at hand. It is also the origin for
//! the others. Prints the address on which it listens.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let (small, large) = (Bytes::from(vec![b'x'; 2 * 1024]), Bytes::from(vec![b'x'; 64 * 1024]));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (small, large) = (small.clone(), large.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            let content = if request.uri().path() == "/64k" { large.clone() } else { small.clone() };
            let response = Response::builder()
                .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
                .header(header::CACHE_CONTROL, "max-age=3600")
                .header(header::ETAG, "\"v17\"")
                .body(Full::new(content));
            async move { Ok::<_, Infallible>(response.expect("fixed fields")) }
        });
        tokio::spawn(async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await) });
    }
}

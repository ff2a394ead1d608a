//! Listening, serving, and ending in good order.

use std::{convert::Infallible, io::ErrorKind, net::SocketAddr, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    BoxError, admin,
    cli::Args,
    demo,
    ingress::Ingress,
    layers::{self, Stack},
    signals::Signals,
    stats::Stats,
    upstream::Upstream,
};

/// For the first byte of a connection, and for each head of a request, idle time before it included.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// Beyond it an HTTP/2 request is refused; HTTP/1 has hyper's own, larger bound.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// Serves until a signal comes.
pub(crate) async fn run(mut args: Args) -> Result<(), BoxError> {
    let mut signals = Signals::listen()?;
    let listener = bind(args.listen, "--listen").await?;
    let admin = match args.admin {
        Some(address) => Some(bind(address, "--admin").await?),
        None => None,
    };
    let address = listener.local_addr()?;
    let mut routes = std::mem::take(&mut args.upstreams);
    if args.is_demo {
        routes.push(demo::start(&args).await?);
    }
    let (stats, tunnels) = (Stats::new(), TaskTracker::new());
    let upstream = Upstream::new(routes, &args, stats.clone(), tunnels.clone());
    // Before the layers: they look for the recorder once.
    let recorded = if admin.is_some() { Some(admin::record()?) } else { None };
    let layers = layers::build(&args, upstream).await?;
    if let Some((admin, recorded)) = admin.zip(recorded) {
        println!("admin on http://{}", admin.local_addr()?);
        let invalidate = layers.cache.clone().zip(args.cache.purge_token.clone());
        admin::start(admin, recorded, stats.clone(), invalidate);
    }
    let server = Server {
        stack: layers.stack,
        stats,
        http: http(),
        connections: GracefulShutdown::new(),
        ending: CancellationToken::new(),
    };
    println!("listening on http://{address}");
    if args.is_demo {
        demo::say_what_to_try(address, &args.layers);
    }
    let signal = tokio::select! {
        signal = signals.next() => signal,
        never = server.accept(&listener) => match never {},
    };
    // From here on the port refuses, so that a load balancer goes elsewhere.
    drop(listener);
    info!(signal, "ending; what is under way has {:?}", args.drain_timeout);
    server.ending.cancel();
    tunnels.close();
    let drained = async {
        server.connections.shutdown().await;
        tunnels.wait().await;
        if let Some(cache) = &layers.cache {
            // What goes on without a client: fills whose client has left, revalidations.
            cache.shutdown(args.drain_timeout).await;
        }
    };
    tokio::select! {
        () = drained => info!("ended"),
        () = tokio::time::sleep(args.drain_timeout) => warn!("ended; what was still open is cut"),
        signal = signals.next() => warn!(signal, "ended at once; what was still open is cut"),
    }
    if let Some(cache) = &layers.cache {
        // What was cut off gives its leases back, so that other gateways need not wait for them to run out.
        let _ = tokio::time::timeout(Duration::from_secs(1), cache.shutdown(Duration::ZERO)).await;
    }
    Ok(())
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => format!("{address} is in use by another process; {flag} takes another.").into(),
        _ => format!("{flag} {address}: {error}.").into(),
    })
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(Some(HEAD_TIMEOUT))
        .adaptive_window(true);
    http
}

/// What each connection needs.
struct Server {
    stack: Stack,
    stats: Stats,
    http: auto::Builder<TokioExecutor>,
    connections: GracefulShutdown,
    ending: CancellationToken,
}

impl Server {
    async fn accept(&self, listener: &TcpListener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.serve(stream, peer),
                // The client was gone before we came to it.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // No file descriptors left: those in use come back in time.
                    warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let ingress = Ingress { stack: self.stack.clone(), stats: self.stats.clone(), peer };
        let (http, watcher, ending) = (self.http.clone(), self.connections.watcher(), self.ending.clone());
        tokio::spawn(async move {
            // Until the first byte has come nothing tells HTTP/1 from HTTP/2, and hyper's timer does not run.
            let talks = tokio::select! {
                ready = tokio::time::timeout(HEAD_TIMEOUT, stream.readable()) => matches!(ready, Ok(Ok(()))),
                () = ending.cancelled() => false,
            };
            if talks {
                let service = TowerToHyperService::new(ingress);
                let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
                if let Err(error) = watcher.watch(connection.into_owned()).await {
                    debug!(%peer, error, "connection broken");
                }
            }
        });
    }
}

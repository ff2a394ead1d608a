//! Fills the cache before clients ask, with a progress bar; Ctrl-C stops it cleanly.
//!
//! ```sh
//! cargo run --example warm              # 200 pages of a demo shop
//! cargo run --example warm urls.txt     # the URLs or paths of a file, one on each line
//! ```

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _, stderr},
    pin::pin,
    time::Duration,
};

use axum::{Router, body::Body, extract::Path, routing::get};
use futures_util::StreamExt;
use tower_gatehouse::{
    Backend, HttpCache, Rule,
    warm::{List, Summary, Warmed},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let list = match std::env::args().nth(1) {
        Some(file) => List::read(file).await?,
        None => (0..200).map(|n| format!("/products/{n}").parse()).collect::<Result<List, _>>()?,
    };
    // The host under which clients ask: it is a part of the key.
    let list = list.at("http://shop.example")?;

    let rule = Rule::ttl(Duration::from_mins(5)).tag("product:{id}");
    let cache = HttpCache::new(&Backend::memory()).rule("/products/{id}", rule)?;
    let shop = Router::new().route("/products/{id}", get(product));

    let (summary, stopped) = warm(&cache, shop.clone(), &list).await?;
    println!("{summary}");
    if stopped {
        return Ok(());
    }
    // A second run asks for nothing that is still fresh.
    let (again, stopped) = warm(&cache, shop, &list).await?;
    println!("again: {again}");
    assert!(stopped || again.fresh >= summary.stored);
    Ok(())
}

/// What it came to, and whether it was stopped.
async fn warm(cache: &HttpCache, shop: Router, list: &List) -> std::io::Result<(Summary, bool)> {
    let mut warming = cache.warm(shop, list.requests::<Body>()).concurrency(8).per_second(100);
    let handle = warming.stop_handle();
    let mut ctrl_c = pin!(tokio::signal::ctrl_c());
    let mut stopped = false;
    let mut bar = Bar { total: list.len() as u64, summary: Summary::default() };
    loop {
        let outcome = tokio::select! {
            signal = &mut ctrl_c, if !stopped => {
                signal?;
                handle.stop();
                stopped = true;
                continue;
            }
            outcome = warming.next() => outcome,
        };
        let Some(outcome) = outcome else { break };
        bar.summary.add(&outcome);
        if matches!(outcome.warmed, Warmed::NotStored { .. } | Warmed::Failed { .. } | Warmed::Bypassed { .. }) {
            say(&outcome.to_string());
        }
        bar.draw();
    }
    if stderr().is_terminal() {
        eprint!("{CLEAR}");
    }
    Ok((bar.summary, stopped))
}

async fn product(Path(id): Path<String>) -> String {
    tokio::time::sleep(Duration::from_millis(40)).await;
    format!("product {id}")
}

/// One line of a terminal; elsewhere nothing.
struct Bar {
    total: u64,
    summary: Summary,
}

impl Bar {
    const WIDTH: u64 = 40;

    fn draw(&self) {
        if stderr().is_terminal() {
            let done = self.summary.total();
            let filled = (done * Self::WIDTH / self.total.max(1)).min(Self::WIDTH);
            let bar: String = (0..Self::WIDTH).map(|at| if at < filled { '#' } else { ' ' }).collect();
            eprint!("{CLEAR}[{bar}] {done}/{}  {}", self.total, self.summary);
            let _ = stderr().flush();
        }
    }
}

/// Clears a terminal's line.
const CLEAR: &str = "\r\x1b[K";

/// A line of text above the bar.
fn say(text: &str) {
    let clear = if stderr().is_terminal() { CLEAR } else { "" };
    eprintln!("{clear}{text}");
}

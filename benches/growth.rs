//! How a hit in memory grows: with the number of entries, of tags and of variants; what it costs to invalidate so many
//! entries; and what an entry takes beside the bytes of its response. Run with `cargo bench --all-features --bench growth`, for plots with `-- --csv FILE`: lines of
//! `name,x,y`. Needs 3 GB of memory.

#[path = "support/csv.rs"]
mod csv;
mod support;

use std::{convert::Infallible, process::Command};

use bytes::Bytes;
use csv::Csv;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Empty, Full};
use support::{Subject, compare, each, is_asked_for};
use tokio::runtime::Runtime;
use tower::{Layer as _, Service as _, service_fn, util::BoxCloneSyncService};
use tower_gatehouse::{Backend, CacheBody, CacheLayer, HttpCache, backend::MemoryBackend};

/// Measures what this title says.
type Part = fn(&str, &Runtime, &mut Csv);
type Answer = Response<CacheBody<Full<Bytes>>>;
type App = BoxCloneSyncService<Request<Empty<Bytes>>, Answer, Infallible>;

/// Of the body of most entries here, bytes.
const SIZE: usize = 512;
const PAGES: usize = 1000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut args = std::env::args();
    if args.any(|arg| arg == "--memory") {
        return memory_of(&runtime, args.next().unwrap().parse().expect("a number"));
    }
    let mut csv = Csv::from_args();
    let parts: [(&str, Part); 5] = [
        ("Memory of an entry", memory),
        ("A hit in memory among so many entries, any of them", entries),
        ("A hit in memory with so many tags", tags),
        ("A hit in memory, one of so many variants", variants),
        ("Invalidating one tag in memory, so many entries with it", invalidation),
    ];
    for (title, part) in parts.into_iter().filter(|(title, _)| is_asked_for(title)) {
        part(title, &runtime, &mut csv);
    }
}

/// What an entry adds to the memory of a process of its own, so that none has what another has freed, and what the
/// backend says.
fn memory(title: &str, _: &Runtime, csv: &mut Csv) {
    println!("\n{title}, of {ENTRIES}");
    for size in [128_u32, 512, 2048, 8192, 32_768] {
        // Where the allocator puts things differs from one process to the next: the median of seven.
        let mut children: Vec<_> = (0..7).map(|_| in_a_process_of_its_own(size)).collect();
        children.sort_unstable();
        let (each, counted) = children[3];
        println!("  content {size:>6} bytes: {each:>6} bytes of the process; {counted:>6} as the backend counts");
        csv.line("memory: memory per entry: bytes", size, f64::from(each));
        csv.line("memory as counted: memory per entry: bytes", size, f64::from(counted));
        csv.line("content: memory per entry: bytes", size, f64::from(size));
    }
}

/// Bytes of the process, and as the backend counts them.
fn in_a_process_of_its_own(size: u32) -> (u32, u32) {
    let child = Command::new(std::env::current_exe().unwrap()).args(["--memory", &size.to_string()]).output();
    let said = String::from_utf8(child.unwrap().stdout).unwrap();
    let (each, counted) = said.trim().split_once(' ').expect("two numbers");
    (each.parse().unwrap(), counted.parse().unwrap())
}

const ENTRIES: usize = 20_000;

/// Says how much each of so many entries with content of this size takes.
fn memory_of(runtime: &Runtime, size: usize) {
    let backend = backend();
    let mut app = app(&backend, Kind { size, ..Kind::default() });
    let before = allocated();
    runtime.block_on(fill(&mut app, ENTRIES, 1));
    println!("{} {}", (allocated() - before) / ENTRIES as u64, backend.bytes() / ENTRIES as u64);
}

/// Any of so many, in an order that no cache of the processor foresees.
fn entries(title: &str, runtime: &Runtime, csv: &mut Csv) {
    let counts = [1_000, 10_000, 100_000, 1_000_000];
    let names = counts.map(|n| format!("{n} entries"));
    let hits = counts.iter().zip(&names).map(|(&n, name)| {
        let mut app = app(&backend(), Kind::default());
        runtime.block_on(fill(&mut app, n, 1));
        let mut turn = 0_usize;
        each(name, move || {
            turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            hit(&mut app, (turn >> 33) % n, 0);
        })
    });
    let took = compare(title, hits.collect());
    counts.iter().zip(took).for_each(|(n, nanos)| csv.line("memory: hit by entries: ns", n, nanos));
}

fn tags(title: &str, runtime: &Runtime, csv: &mut Csv) {
    let counts = [0, 1, 5, 20];
    let names = counts.map(|n| format!("{n} tags"));
    let hits = counts.iter().zip(&names).map(|(&tags, name)| hits(runtime, name, Kind { tags, ..Kind::default() }));
    let took = compare(title, hits.collect());
    counts.iter().zip(took).for_each(|(n, nanos)| csv.line("memory: hit by tags: ns", n, nanos));
}

fn variants(title: &str, runtime: &Runtime, csv: &mut Csv) {
    let counts = [1, 2, 4, 8, 16];
    let names = counts.map(|n| format!("{n} variants"));
    let hits =
        counts.iter().zip(&names).map(|(&variants, name)| hits(runtime, name, Kind { variants, ..Kind::default() }));
    let took = compare(title, hits.collect());
    counts.iter().zip(took).for_each(|(n, nanos)| csv.line("memory: hit by variants: ns", n, nanos));
}

/// Of one tag, which so many entries carry.
fn invalidation(title: &str, runtime: &Runtime, csv: &mut Csv) {
    let counts = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
    let names = counts.map(|n| format!("{n} entries"));
    let subjects = counts.iter().zip(&names).map(|(&n, name)| {
        let backend = backend();
        runtime.block_on(fill(&mut app(&backend, Kind { tags: 1, ..Kind::default() }), n, 1));
        let cache = HttpCache::new(&Backend::from(backend));
        each(name, move || runtime.block_on(cache.invalidate().tag("tag-0").into_future()).unwrap())
    });
    let took = compare(title, subjects.collect());
    counts.iter().zip(took).for_each(|(n, nanos)| csv.line("in memory: invalidation by entries: ns", n, nanos));
}

/// What is stored.
#[derive(Clone, Copy)]
struct Kind {
    size: usize,
    tags: usize,
    /// Of each page, by `Accept-Language`.
    variants: usize,
}

impl Default for Kind {
    fn default() -> Self {
        Self { size: SIZE, tags: 0, variants: 1 }
    }
}

fn backend() -> MemoryBackend {
    MemoryBackend::builder().max_bytes(4 << 30).build()
}

/// Hits on 1,000 stored pages, all variants in turn.
fn hits<'a>(runtime: &Runtime, name: &'a str, kind: Kind) -> Subject<'a> {
    let mut app = app(&backend(), kind);
    runtime.block_on(fill(&mut app, PAGES, kind.variants));
    let mut turn = 0;
    each(name, move || {
        turn = (turn + 1) % (PAGES * kind.variants);
        hit(&mut app, turn / kind.variants, turn % kind.variants);
    })
}

fn app(backend: &MemoryBackend, kind: Kind) -> App {
    let content = Bytes::from(vec![b'x'; kind.size]);
    let tags: Vec<_> = (0..kind.tags).map(|n| format!("tag-{n}")).collect();
    let tags = HeaderValue::from_str(&tags.join(",")).unwrap();
    let origin = service_fn(move |_: Request<Empty<Bytes>>| {
        // Entries share no content.
        let mut response = Response::new(Full::new(Bytes::copy_from_slice(&content)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
        if kind.tags > 0 {
            headers.insert("cache-tag", tags.clone());
        }
        if kind.variants > 1 {
            headers.insert(header::VARY, HeaderValue::from_static("accept-language"));
        }
        async move { Ok::<_, Infallible>(response) }
    });
    BoxCloneSyncService::new(CacheLayer::new(&Backend::from(backend.clone())).layer(origin))
}

/// Has all variants of so many pages stored.
async fn fill(app: &mut App, pages: usize, variants: usize) {
    for n in 0..pages * variants {
        let Ok(answer) = app.call(request(n / variants, n % variants)).await;
        answer.into_body().collect().await.unwrap();
    }
}

/// What is stored is answered at once.
fn hit(app: &mut App, page: usize, variant: usize) {
    let Ok(answer) = app.call(request(page, variant)).now_or_never().expect("a hit in memory waits for nothing");
    assert_eq!(answer.headers()["x-cache"], "HIT");
    drop(answer.into_body().collect().now_or_never());
}

fn request(page: usize, variant: usize) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://shop.example/pages/{page}"));
    request.header(header::ACCEPT_LANGUAGE, format!("x-{variant}")).body(Empty::new()).unwrap()
}

/// Bytes of memory that this process has asked for, whether or not the system has all of them in memory at present.
fn allocated() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(5).and_then(|pages| pages.parse().ok()).expect("the sixth number");
    pages * 4096
}

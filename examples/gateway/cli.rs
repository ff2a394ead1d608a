//! The command line. What it accepts is a contract: flags are added, none changes its meaning.

use std::{
    ffi::OsString,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    str::FromStr,
    time::Duration,
};

use lexopt::{Arg, Parser};

use crate::{
    forwarded::Trust,
    layers::Layer,
    upstream::{Origin, Route},
};

pub(crate) const HELP: &str = "\
A reverse proxy built from the layers of tower-gatehouse.

Usage: gateway [FLAGS]     without --upstream: a demo that says what to try

  --listen ADDR              default 127.0.0.1:8080; port 0 takes a free one; the one chosen is printed
  --upstream [PREFIX=]URL    an http:// origin for all paths, or for those under PREFIX; repeatable; longest prefix wins
  --trust hops:N|CIDR,...    proxies in front whose X-Forwarded-* are believed; default: none, they are set here
  --layers LIST              of limit,session,tags,swr,cache,coalesce; `none` is a plain proxy
  --admin ADDR               a second listener: /metrics (Prometheus), /stats (JSON), /healthz
  --connect-timeout SECONDS  for a connection to an origin, then 504; default 5
  --head-timeout SECONDS     for the head of an origin's answer, then 504; default 30
  --drain-timeout SECONDS    for what is under way after SIGTERM or SIGINT; default 8
  --threads N                default: one for each core
  --help

RUST_LOG sets what is logged to stderr: error, warn, info (default), debug, trace.
";

/// Flags of the contract whose layers are not in this version: refused, rather than silently ignored.
const NOT_YET: [&str; 18] = [
    "redis",
    "session-redis",
    "namespace",
    "profile",
    "default-ttl",
    "ttl",
    "bypass",
    "max-body",
    "purge-token-env",
    "session-key-env",
    "session-source",
    "session-required",
    "forward",
    "audience",
    "limit",
    "limit-on-error",
    "limit-headers",
    "limit-shadow",
];

/// What the gateway is to do.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) listen: SocketAddr,
    /// None: the demo.
    pub(crate) upstreams: Vec<Route>,
    pub(crate) trust: Trust,
    /// Those to build; the order in which they stand is fixed.
    pub(crate) layers: Vec<Layer>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) connect_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) threads: Option<NonZeroUsize>,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            upstreams: Vec::new(),
            trust: Trust::default(),
            layers: Layer::DEFAULT.to_vec(),
            admin: None,
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(8),
            threads: None,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Command {
    Run(Box<Args>),
    Help,
}

/// What is wrong with the command line, in one sentence.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for Usage {
    fn from(error: lexopt::Error) -> Self {
        Self(match error {
            lexopt::Error::UnexpectedOption(flag) => format!("There is no flag {flag}; --help lists those there are."),
            lexopt::Error::UnexpectedArgument(value) => {
                format!("{} is not a flag; --help lists those there are.", value.display())
            }
            lexopt::Error::MissingValue { option: Some(flag) } => format!("{flag} needs a value."),
            lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value."),
            other => format!("The command line cannot be read: {other}."),
        })
    }
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, Usage> {
    let mut parser = Parser::from_args(arguments);
    let (mut args, mut help) = (Args::default(), false);
    while let Some(argument) = parser.next()? {
        let Arg::Long(name) = argument else { return Err(argument.unexpected().into()) };
        let mut flag = Flag { name: name.to_owned(), parser: &mut parser };
        match flag.name.as_str() {
            "help" => help = true,
            "listen" => args.listen = flag.value("an address such as 127.0.0.1:8080")?,
            "admin" => args.admin = Some(flag.value("an address such as 127.0.0.1:9090")?),
            "upstream" => add_route(&mut args.upstreams, &flag.text()?)?,
            "trust" => args.trust = flag.value("hops:N or a list of networks such as 10.0.0.0/8")?,
            "layers" => args.layers = layers(&flag.text()?)?,
            "threads" => args.threads = Some(flag.value::<Threads>("a number from 1 to 1024")?.0),
            "connect-timeout" => args.connect_timeout = flag.seconds()?,
            "head-timeout" => args.head_timeout = flag.seconds()?,
            "drain-timeout" => args.drain_timeout = flag.seconds()?,
            name if NOT_YET.contains(&name) => return Err(not_yet(&format!("--{name}"))),
            name => return Err(lexopt::Error::UnexpectedOption(format!("--{name}")).into()),
        }
    }
    Ok(if help { Command::Help } else { Command::Run(Box::new(args)) })
}

/// A flag, and where its value comes from.
struct Flag<'a> {
    name: String,
    parser: &'a mut Parser,
}

impl Flag<'_> {
    fn text(&mut self) -> Result<String, Usage> {
        let value = self.parser.value()?;
        value.into_string().map_err(|value| Usage(format!("--{}: {} is not UTF-8.", self.name, value.display())))
    }

    fn value<T: FromStr>(&mut self, expected: &str) -> Result<T, Usage> {
        let text = self.text()?;
        text.parse().map_err(|_| Usage(format!("--{} takes {expected}, not {text:?}.", self.name)))
    }

    fn seconds(&mut self) -> Result<Duration, Usage> {
        self.value::<Seconds>("seconds from 0.001 to 86400").map(|Seconds(duration)| duration)
    }
}

struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let seconds: f64 = text.parse().map_err(|_| ())?;
        if (0.001..=86_400.0).contains(&seconds) { Ok(Self(Duration::from_secs_f64(seconds))) } else { Err(()) }
    }
}

struct Threads(NonZeroUsize);

impl FromStr for Threads {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= 1024).map(Self).ok_or(())
    }
}

fn add_route(routes: &mut Vec<Route>, text: &str) -> Result<(), Usage> {
    let (prefix, url) = match text.split_once('=') {
        Some((prefix, url)) if prefix.starts_with('/') => (prefix, url),
        _ => ("/", text),
    };
    if url.contains('@') {
        // Not repeated in the sentence: there may be a password in it.
        return Err(Usage("--upstream: the URL names a user, which is not sent.".to_owned()));
    }
    let origin: Origin = url.parse().map_err(|why| Usage(format!("--upstream {text:?}: {why}.")))?;
    let route = Route::new(prefix, origin);
    if routes.iter().any(|other| other.prefix() == route.prefix()) {
        return Err(Usage(format!("--upstream: {prefix} has two origins.")));
    }
    routes.push(route);
    Ok(())
}

fn layers(text: &str) -> Result<Vec<Layer>, Usage> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let mut layers = Vec::new();
    for name in text.split(',') {
        let layer: Layer = name
            .parse()
            .map_err(|()| Usage(format!("--layers: {name:?} is none of {}; or `none` alone.", Layer::names())))?;
        if !Layer::DEFAULT.contains(&layer) {
            return Err(not_yet(&format!("--layers {name}")));
        }
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    Ok(layers)
}

fn not_yet(what: &str) -> Usage {
    Usage(format!("{what} is not available in this version."))
}

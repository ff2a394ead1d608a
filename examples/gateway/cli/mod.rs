//! The command line. What it accepts is a contract: flags are added, none changes its meaning.

mod cache;
mod help;
mod session;
mod store;
mod value;

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use lexopt::{Arg, Parser};
use tower_gatehouse::session::KeyRing;

use crate::{
    forwarded::Trust,
    layers::Layer,
    limits::Limits,
    upstream::{Origin, Route},
};
use value::{Flag, Threads};

pub(crate) use cache::{CacheArgs, PathRule};
pub(crate) use help::HELP;
pub(crate) use session::{Forward, SessionArgs};
pub(crate) use store::StoreArgs;
pub(crate) use value::Usage;

/// What the gateway is to do.
pub(crate) struct Args {
    pub(crate) listen: SocketAddr,
    /// None for the demo, which starts its own.
    pub(crate) upstreams: Vec<Route>,
    pub(crate) is_demo: bool,
    pub(crate) trust: Trust,
    /// Those to build; the order in which they stand is fixed.
    pub(crate) layers: Vec<Layer>,
    pub(crate) store: StoreArgs,
    pub(crate) cache: CacheArgs,
    pub(crate) session: SessionArgs,
    pub(crate) limits: Limits,
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
            is_demo: false,
            trust: Trust::default(),
            layers: Layer::DEFAULT.to_vec(),
            store: StoreArgs::default(),
            cache: CacheArgs::default(),
            session: SessionArgs::default(),
            limits: Limits::default(),
            admin: None,
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(8),
            threads: None,
        }
    }
}

pub(crate) enum Command {
    Run(Box<Args>),
    Help,
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
            "connect-timeout" => args.connect_timeout = flag.timeout()?,
            "head-timeout" => args.head_timeout = flag.timeout()?,
            "drain-timeout" => args.drain_timeout = flag.timeout()?,
            "limit" => {
                let text = flag.text()?;
                args.limits.each.push(text.parse().map_err(|error| flag.refuse(error))?);
            }
            "limit-on-error" => args.limits.on_error = flag.value("local, allow or deny")?,
            "limit-headers" => args.limits.headers = flag.value("draft, triple, x or none")?,
            "limit-shadow" => args.limits.shadow = true,
            name if StoreArgs::FLAGS.contains(&name) => args.store.set(&mut flag)?,
            name if CacheArgs::FLAGS.contains(&name) => args.cache.set(&mut flag)?,
            name if SessionArgs::FLAGS.contains(&name) => args.session.set(&mut flag)?,
            name => return Err(lexopt::Error::UnexpectedOption(format!("--{name}")).into()),
        }
    }
    if help {
        return Ok(Command::Help);
    }
    args.is_demo = args.upstreams.is_empty();
    if args.is_demo && args.layers.contains(&Layer::Session) {
        args.session.keys.get_or_insert_with(KeyRing::ephemeral);
    }
    check(&args)?;
    Ok(Command::Run(Box::new(args)))
}

/// What one flag alone does not show.
fn check(args: &Args) -> Result<(), Usage> {
    let Args { layers, limits, session, .. } = args;
    if layers.contains(&Layer::Limit) && limits.each.is_empty() {
        return Err(Usage("--layers limit needs a --limit, such as \"api=100/60s;key=ip\".".to_owned()));
    }
    if !layers.contains(&Layer::Session) {
        // Ignored in silence, these would leave open what is meant to be closed.
        let needs = session.given.as_deref().or_else(|| limits.need_session().then_some("--limit with key=user"));
        return needs.map_or(Ok(()), |what| Err(Usage(format!("{what} needs session among --layers."))));
    }
    if session.keys.is_none() {
        let how = "the name of a variable with 32 random bytes, such as `openssl rand -hex 32` makes";
        return Err(Usage(format!("--layers session needs --session-key-env, {how}.")));
    }
    let unknown = session.audiences.iter().find(|(prefix, _)| {
        // The demo has one origin, for all paths.
        let is_demo = args.is_demo && prefix.0.is_empty();
        !is_demo && !args.upstreams.iter().any(|route| *route.prefix() == *prefix.0)
    });
    unknown.map_or(Ok(()), |(prefix, _)| Err(Usage(format!("--audience: no --upstream is for {}/.", prefix.0))))
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
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    Ok(layers)
}

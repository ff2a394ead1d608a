//! One Redis server of the test's own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::clock::Clock;
use super::ports::Port;
use super::process::Process;
use super::resp::{Connection, Reply};
use super::wait::wait_until;

/// How long a server may take to answer its first PING.
const START: Duration = Duration::from_secs(20);

/// The program to start: `redis-server`, or what `REDIS_SERVER` names (another version, Valkey).
fn program() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct RedisBuilder {
    lines: Vec<String>,
    password: Option<String>,
    user: Option<(String, String)>,
    sentinel: bool,
    clock: Option<Clock>,
}

impl RedisBuilder {
    /// A line of `redis.conf`, such as `maxmemory 2mb`.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// `requirepass`: the password of the default user; it becomes part of [`RedisServer::url`].
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.config(format!("requirepass {password}"))
    }

    /// An ACL user with the rules given, such as `~shop:* +@all -@dangerous`; [`RedisServer::url`] then logs in as
    /// this user, while [`RedisServer::command`] stays with the default user.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, rules: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned()));
        self.config(format!("user {name} on >{password} {rules}"))
    }

    /// A limit on memory with the policy given, such as `noeviction` or `allkeys-lru`.
    #[must_use]
    pub fn maxmemory(self, bytes: u64, policy: &str) -> Self {
        self.config(format!("maxmemory {bytes}")).config(format!("maxmemory-policy {policy}"))
    }

    /// Runs as a Sentinel (`redis-server --sentinel`) that watches as these lines say; they come first.
    #[must_use]
    pub(super) fn sentinel(mut self, watch: &[String]) -> Self {
        self.sentinel = true;
        self.lines.splice(0..0, watch.iter().cloned());
        self
    }

    /// Runs by another clock.
    #[must_use]
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// Starts the server and waits for it to answer.
    ///
    /// # Panics
    /// Where there is no `redis-server`, or it does not start; the message has what it printed.
    pub fn start(self) -> RedisServer {
        let mut last = String::new();
        // Our own tests never take each other's ports; a stranger may.
        for _ in 0..5 {
            match RedisServer::try_start(&self) {
                Ok(server) => return server,
                Err(log) if log.contains("Address already in use") => last = log,
                Err(log) => panic!("redis-server does not start: {log}"),
            }
        }
        panic!("redis-server finds no free port: {last}");
    }
}

/// A Redis server on a port and in a directory of its own, without persistence; killed on drop.
#[derive(Debug)]
pub struct RedisServer {
    builder: RedisBuilder,
    port: Port,
    dir: TempDir,
    process: Process,
}

impl RedisServer {
    /// A standalone server that saves nothing.
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    fn try_start(builder: &RedisBuilder) -> Result<Self, String> {
        let port = Port::reserve();
        let dir = tempfile::Builder::new().prefix("gatehouse-redis-").tempdir().expect("a temporary directory");
        let process = launch(builder, port.number(), dir.path());
        let mut server = Self { builder: builder.clone(), port, dir, process };
        server.wait_for_start()?;
        Ok(server)
    }

    fn wait_for_start(&mut self) -> Result<(), String> {
        let start = std::time::Instant::now();
        loop {
            if !self.process.is_running() {
                return Err(self.process.log());
            }
            if matches!(self.try_command(&["PING"]), Ok(Reply::Bytes(_))) {
                return Ok(());
            }
            if start.elapsed() > START {
                return Err(format!("no answer after {START:?}: {}", self.process.log()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The directory of its configuration and log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `redis://[user:password@]127.0.0.1:port`.
    pub fn url(&self) -> String {
        let credentials = match (&self.builder.user, &self.builder.password) {
            (Some((user, password)), _) => format!("{user}:{password}@"),
            (None, Some(password)) => format!(":{password}@"),
            (None, None) => String::new(),
        };
        format!("redis://{credentials}127.0.0.1:{}", self.port())
    }

    /// A new connection, logged in as the default user.
    ///
    /// # Errors
    /// Where the server does not answer or refuses the password.
    pub fn connect(&self) -> io::Result<Connection> {
        let mut connection = Connection::open(self.port())?;
        if let Some(password) = &self.builder.password
            && let Reply::Error(error) = connection.call(&["AUTH", password])?
        {
            return Err(io::Error::other(error));
        }
        Ok(connection)
    }

    /// Sends one command as the default user, on a connection of its own (so that a failover or CLIENT KILL in between
    /// is not felt); an error of Redis is a [`Reply::Error`].
    ///
    /// # Errors
    /// Where the server does not answer.
    pub fn try_command<A: AsRef<[u8]>>(&self, args: &[A]) -> io::Result<Reply> {
        self.connect()?.call(args)
    }

    /// Sends one command as the default user, such as `command(&["SET", "key", "value"])`.
    ///
    /// # Panics
    /// Where the server does not answer, or answers with an error.
    pub fn command<A: AsRef<[u8]>>(&self, args: &[A]) -> Reply {
        let name = || String::from_utf8_lossy(args[0].as_ref()).into_owned();
        match self.try_command(args) {
            Ok(Reply::Error(error)) => panic!("{} on port {}: {error}", name(), self.port()),
            Ok(reply) => reply,
            Err(error) => panic!("{} on port {}: {error}", name(), self.port()),
        }
    }

    /// The ids of the clients that are connected, without those that are for messages and without who asks for this.
    ///
    /// # Panics
    /// Where the server does not answer.
    pub fn clients(&self) -> Vec<String> {
        let list = self.command(&["CLIENT", "LIST", "TYPE", "normal"]).text();
        let asks_for_it = |line: &&str| line.contains("cmd=client");
        let id = |line: &str| line.split([' ', '=']).nth(1).map(str::to_owned);
        list.lines().filter(|line| !asks_for_it(line)).filter_map(id).collect()
    }

    /// Writes the value of `key` once more under `prefix` and each of these numbers, in 32 decimal digits; the server
    /// does it by itself, a million in seconds.
    pub fn copy_many(&self, key: &str, prefix: &str, numbers: std::ops::Range<u32>) {
        const SCRIPT: &str = "local value = redis.call('GET', KEYS[1]) \
            for n = ARGV[2], ARGV[3] do redis.call('SET', ARGV[1] .. string.format('%032d', n), value) end";
        for from in numbers.clone().step_by(20_000) {
            let last = (from + 20_000).min(numbers.end) - 1;
            self.command(&["EVAL", SCRIPT, "1", key, prefix, &from.to_string(), &last.to_string()]);
        }
    }

    /// All keys, sorted.
    pub fn keys(&self) -> Vec<String> {
        let reply = self.command(&["KEYS", "*"]);
        let mut keys: Vec<_> =
            reply.array().iter().map(|key| String::from_utf8_lossy(key.bytes().unwrap()).into_owned()).collect();
        keys.sort();
        keys
    }

    /// A section of INFO as a map.
    pub fn info(&self, section: &str) -> BTreeMap<String, String> {
        self.command(&["INFO", section])
            .text()
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// How often each command was called since the start or [`reset_stats`](Self::reset_stats).
    pub fn commandstats(&self) -> CommandStats {
        let calls = self.info("commandstats").into_iter().filter_map(|(name, value)| {
            let calls = value.split(',').find_map(|field| field.strip_prefix("calls="))?.parse().ok()?;
            Some((name.strip_prefix("cmdstat_")?.to_owned(), calls))
        });
        CommandStats(calls.collect())
    }

    /// Sets the counts of [`commandstats`](Self::commandstats) to zero.
    pub fn reset_stats(&self) {
        self.command(&["CONFIG", "RESETSTAT"]);
    }

    /// Records every command that the server executes from now on.
    pub fn monitor(&self) -> Monitor {
        let mut connection = self.connect().expect("a connection for MONITOR");
        let reply = connection.call(&["MONITOR"]).expect("an answer to MONITOR");
        assert_eq!(reply, Reply::Bytes(b"OK".to_vec()), "MONITOR is refused");
        Monitor { connection }
    }

    /// Freezes the process (SIGSTOP): it accepts connections and answers nothing.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// Ends [`pause`](Self::pause) (SIGCONT).
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// Kills the process (SIGKILL). The port stays reserved for [`restart`](Self::restart).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the process where it runs, and starts it again on the same port with the same configuration and, since
    /// nothing is saved, without the data.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.process = launch(&self.builder, self.port(), self.dir.path());
        if let Err(log) = self.wait_for_start() {
            panic!("redis-server does not start again: {log}");
        }
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until INFO has `value` for `name`.
    ///
    /// # Panics
    /// Where that takes longer than `limit`.
    pub fn wait_for_info(&self, section: &str, name: &str, value: &str, limit: Duration) {
        wait_until(&format!("{name}:{value} on port {}", self.port()), limit, || self.info_is(section, name, value));
    }

    /// Whether INFO has this line now. A server that changes its role may cut the connection: then it has not.
    pub fn info_is(&self, section: &str, name: &str, value: &str) -> bool {
        let Ok(Reply::Bytes(info)) = self.try_command(&["INFO", section]) else { return false };
        String::from_utf8_lossy(&info).lines().any(|line| line.split_once(':') == Some((name, value)))
    }
}

fn launch(builder: &RedisBuilder, port: u16, dir: &Path) -> Process {
    let file = dir.join("redis.conf");
    let mut config = format!("bind 127.0.0.1\nport {port}\ndir {}\n", dir.display());
    if !builder.sentinel {
        config.push_str("save \"\"\nappendonly no\n");
    }
    for line in &builder.lines {
        let _ = writeln!(config, "{line}");
    }
    std::fs::write(&file, config).expect("a configuration file");
    let mut command = Command::new(program());
    command.arg(&file);
    if builder.sentinel {
        command.arg("--sentinel");
    }
    if let Some(clock) = &builder.clock {
        clock.set_for(&mut command);
    }
    match Process::spawn(&mut command, &dir.join("log")) {
        Ok(process) => process,
        Err(error) if error.kind() == io::ErrorKind::NotFound => panic!(
            "{} is not installed: run `sh tests/run.sh`, or install it (`apt-get install redis-server`)",
            program()
        ),
        Err(error) => panic!("{} cannot be started: {error}", program()),
    }
}

/// Calls per command, by the name that INFO gives it: lower case, a subcommand as `config|get`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandStats(BTreeMap<String, u64>);

impl CommandStats {
    pub fn calls(&self, command: &str) -> u64 {
        self.0.get(command).copied().unwrap_or(0)
    }

    /// All commands that were called, except those that a client sends to manage its connection and those that the
    /// test sends to look at the server. Commands that a script calls count beside the script.
    pub fn data(&self) -> BTreeMap<&str, u64> {
        const OTHER: [&str; 12] = [
            "ping", "hello", "auth", "info", "quit", "select", "echo", "monitor", "command", "readonly", "keys",
            "reset",
        ];
        let other = |name: &str| {
            OTHER.contains(&name) || ["client|", "config|", "cluster|", "acl|"].iter().any(|p| name.starts_with(p))
        };
        self.0.iter().filter(|(name, _)| !other(name)).map(|(name, calls)| (name.as_str(), *calls)).collect()
    }
}

/// A recording of what a server executes; see [`RedisServer::monitor`].
#[derive(Debug)]
pub struct Monitor {
    connection: Connection,
}

impl Monitor {
    /// The lines since the start or the last call, as MONITOR prints them:
    /// `1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`; for a call in a script `[0 lua]`.
    pub fn lines(&mut self, server: &RedisServer) -> Vec<String> {
        // What came before the marker on the server comes before it here.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let marker = format!("end of monitor {}", NEXT.fetch_add(1, Ordering::Relaxed));
        server.command(&["ECHO", &marker]);
        let mut lines = Vec::new();
        loop {
            let line = self.connection.read().expect("a line of MONITOR").text();
            if line.contains(&marker) {
                return lines;
            }
            lines.push(line);
        }
    }
}

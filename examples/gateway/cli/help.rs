//! What `--help` prints.

pub(crate) const HELP: &str = "\
A reverse proxy built from the layers of tower-gatehouse.

Usage: gateway [FLAGS]     without --upstream: a demo that says what to try

  --listen ADDR              default 127.0.0.1:8080; port 0 takes a free one; the one chosen is printed
  --upstream [PREFIX=]URL    an http:// origin for all paths, or for those under PREFIX; repeatable; longest prefix wins
  --trust hops:N|CIDR,...    proxies in front whose X-Forwarded-* are believed; default: none, they are set here
  --connect-timeout SECONDS  for a connection to an origin, then 504; default 5
  --head-timeout SECONDS     for the head of an origin's answer, then 504; default 30
  --drain-timeout SECONDS    for what is under way after SIGTERM or SIGINT; default 8
  --threads N                default: one for each core
  --admin ADDR               a second listener: /metrics (Prometheus), /stats (the same as JSON), /healthz,
                             POST /invalidate; the layers' own metrics with --features metrics

  --layers LIST              of limit,session,tags,swr,cache,coalesce; default tags,swr,cache,coalesce; `none` is a
                             plain proxy
  --redis URL                redis:// redis-cluster:// redis-sentinel://, or rediss for TLS; default: in memory
  --redis-timeout SECONDS    for one operation on Redis; then it goes on without; default 0.1, for limits 0.05
  --namespace NAME           what all keys in Redis begin with; default gh
  --wait-for-replicas N      an invalidation waits until so many replicas of each master have it, at most a second

  --profile safe|rfc9111     how the cache reads RFC 9111 where the two differ; default safe
  --default-ttl SECONDS      how long answers are fresh that do not say it; default 0: those with Last-Modified for a
                             tenth of their age, the others are not stored
  --ttl PREFIX=SECONDS       the same for paths under PREFIX; repeatable
  --bypass PREFIX            paths that are not cached; repeatable
  --max-body BYTES           the largest content that is stored; default 1048576
  --purge-token-env NAME     the variable with the token that allows PURGE, and POST /invalidate on --admin

  --limit LIMIT              such as \"api=100/60s;burst=20;key=ip\"; keys: ip, user, header:NAME, global; repeatable, and
                             nothing is counted where one of them refuses; those by user stand behind the others, and
                             need --layers with session
  --limit-on-error WHAT      while Redis is away: local (default), allow or deny
  --limit-headers FORM       draft (default), triple, x or none
  --limit-shadow             counts and logs, and refuses nobody

  --session-key-env NAME     the variable with the key of --layers session: 32 random bytes or more in hexadecimal or
                             base64, older keys after it, with commas between; the demo makes its own
  --session-source LIST      where clients send the token, the first found counts; default bearer,cookie
  --session-required PREFIX  401 for paths under PREFIX unless a user is logged in; repeatable
  --session-redis URL        a Redis for sessions alone; default: the other layers' store
  --forward signed|jwt|plain how X-Session tells origins who is asking; default signed; plain is not signed
  --audience PREFIX=NAME     whom X-Session is for at the --upstream of PREFIX; default: the host and port of its URL

  --help

RUST_LOG sets what is logged to stderr: error, warn, info (default), debug, trace.
";

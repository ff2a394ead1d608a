//! The command line.

use std::{
    net::TcpListener,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use crate::gateway::{Gateway, command};

fn run(arguments: &[&str]) -> Output {
    let mut command = command();
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the gateway starts");
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            child.kill().expect("it is killed");
            panic!("{arguments:?} does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("what it has printed")
}

#[test]
fn an_unknown_flag_or_a_bad_value_ends_with_one_sentence_and_status_2() {
    let cases: [(&[&str], &str); 31] = [
        (&["--bogus"], "There is no flag --bogus; --help lists those there are."),
        (&["--upstreams", "http://a"], "There is no flag --upstreams; --help lists those there are."),
        (&["-x"], "There is no flag -x; --help lists those there are."),
        (&["http://a"], "http://a is not a flag; --help lists those there are."),
        (&["--help=x"], "--help takes no value."),
        (&["--listen"], "--listen needs a value."),
        (&["--listen", "8080"], "--listen takes an address such as 127.0.0.1:8080, not \"8080\"."),
        (
            &["--listen", "127.0.0.1:99999"],
            "--listen takes an address such as 127.0.0.1:8080, not \"127.0.0.1:99999\".",
        ),
        (&["--admin", "here"], "--admin takes an address such as 127.0.0.1:9090, not \"here\"."),
        (&["--threads", "0"], "--threads takes a number from 1 to 1024, not \"0\"."),
        (&["--threads", "many"], "--threads takes a number from 1 to 1024, not \"many\"."),
        (&["--threads", "1025"], "--threads takes a number from 1 to 1024, not \"1025\"."),
        (&["--connect-timeout", "-1"], "--connect-timeout takes seconds from 0.001 to 86400, not \"-1\"."),
        (&["--head-timeout", "NaN"], "--head-timeout takes seconds from 0.001 to 86400, not \"NaN\"."),
        (&["--drain-timeout", "5s"], "--drain-timeout takes seconds from 0.001 to 86400, not \"5s\"."),
        (&["--trust", "hops:0"], "--trust takes hops:N or a list of networks such as 10.0.0.0/8, not \"hops:0\"."),
        (&["--trust", "all"], "--trust takes hops:N or a list of networks such as 10.0.0.0/8, not \"all\"."),
        (
            &["--trust", "10.0.0.0/33"],
            "--trust takes hops:N or a list of networks such as 10.0.0.0/8, not \"10.0.0.0/33\".",
        ),
        (
            &["--trust", "10.0.0.1,,"],
            "--trust takes hops:N or a list of networks such as 10.0.0.0/8, not \"10.0.0.1,,\".",
        ),
        (&["--limit-headers", "all"], "--limit-headers takes draft, triple, x or none, not \"all\"."),
        (&["--limit-on-error", "retry"], "--limit-on-error takes local, allow or deny, not \"retry\"."),
        (
            &["--layers", "none,limit"],
            "--layers: \"none\" is none of limit, session, tags, swr, cache, coalesce; or `none` alone.",
        ),
        (&["--layers", ""], "--layers: \"\" is none of limit, session, tags, swr, cache, coalesce; or `none` alone."),
        (&["--upstream", "localhost"], "--upstream \"localhost\": a URL begins with http://."),
        (&["--upstream", "ftp://a"], "--upstream \"ftp://a\": a URL begins with http://."),
        (&["--upstream", "https://a"], "--upstream \"https://a\": origins are reached over http:// only."),
        (
            &["--upstream", "/x=http://a/b"],
            "--upstream \"/x=http://a/b\": paths are passed on unchanged, so the URL has none of its own.",
        ),
        (
            &["--upstream", "http://a/?b=c"],
            "--upstream \"http://a/?b=c\": paths are passed on unchanged, so the URL has none of its own.",
        ),
        (&["--upstream", "http://u:p@a"], "--upstream: the URL names a user, which is not sent."),
        (
            &["--upstream", "http://a:99999"],
            "--upstream \"http://a:99999\": the URL names no host, or no port from 1 to 65535.",
        ),
        (&["--upstream", "/a=http://a", "--upstream", "/a/=http://b"], "--upstream: /a/ has two origins."),
    ];
    for (arguments, sentence) in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{sentence}\n"), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_malformed_limit_ends_with_one_sentence_and_status_2() {
    for text in [
        "",
        "api",
        "=1/1s",
        "api=1",
        "api=x/1s",
        "api=1/0s",
        "api=1/60",
        "api=1/1s;burst=0",
        "api=1/1s;key=x",
        "api=1/1s;key=header:",
        "api=1/1s;",
        "api=1/1s;what=1",
    ] {
        let output = run(&["--limit", text]);
        assert_eq!(output.status.code(), Some(2), "{text:?}");
        let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(sentence.starts_with("--limit: ") && sentence.ends_with(".\n"), "{text:?}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{text:?}: {sentence}");
    }
}

#[test]
fn flags_of_sessions_that_would_do_nothing_or_cannot_be_met_end_with_one_sentence_and_status_2() {
    let needs_key = "--layers session needs --session-key-env, the name of a variable with 32 random bytes, such as \
                     `openssl rand -hex 32` makes.";
    let sources = |text| format!("--session-source takes bearer, cookie or both, such as bearer,cookie, not {text:?}.");
    for (arguments, sentence) in [
        (["--layers", "session", "--upstream", "http://a"].as_slice(), needs_key),
        (&["--session-required", "/account"], "--session-required needs session among --layers."),
        (&["--forward", "plain", "--layers", "none"], "--forward needs session among --layers."),
        (&["--limit", "a=1/1s;key=user"], "--limit with key=user needs session among --layers."),
        (&["--session-source", "cookie,header"], &sources("cookie,header")),
        (&["--session-source", "cookie,cookie"], &sources("cookie,cookie")),
        (&["--session-required", "account"], "--session-required takes a prefix such as /account, not \"account\"."),
        (&["--forward", "clear"], "--forward takes signed, jwt or plain, not \"clear\"."),
        (&["--audience", "orders"], "--audience takes PREFIX=NAME such as /orders=orders, not \"orders\"."),
        (&["--audience", "/a=x", "--audience", "/a/=y"], "--audience: /a/ has no name, or two."),
        (&["--layers", "session", "--audience", "/a=x"], "--audience: no --upstream is for /a/."),
        (&["--session-key-env", "NOT_THERE_AT_ALL"], "--session-key-env: the environment has no NOT_THERE_AT_ALL."),
        (&["--session-key-env", "PATH"], "--session-key-env: a master key is written in hexadecimal or base64."),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{sentence}\n"), "{arguments:?}");
    }
}

#[test]
fn help_lists_the_flags() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).expect("text");
    for flag in ["--listen", "--upstream", "--trust", "--layers", "--admin", "--threads", "--head-timeout", "--forward"]
    {
        assert!(help.contains(flag), "{flag}");
    }
}

#[test]
fn a_busy_port_is_one_sentence() {
    let busy = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = busy.local_addr().expect("an address").to_string();
    for (flags, flag) in [
        (["--listen", &address].to_vec(), "--listen"),
        (["--listen", "127.0.0.1:0", "--admin", &address].to_vec(), "--admin"),
    ] {
        let output = run(&flags);
        assert_eq!(output.status.code(), Some(1));
        let sentence = format!("{address} is in use by another process; {flag} takes another.\n");
        assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
    }
}

#[test]
fn without_an_upstream_it_is_a_demo_that_says_what_to_try() {
    let gateway = Gateway::with(&[]);
    let text = gateway.process.log();
    let base = format!("curl -i http://{}", gateway.address());
    assert!(text.contains(&base), "{text}");
    assert!(text.contains("cargo run --example gateway -- --upstream http://127.0.0.1:3000"), "{text}");
    let mut client = gateway.connect();
    let answer = client.get("/products/1", "");
    assert_eq!((answer.status(), answer.head.get("etag")), (200, Some("\"1-1\"")));
    assert_eq!(client.get("/products/1", "If-None-Match: \"1-1\"\r\n").status(), 304);
    assert_eq!(
        client.ask("POST /products/1 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n").status(),
        204
    );
    assert_eq!(client.get("/products/1", "").head.get("etag"), Some("\"1-2\""));
    let search = "POST /search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"text\":\"7\"}";
    assert_eq!(client.ask(search).text(), r#"{"found":[7,17,27,37,47,57]}"#);
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    let start = Instant::now();
    assert_eq!(client.head().expect("an answer").status(), 200);
    assert_eq!(client.chunk().expect("an event"), Some(b"data: 0\n\n".to_vec()));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn it_runs_on_one_thread_too() {
    let gateway = Gateway::with(&["--threads", "1"]);
    assert_eq!(gateway.connect().get("/products/1", "").status(), 200);
}

//! The shape of the crate: which module may know which, how large a file is, and what is nowhere.
//!
//! ```text
//!  cache swr coalesce tag_invalidation session rate_limit aggregate      never import a sibling
//!                      |
//!   http_cache  exchange  identity  problem  body  extract …
//!                      |
//!       key  policy  stored  status        pure: no tokio, no backend, `now` is an argument
//!                      |
//!         backend  ->  tag, clock, metrics bytes only, knows nothing of HTTP
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Non-test lines of a file of `src`; the aim is 400.
const MAX_LINES: usize = 500;

/// Every module of the crate's root by its level. A module may import those of lower levels.
const LEVELS: [(Level, &[&str]); 6] = [
    (Level::Base, &["bounds", "clock", "digits", "hashed", "metrics", "ready", "span", "sync", "tag", "unbroken"]),
    (Level::Backend, &["backend"]),
    (Level::Pure, &["key", "policy", "status", "stored"]),
    (
        Level::Middle,
        &[
            "body",
            "caller",
            "exchange",
            "extract",
            "http_cache",
            "identity",
            "problem",
            "refusal",
            "response_ext",
            "upstream",
        ],
    ),
    (
        Level::Capability,
        &["aggregate", "body_key", "cache", "coalesce", "rate_limit", "session", "swr", "tag_invalidation"],
    ),
    (Level::Road, &["fuzz", "guide", "stack"]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Base,
    Backend,
    Pure,
    Middle,
    Capability,
    /// Puts capabilities together.
    Road,
}

/// What pure modules may take from `backend`: plain data.
const PLAIN_DATA: [&str; 10] =
    ["Entry", "EntryBuilder", "LeaseKind", "Mode", "PrimaryKey", "Scope", "Ticket", "Variant", "VaryOf", "VarySpec"];

/// Crates that do I/O or know the time, which pure modules therefore do not use.
const IMPURE: [&str; 6] = ["axum", "fred", "futures_util", "getrandom", "quick_cache", "tokio"];

/// Crates that only one folder knows, so that they can be replaced there. A client or a credential provider that the
/// user hands over is named by that folder, too.
const CONFINED: [(&str, &str); 1] = [("fred", "backend/redis")];

/// Sub-modules that never import each other.
const SIBLINGS: [&[&[&str]]; 1] = [&[&["backend", "cas"], &["backend", "memory"], &["backend", "redis"]]];

fn level(module: &str) -> Option<Level> {
    LEVELS.iter().find(|(_, modules)| modules.contains(&module)).map(|(level, _)| *level)
}

#[test]
fn every_module_imports_only_what_lies_below_it() {
    let files = source_files();
    let root = exports_of_the_root(&files);
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.module.is_empty()) {
        let from = &file.module[0];
        let Some(from_level) = level(from) else {
            wrong.push(format!("{from}: has no place in LEVELS of tests/architecture.rs; give it one"));
            continue;
        };
        for path in file.paths.iter().filter_map(|path| path.inside(&root)) {
            let to = &path[0];
            // What the root has and is no module: a macro, or the crate itself.
            let Some(to_level) = level(to) else { continue };
            let allowed = to == from
                || to_level < from_level && !(from_level == Level::Pure && to == "backend")
                || to_level == from_level && matches!(from_level, Level::Base | Level::Pure | Level::Middle)
                || from_level == Level::Pure
                    && to == "backend"
                    && path.get(1).is_some_and(|name| PLAIN_DATA.contains(&name.as_str()));
            if !allowed {
                wrong.push(format!("{}: {from} must not know {}", file.name, path.join("::")));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn sibling_modules_never_import_each_other() {
    let mut wrong = Vec::new();
    let root = BTreeMap::new();
    for file in source_files() {
        for group in SIBLINGS {
            let Some(own) = group.iter().find(|sibling| starts_with(&file.module, sibling)) else { continue };
            for path in file.paths.iter().filter_map(|path| path.inside(&root)) {
                if group.iter().any(|sibling| sibling != own && starts_with(&path, sibling)) {
                    wrong.push(format!("{}: {} must not know {}", file.name, own.join("::"), path.join("::")));
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    let mut wrong = Vec::new();
    for file in source_files() {
        if file.module.first().and_then(|module| level(module)) != Some(Level::Pure) {
            continue;
        }
        for path in file.paths.iter().filter_map(Named::outside) {
            let clock = path.iter().any(|name| name == "Instant" || name == "SystemTime");
            let io = path[0] == "std"
                && path.get(1).is_some_and(|n| ["net", "fs", "io", "thread", "process"].contains(&n.as_str()));
            if clock || io || IMPURE.contains(&path[0].as_str()) {
                wrong.push(format!("{}: a pure module uses {}", file.name, path.join("::")));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn a_store_s_client_is_known_in_its_own_folder_only() {
    let mut wrong = Vec::new();
    for file in source_files() {
        for path in file.paths.iter().filter_map(Named::outside) {
            for (name, folder) in CONFINED {
                let home = folder.split('/').collect::<Vec<_>>();
                if path[0] == name && !starts_with(&file.module, &home) {
                    wrong.push(format!("{}: uses {}; only src/{folder} may", file.name, path.join("::")));
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn files_are_small() {
    let wrong: Vec<_> = source_files()
        .iter()
        .filter(|file| file.lines > MAX_LINES)
        .map(|file| format!("{}: {} lines without its tests, at most {MAX_LINES}", file.name, file.lines))
        .collect();
    assert_none(&wrong);
}

#[test]
fn nothing_is_unsafe_unfinished_or_ignored() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "examples", "benches"] {
        for path in rust_files(&root().join(folder)) {
            let (name, text) = read(&path);
            let mut found = Vec::new();
            forbidden(tokens(&name, &text), &mut found);
            // Examples in the documentation run.
            found.extend(
                text.lines().filter(|line| line.contains("//") && line.contains(DOC_IGNORED)).map(str::to_owned),
            );
            wrong.extend(found.into_iter().map(|what| format!("{name}: {what}")));
        }
    }
    assert_none(&wrong);
}

/// In two parts, so that this file does not find itself.
const DOC_IGNORED: &str = concat!("```", "ignore");

#[test]
fn the_checks_see_what_they_look_for() {
    let text = r#"
        //! crate::comment::is_no_path
        use crate::{alpha::A, beta::{B, c::C}, Thing};
        pub(crate) fn f() { super::super::gamma::g(); tokio::select! { x = crate::delta::d() => {} } }
        mod inner { use super::super::epsilon; use super::own; }
        #[cfg(test)]
        mod tests { use crate::only_in_tests; }
        const TEXT: &str = "crate::string::is_no_path";
    "#;
    let module = vec!["here".to_owned(), "file".to_owned()];
    let mut paths = Vec::new();
    collect_paths(tokens("text", text), &module, &mut paths);
    let exports = BTreeMap::from([("Thing".to_owned(), vec!["omega".to_owned(), "Thing".to_owned()])]);
    let inside: Vec<_> = paths.iter().filter_map(|path| path.inside(&exports)).map(|path| path.join("::")).collect();
    assert_eq!(
        inside,
        [
            "alpha::A",
            "beta::B",
            "beta::c::C",
            "omega::Thing",
            "gamma::g",
            "delta::d",
            "here::epsilon",
            "here::file::own"
        ]
    );
    assert!(paths.iter().filter_map(Named::outside).any(|path| path[0] == "tokio"));

    for bad in ["unsafe { f() }", "todo!()", "mod m { fn f() { unimplemented!(\"x\") } }", "#[ignore] fn f() {}"] {
        let mut found = Vec::new();
        forbidden(tokens("text", bad), &mut found);
        assert_eq!(found.len(), 1, "{bad}");
    }
    assert_eq!(code_lines("a\n// b\n\n#[cfg(test)]\nmod tests {}\n"), 3);
    assert!(source_files().iter().any(|file| file.name == "src/backend/handle.rs" && !file.paths.is_empty()));
}

/// A file of `src` that is no test.
struct SourceFile {
    /// Relative to the root of the package.
    name: String,
    /// `src/a/b.rs` is `[a, b]`.
    module: Vec<String>,
    paths: Vec<Named>,
    lines: usize,
}

/// A path as the code names it.
#[derive(Debug)]
struct Named {
    /// Whether it begins in this crate, and then at its root.
    own: bool,
    segments: Vec<String>,
}

impl Named {
    /// From the root of this crate, behind the re-exports of the root.
    fn inside(&self, root: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
        let first = self.segments.first().filter(|_| self.own)?;
        Some(root.get(first).unwrap_or(&self.segments).clone())
    }

    /// Of another crate, or relative to the module.
    fn outside(&self) -> Option<&[String]> {
        (!self.own).then_some(&self.segments)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> (String, String) {
    let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
    (name, std::fs::read_to_string(path).expect("a file of text"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry of a folder").path()) {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn source_files() -> Vec<SourceFile> {
    let files = rust_files(&root().join("src")).into_iter().map(|path| read(&path));
    files
        .filter_map(|(name, text)| {
            let mut module: Vec<String> =
                name.trim_start_matches("src/").trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            if module.iter().any(|part| part == "tests" || part.ends_with("_tests")) {
                return None;
            }
            if module.last().is_some_and(|last| last == "mod" || last == "lib") {
                module.pop();
            }
            let mut paths = Vec::new();
            collect_paths(tokens(&name, &text), &module, &mut paths);
            Some(SourceFile { lines: code_lines(&text), name, module, paths })
        })
        .collect()
}

/// What `lib.rs` re-exports: the name to its path.
fn exports_of_the_root(files: &[SourceFile]) -> BTreeMap<String, Vec<String>> {
    let lib = files.iter().find(|file| file.module.is_empty()).expect("src/lib.rs");
    let exports = lib.paths.iter().filter(|path| path.segments.len() > 1);
    exports.map(|path| (path.segments.last().expect("two at least").clone(), path.segments.clone())).collect()
}

/// The tests come last in a file.
fn code_lines(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

fn tokens(name: &str, text: &str) -> TokenStream {
    text.parse().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All paths of more than one segment, groups of `use` unfolded, without those in modules of tests.
fn collect_paths(stream: TokenStream, module: &[String], paths: &mut Vec<Named>) {
    let tokens: Vec<_> = stream.into_iter().collect();
    let (mut at, mut of_tests) = (0, false);
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                let text = group.to_string().replace(' ', "");
                if group.delimiter() == Delimiter::Bracket && text == "[cfg(test)]" {
                    of_tests = true;
                } else {
                    collect_paths(group.stream(), module, paths);
                }
                at += 1;
            }
            TokenTree::Ident(word) if word == "mod" => {
                let body = match (tokens.get(at + 1), tokens.get(at + 2)) {
                    (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) => Some((name, body)),
                    _ => None,
                };
                if let Some((name, body)) = body {
                    if !of_tests {
                        collect_paths(body.stream(), &[module, &[name.to_string()]].concat(), paths);
                    }
                    at += 2;
                }
                of_tests = false;
                at += 1;
            }
            TokenTree::Ident(_) => at = path(&tokens, at, &Vec::new(), module, paths),
            TokenTree::Punct(mark) => {
                of_tests &= mark.as_char() == '#';
                at += 1;
            }
            TokenTree::Literal(_) => at += 1,
        }
    }
}

/// Reads the path that begins at `at`, below `prefix`; returns where it ends.
fn path(tokens: &[TokenTree], mut at: usize, prefix: &[String], module: &[String], paths: &mut Vec<Named>) -> usize {
    let (start, mut segments) = (at, prefix.to_vec());
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) => segments.push(name.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace && !segments.is_empty() => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                let mut next = 0;
                while next < inner.len() {
                    next = path(&inner, next, &segments, module, paths).max(next + 1);
                }
                return at + 1;
            }
            // A glob, or a turbofish.
            _ => break,
        }
        at += 1;
        if !(is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1))) {
            break;
        }
        at += 2;
    }
    let glob = matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == '*');
    if segments.len() > 1 && (at > start || glob) {
        paths.push(resolve(segments, module));
    }
    at
}

fn is_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':')
}

fn resolve(segments: Vec<String>, module: &[String]) -> Named {
    if !["crate", "self", "super"].contains(&segments[0].as_str()) {
        // In the root itself, a path begins in the root.
        return Named { own: module.is_empty(), segments };
    }
    let mut base = if segments[0] == "crate" { Vec::new() } else { module.to_vec() };
    let mut rest = segments.into_iter().peekable();
    while let Some(word) = rest.next_if(|word| ["crate", "self", "super"].contains(&word.as_str())) {
        if word == "super" {
            base.pop();
        }
    }
    base.extend(rest);
    Named { own: true, segments: base }
}

fn forbidden(stream: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<_> = stream.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1);
        match token {
            TokenTree::Ident(word) if word == "unsafe" => found.push("unsafe".to_owned()),
            TokenTree::Ident(word) if word == "todo" || word == "unimplemented" => {
                if matches!(next, Some(TokenTree::Punct(mark)) if mark.as_char() == '!') {
                    found.push(format!("{word}!"));
                }
            }
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                if let Some(TokenTree::Group(attribute)) = next
                    && let Some(TokenTree::Ident(name)) = attribute.stream().into_iter().next()
                    && name == "ignore"
                {
                    found.push("an ignored test".to_owned());
                }
            }
            TokenTree::Group(group) => forbidden(group.stream(), found),
            _ => {}
        }
    }
}

fn starts_with(path: &[String], prefix: &[&str]) -> bool {
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(a, b)| a == b)
}

fn assert_none(wrong: &[String]) {
    let wrong: std::collections::BTreeSet<_> = wrong.iter().map(String::as_str).collect();
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

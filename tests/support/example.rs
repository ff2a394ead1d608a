//! The examples as programs.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
};

/// The program of an example, built with the features of the test; once in each test binary.
///
/// # Panics
/// Where it does not build.
pub fn example(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    // One at a time.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(name.to_owned()).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    // `cargo test --test NAME` alone would run whatever was built last.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name]);
    cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    if !cfg!(feature = "default") {
        cargo.arg("--no-default-features");
    }
    let features = [
        ("axum", cfg!(feature = "axum")),
        ("jwt", cfg!(feature = "jwt")),
        ("memory", cfg!(feature = "memory")),
        ("metrics", cfg!(feature = "metrics")),
        ("redis", cfg!(feature = "redis")),
        ("test-util", cfg!(feature = "test-util")),
    ];
    if features.iter().all(|(_, on)| *on) {
        // Those, too, that make no difference to tests, so that nothing is built twice.
        cargo.arg("--all-features");
    }
    for (feature, _) in features.into_iter().filter(|(_, on)| *on) {
        cargo.args(["--features", feature]);
    }
    let mut dir = std::env::current_exe().expect("the path of this test");
    dir.pop();
    dir.pop();
    if dir.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success(), "the example {name} does not build");
    dir.join("examples").join(name)
}

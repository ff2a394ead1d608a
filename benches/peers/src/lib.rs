//! Benches only: `cargo bench --manifest-path benches/peers/Cargo.toml`.

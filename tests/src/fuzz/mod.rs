//! Entry points for any bytes at all: each takes an input and panics if a promise does not hold.
//!
//! They are driven two ways: by coverage-guided fuzzing (`make fuzz`, `tests/fuzz`), and in every test
//! run by the committed corpus, `tests/fuzz/corpus/<target>`, whole and changed.

mod codec;
mod connection;
mod frames;
mod shard;
mod topics;

/// An entry point.
pub struct Target {
    /// Its name: the directory of its corpus, and the program that fuzzes it.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
}

/// All entry points.
pub const TARGETS: &[Target] = &[
    Target { name: "codec", run: codec::run },
    Target { name: "connection", run: connection::run },
    Target { name: "frames", run: frames::run },
    Target { name: "shard", run: shard::run },
    Target { name: "topics", run: topics::run },
];

/// Runs the entry point of this name.
///
/// # Panics
/// There is none of this name, or a promise does not hold.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a fuzzed entry point has this name").run)(input);
}

//! What was counted before, and how far from it is too far.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

/// More than this is worse: what another machine's C library and another layout of the program have
/// been seen to change is below it.
const TOLERANCE: f64 = 0.05;

/// Counts by case.
pub(crate) struct Expected(BTreeMap<String, u64>);

/// What became of a case.
pub(crate) enum Verdict {
    /// Within the tolerance, or better.
    Fine { expected: u64, counted: u64 },
    /// Beyond it.
    Worse { expected: u64, counted: u64 },
    /// Nothing was expected.
    Unknown { counted: u64 },
}

impl Expected {
    /// As committed.
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(path()).expect("expected.txt is committed");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let counts = lines.filter_map(|line| {
            let (name, count) = line.rsplit_once(' ')?;
            Some((name.trim().to_owned(), count.parse().expect("a count ends each line")))
        });
        Self(counts.collect())
    }

    /// Judges a case.
    pub(crate) fn judge(&self, name: &str, counted: u64) -> Verdict {
        match self.0.get(name) {
            None => Verdict::Unknown { counted },
            Some(&expected) if counted as f64 > expected as f64 * (1.0 + TOLERANCE) => {
                Verdict::Worse { expected, counted }
            }
            Some(&expected) => Verdict::Fine { expected, counted },
        }
    }
}

/// Writes what was counted.
pub(crate) fn write(counted: &[(&'static str, u64)]) {
    let mut text =
        String::from("# Instructions a message, by callgrind. Written by `make bench-counts`.\n");
    for (name, count) in counted {
        text += &format!("{name:<28} {count}\n");
    }
    fs::write(path(), &text).expect("the checkout can be written");
    println!("{text}");
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { counted } => write!(f, "{:>10} {counted:>10}", "-"),
            Self::Fine { expected, counted } | Self::Worse { expected, counted } => {
                let change = (*counted as f64 / *expected as f64 - 1.0) * 100.0;
                write!(f, "{expected:>10} {counted:>10} {change:>+7.1}%")
            }
        }
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("counts/expected.txt")
}

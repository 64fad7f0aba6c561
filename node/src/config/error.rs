//! What is wrong with a configuration: always one line that names where, what, and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// `--set`.
    Set,
    /// Another command-line option.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Set => f.write_str("--set"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Why a configuration cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read ({source}): check --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: line {line}: not TOML: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser said.
        detail: String,
    },
    /// There is no such key.
    #[error("{place}: unknown key '{key}': the nearest known key is '{nearest}'")]
    UnknownKey {
        /// Where it was written.
        place: Source,
        /// The key.
        key: String,
        /// What may have been meant.
        nearest: String,
    },
    /// The key cannot have this value.
    #[error("{place}: {key} = {value}: {detail}")]
    Value {
        /// Where it was written.
        place: Source,
        /// The key.
        key: String,
        /// What was written.
        value: String,
        /// What is wanted.
        detail: String,
    },
    /// `--set` without `=`.
    #[error("--set {text}: write --set section.key=VALUE")]
    Set {
        /// What was written.
        text: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Conflict(String),
}

//! What an acknowledgement promises.

use std::fmt;
use std::str::FromStr;

/// What must have happened to a write before what waits for it may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Promise {
    /// The write is known to this process. Lost with the process.
    Memory,
    /// The operating system has it. Survives the process, not a power failure.
    Buffered,
    /// The disk has it. Survives a power failure.
    #[default]
    Synced,
}

impl Promise {
    /// Every promise, weakest first.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Buffered, Self::Synced];

    /// The promise's name in configuration files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Buffered => "buffered",
            Self::Synced => "synced",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Promise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|promise| promise.as_str() == text).ok_or_else(|| {
            format!("'{text}' is not a promise; promises are memory, buffered and synced")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_read_as_written_and_ordered_by_strength() {
        for promise in Promise::ALL {
            assert_eq!(promise.to_string().parse(), Ok(promise));
        }
        assert!(Promise::ALL.is_sorted());
        assert!("fsync".parse::<Promise>().unwrap_err().contains("'fsync' is not a promise"));
    }
}

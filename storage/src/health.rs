//! Whether a store takes writes, known to everyone who would ask it to.
//!
//! ```text
//!              free < reserve_bytes            a write fails
//!   writable ◀────────────────────▶ reserve  ───────────────▶ failed
//!       ▲     free ≥ 5/4 of it         │                        │
//!       └──────────────────────────────┴────────────────────────┘
//!                         the disk works again: the store was opened anew
//! ```
//!
//! In both troubles messages that would have to be stored are refused; with the reserve only those,
//! so that what ends (settlements, deletions, compactions) still has room.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::error::StoreError;

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Trouble {
    /// Less is free than is held back.
    Reserve = 1,
    /// ENOSPC or EDQUOT.
    Full = 2,
    /// EROFS or EACCES.
    ReadOnly = 3,
    /// EIO on a write or an fsync, or anything else the system says.
    Write = 4,
    /// EIO on a read.
    Read = 5,
    /// A checksum that does not fit.
    Corrupt = 6,
}

impl Trouble {
    /// Every trouble.
    pub const ALL: [Self; 6] =
        [Self::Reserve, Self::Full, Self::ReadOnly, Self::Write, Self::Read, Self::Corrupt];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Write => "write",
            Self::Read => "read",
            Self::Corrupt => "corrupt",
        }
    }

    /// What is wrong and what helps, for an operator.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Reserve => {
                "less is free on the disk of the data directory than storage.reserve_bytes: free \
                 space"
            }
            Self::Full => "the disk of the data directory is full: free space",
            Self::ReadOnly => "the data directory takes no writes: make it writable",
            Self::Write => "the disk of the data directory fails: look at the kernel's log",
            Self::Read => "the disk of the data directory cannot be read: look at the kernel's log",
            Self::Corrupt => "a file of the data directory is damaged: restore a backup",
        }
    }

    /// What a failed commit says of the disk; nothing if it is not about the disk.
    #[must_use]
    pub fn of(error: &StoreError) -> Option<Self> {
        match error {
            StoreError::Full { .. } => Some(Self::Full),
            StoreError::ReadOnly { .. } => Some(Self::ReadOnly),
            StoreError::Io { .. } => Some(Self::Write),
            StoreError::Corrupt { .. } => Some(Self::Corrupt),
            StoreError::Damaged { .. }
            | StoreError::WrongNode { .. }
            | StoreError::NewerVersion { .. }
            | StoreError::Locked { .. } => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.advice())
    }
}

/// How a store is. All threads of a node share it.
#[derive(Debug, Default)]
pub struct Health {
    /// 0 while writable, else the trouble. Every PUBLISH above QoS 0 reads it.
    now: AtomicU8,
    counts: [AtomicU64; Trouble::ALL.len()],
    recoveries: AtomicU64,
    left_out: AtomicU64,
}

impl Health {
    /// Whether messages that must be stored are refused.
    #[must_use]
    #[inline]
    pub fn is_refusing(&self) -> bool {
        self.now.load(Ordering::Relaxed) != 0
    }

    /// What is wrong now, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        let number = self.now.load(Ordering::Relaxed);
        Trouble::ALL.into_iter().find(|trouble| *trouble as u8 == number)
    }

    /// Refuses from now on. True if this is news.
    pub fn refuse(&self, trouble: Trouble) -> bool {
        self.now.swap(trouble as u8, Ordering::Relaxed) != trouble as u8
    }

    /// Refuses no longer. True if this is news.
    pub fn accept(&self) -> bool {
        self.now.swap(0, Ordering::Relaxed) != 0
    }

    /// Counts a failure.
    pub fn count(&self, trouble: Trouble) {
        self.counts[trouble as usize - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts that a store which had failed works again.
    pub fn count_recovery(&self) {
        self.recoveries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a stretch of rows that was left out, since it cannot be read.
    pub fn count_left_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Failures by kind.
    #[must_use]
    pub fn counts(&self) -> [(Trouble, u64); Trouble::ALL.len()] {
        Trouble::ALL.map(|one| (one, self.counts[one as usize - 1].load(Ordering::Relaxed)))
    }

    /// How often a store that had failed works again.
    #[must_use]
    pub fn recoveries(&self) -> u64 {
        self.recoveries.load(Ordering::Relaxed)
    }

    /// Stretches of rows that were left out, since they cannot be read.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_comes_and_goes_and_is_counted() {
        let health = Health::default();
        assert!(!health.is_refusing() && health.trouble().is_none());
        for trouble in Trouble::ALL {
            assert!(health.refuse(trouble), "{trouble} is news");
            assert!(!health.refuse(trouble), "{trouble} is known");
            health.count(trouble);
            assert_eq!(health.trouble(), Some(trouble));
            assert!(health.is_refusing() && !trouble.to_string().contains('\n'));
        }
        assert!(health.accept() && !health.accept());
        assert_eq!(health.counts().map(|(_, count)| count), [1; Trouble::ALL.len()]);
    }
}

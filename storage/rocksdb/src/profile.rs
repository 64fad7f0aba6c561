//! What kind of disk a store lies on, and what follows from it.
//!
//! | | `flash` | `ssd` | `server` |
//! |---|---|---|---|
//! | disk | eMMC, SD card | SATA or NVMe of a small machine | NVMe of a large one |
//! | scarce | erase cycles | neither | time |
//! | write-ahead log | zstd | as it is | as it is |
//! | rows that soon go | universal compaction | universal | universal |
//! | oldest files | zstd | lz4 | lz4 |
//! | compactions | 1 thread, 16 MB/s | 2 threads | 4 threads |
//! | log before rows become files | 64 MB | 256 MB | 1 GB |
//!
//! What the figures are measured to come to is in `docs/storage.md`.

use std::fmt;
use std::str::FromStr;

use rocksdb::{DBCompressionType, Options};

const MIB: usize = 1024 * 1024;

/// A kind of disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Flash without a controller worth the name: each byte written wears it.
    Flash,
    /// A solid-state disk.
    Ssd,
    /// A fast disk in a machine with cores to spare.
    Server,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 3] = [Self::Flash, Self::Ssd, Self::Server];

    /// The profile's name in configuration files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flash => "flash",
            Self::Ssd => "ssd",
            Self::Server => "server",
        }
    }

    /// Size of the write-ahead log after which what holds it back is written out: what a restart
    /// replays, at about 200 MB/s, and twice what memtables hold.
    #[must_use]
    pub fn wal_bytes_max(self) -> u64 {
        let mib = match self {
            Self::Flash => 64,
            Self::Ssd => 256,
            Self::Server => 1_024,
        };
        mib * MIB as u64
    }

    /// Threads for flushes and compactions.
    fn background_jobs(self) -> i32 {
        match self {
            Self::Flash => 1,
            Self::Ssd => 2,
            Self::Server => 4,
        }
    }

    /// Bytes a second that flushes and compactions may write, so that an fsync does not wait behind
    /// them on a disk that writes 20 to 60 MB/s; 0 is any number.
    fn background_bytes_per_second(self) -> i64 {
        match self {
            Self::Flash => 16 * MIB as i64,
            Self::Ssd | Self::Server => 0,
        }
    }

    /// Sets what concerns the whole database.
    pub(crate) fn set(self, options: &mut Options) {
        options.set_max_background_jobs(self.background_jobs());
        if self == Self::Flash {
            options.set_wal_compression_type(DBCompressionType::Zstd);
        }
        let rate = self.background_bytes_per_second();
        if rate > 0 {
            options.set_ratelimiter(rate, RATE_REFILL_MICROS, RATE_FAIRNESS);
        }
    }

    /// How the oldest files of a family are compressed.
    pub(crate) fn oldest(self) -> DBCompressionType {
        match self {
            Self::Flash => DBCompressionType::Zstd,
            Self::Ssd | Self::Server => DBCompressionType::Lz4,
        }
    }
}

/// RocksDB's own choices.
const RATE_REFILL_MICROS: i64 = 100_000;
const RATE_FAIRNESS: i32 = 10;

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == text).ok_or_else(|| {
            format!("'{text}' is not a storage profile; profiles are flash, ssd and server")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_as_written() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert!("disk".parse::<Profile>().unwrap_err().contains("'disk' is not a storage profile"));
    }
}

//! Counters of the link layer.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the link layer started.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct LinkStats { $($(#[$doc])* pub $name: u64,)* }

        /// The counters behind [`LinkStats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)* }

        impl Counters {
            pub(crate) fn snapshot(&self) -> LinkStats {
                LinkStats { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Dials begun.
    dials,
    /// Dials that gave no link.
    dials_failed,
    /// Incoming connections that were refused or whose handshake failed.
    refused,
    /// Links that came up.
    ups,
    /// Links that went down.
    downs,
    /// Connections replaced by another of the same pair and kind.
    replaced,
    /// Frames handed to QUIC.
    frames_sent,
    /// Bytes of frames handed to QUIC.
    frame_bytes_sent,
    /// Frames received.
    frames_received,
    /// Bytes of frames received.
    frame_bytes_received,
    /// Frames refused because the lane was full.
    frames_full,
    /// Datagrams handed to QUIC.
    datagrams_sent,
    /// Datagrams not sent: no link, or too large.
    datagrams_unsent,
    /// Datagrams received.
    datagrams_received,
    /// Datagrams dropped because the node did not take its events.
    datagrams_dropped,
}

/// A count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

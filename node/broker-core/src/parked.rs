//! What happened to sessions on their way out of memory and back, for operators.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Metric;

/// Something that is counted: name and help of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counted {
    /// A session left memory.
    Parked,
    /// A session came back into memory.
    Woken,
    /// The disk did not say whether there is a session, or what it is.
    Unread,
    /// A stored row could not be understood and was left out.
    Damaged,
    /// The wall clock leapt forward.
    ClockLeapt,
}

/// Names and helps, in the order of [`Counted`].
const METRICS: [(&str, &str); 5] = [
    ("sessions_parked_total", "Sessions without connection that left memory"),
    ("sessions_woken_total", "Sessions that were read back from the store when they were touched"),
    ("sessions_unread_total", "Times the store could not be read for a session"),
    ("storage_damaged_rows_total", "Stored rows that could not be understood and were left out"),
    ("clock_leaps_total", "Leaps forward of the wall clock, which age no session"),
];

/// Counts since this process began, shared by all threads of a node.
#[derive(Debug, Default)]
pub struct ParkedCounts([AtomicU64; METRICS.len()]);

impl ParkedCounts {
    /// It happened so many times more.
    pub fn add(&self, counted: Counted, count: u64) {
        if count > 0 {
            self.0[counted as usize].fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn get(&self, counted: Counted) -> u64 {
        self.0[counted as usize].load(Ordering::Relaxed)
    }

    /// The counts as metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let one = |((name, help), count): ((&'static str, &'static str), &AtomicU64)| Metric {
            name,
            help,
            labels: Vec::new(),
            value: count.load(Ordering::Relaxed),
        };
        METRICS.into_iter().zip(&self.0).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_under_its_name() {
        let counts = ParkedCounts::default();
        counts.add(Counted::Damaged, 3);
        counts.add(Counted::Woken, 0);
        let shown: Vec<_> =
            counts.metrics().into_iter().filter(|metric| metric.value > 0).collect();
        assert_eq!((shown.len(), shown[0].name), (1, "storage_damaged_rows_total"));
        assert_eq!(counts.get(Counted::Damaged), 3);
    }
}

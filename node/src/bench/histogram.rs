//! Latencies by the million: buckets that grow with what they count, off by a sixty-fourth at most.

/// Buckets for each power of two.
const STEPS: u64 = 64;
/// Powers of two, to 18 minutes in nanoseconds.
const POWERS: u64 = 40;

/// Counts of nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (STEPS * POWERS) as usize], total: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub(super) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// What this fraction of all do not exceed, in milliseconds, to the end of its bucket; none if
    /// nothing was counted.
    pub(super) fn quantile_ms(&self, fraction: f64) -> Option<f64> {
        let wanted = (fraction * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(end_of(found as u64) as f64 / 1e6)
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    // 64 to 127 are the first power above the exact ones.
    let power = u64::from(nanos.ilog2()) - 6;
    let within = (nanos >> power) - STEPS;
    ((power + 1) * STEPS + within).min(STEPS * POWERS - 1) as usize
}

fn end_of(bucket: u64) -> u64 {
    if bucket < STEPS {
        return bucket;
    }
    let (power, within) = (bucket / STEPS - 1, bucket % STEPS);
    ((STEPS + within + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_a_sixty_fourth_off_at_most() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_ms(0.5), None);
        for micros in 1..=10_000 {
            histogram.record(micros * 1_000);
        }
        for (fraction, exact) in [(0.5, 5.0), (0.99, 9.9), (0.0001, 0.001)] {
            let found = histogram.quantile_ms(fraction).unwrap();
            assert!((exact..=exact * 1.017).contains(&found), "{found} for {exact}");
        }
        for nanos in [0, 1, 63, 64, 65, 127, 128, 1_000_003, u64::MAX] {
            assert!(end_of(bucket(nanos) as u64) >= nanos.min(1 << 44));
        }
    }
}

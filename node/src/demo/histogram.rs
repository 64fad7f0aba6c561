//! Durations by the thousand in a fixed kilobyte: buckets that grow with what they count.

use std::time::Duration;

/// Buckets for each power of two: a quantile is off by at most 1/16.
const STEPS: usize = 16;
/// Powers of two, from a microsecond to more than an hour.
const POWERS: usize = 32;

/// Counts of durations.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * POWERS], total: 0, longest: Duration::ZERO }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        self.counts[bucket(duration)] += 1;
        self.total += 1;
        self.longest = self.longest.max(duration);
    }

    /// How many were counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The duration that this fraction of all do not exceed, rounded up to its bucket's end but not
    /// beyond the longest; none if nothing was counted.
    #[must_use]
    pub fn quantile(&self, fraction: f64) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let wanted = (fraction * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(end_of(bucket).min(self.longest));
            }
        }
        Some(self.longest)
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        (!self.is_empty()).then_some(self.longest)
    }
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
    let power = micros.ilog2() as usize;
    let within = (((u128::from(micros) - (1 << power)) * STEPS as u128) >> power) as usize;
    (power * STEPS + within).min(STEPS * POWERS - 1)
}

fn end_of(bucket: usize) -> Duration {
    let (power, within) = (bucket / STEPS, bucket % STEPS);
    let start = 1u64 << power;
    Duration::from_micros(start + (start * (within as u64 + 1)).div_ceil(STEPS as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_thousand_even_steps_are_a_sixteenth_off_at_most() {
        let mut histogram = Histogram::default();
        for ms in 1..=1_000 {
            histogram.record(Duration::from_millis(ms));
        }
        for (fraction, exact) in [(0.5, 500.0), (0.99, 990.0), (0.001, 1.0)] {
            let found = histogram.quantile(fraction).unwrap().as_secs_f64() * 1_000.0;
            assert!((exact..=exact * (1.0 + 1.0 / 16.0) + 0.01).contains(&found), "{found}");
        }
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_secs(1)));
        assert_eq!(histogram.longest(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn nothing_zero_and_for_ever_are_counted_too() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.quantile(0.5), Some(Duration::ZERO));
        histogram.record(Duration::from_secs(1 << 40));
        assert_eq!(histogram.len(), 2);
        assert!(histogram.quantile(1.0).is_some());
    }
}

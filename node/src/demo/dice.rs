//! Chance from a seed.
//!
//! Every choice of a run has its own dice, named by what it is for, so that one more choice
//! somewhere changes no other: the same `--seed` kills the same roadside unit at the same second.

use std::time::Duration;

/// A sequence of pseudo-random numbers (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The dice for one purpose within a run.
    #[must_use]
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        // FNV-1a over the name keeps the purposes apart, the mixing of `draw` does the rest.
        let mut state = 0xcbf2_9ce4_8422_2325_u64 ^ seed.rotate_left(32) ^ index;
        for byte in purpose.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut dice = Self { state };
        dice.draw();
        dice
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The high half of a product: no modulo bias worth the name for bounds this small.
        ((u128::from(self.draw()) * bound as u128) >> 64) as usize
    }

    /// A fraction from 0 up to, not including, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number from `low` up to `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.fraction()
    }

    /// True in this fraction of cases.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// A duration from zero up to `longest`.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_purposes_differ() {
        let numbers = |seed, purpose, index| {
            let mut dice = Dice::new(seed, purpose, index);
            [dice.draw(), dice.draw(), dice.draw()]
        };
        assert_eq!(numbers(1, "kill", 0), numbers(1, "kill", 0));
        let all = [(1, "kill", 0), (2, "kill", 0), (1, "cut", 0), (1, "kill", 1)];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(numbers(a.0, a.1, a.2), numbers(b.0, b.1, b.2));
            }
        }
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_both_halves() {
        let mut dice = Dice::new(7, "test", 0);
        let draws: Vec<usize> = (0..1_000).map(|_| dice.below(10)).collect();
        assert!((0..10).all(|face| draws.contains(&face)));
        let fractions: Vec<f64> = (0..1_000).map(|_| dice.fraction()).collect();
        assert!(fractions.iter().all(|f| (0.0..1.0).contains(f)));
        let mean = fractions.iter().sum::<f64>() / 1_000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert_eq!(dice.below(0), 0);
    }
}

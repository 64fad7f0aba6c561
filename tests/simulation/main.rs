//! Whole nodes under a seeded scheduler: virtual network, disk and clock, real shards and hubs.
//!
//! `VERGE_SIM_SEEDS` says how many seeds are run (default 1,000, spread over the families of
//! [`scenario`]); `VERGE_SIM_SEED` runs one, which is what a failing seed asks for.

mod client;
mod invariants;
mod oracle;
mod scenario;
mod world;

use std::fmt::Write as _;

use self::scenario::{Family, run};

/// Seeds run by default.
const SEEDS: u64 = 1_000;

/// Failing seeds shown in full.
const SHOWN: usize = 1;

fn family_of(seed: u64) -> Family {
    Family::ALL[(seed % Family::ALL.len() as u64) as usize]
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_invariant_holds_for_every_seed() {
    let seeds: Vec<u64> = match number("VERGE_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("VERGE_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let mut failed = Vec::new();
    let (mut messages, mut steps, mut unheard) = (0, 0, 0);
    for seed in &seeds {
        let family = family_of(*seed);
        let outcome = std::panic::catch_unwind(|| {
            let world = run(family, *seed);
            let failures = world.oracle.failures.clone();
            let sent = world.oracle.messages.len();
            let alone = world.served_without_owner() > 0;
            (failures, world.oracle.tail(), sent, world.steps, alone)
        });
        match outcome {
            Ok((failures, tail, sent, events, alone)) => {
                unheard += u32::from(alone);
                messages += sent;
                steps += events;
                if !failures.is_empty() {
                    failed.push((*seed, family, failures, tail));
                }
            }
            Err(_) => failed.push((*seed, family, vec!["a panic".into()], String::new())),
        }
    }
    println!(
        "{} seeds, {messages} messages, {steps} events; in {unheard} a session was served without \
         its owner's word",
        seeds.len()
    );
    let mut text = String::new();
    for (seed, family, failures, tail) in failed.iter().take(SHOWN) {
        let _ = writeln!(text, "{tail}\n\nseed {seed} ({family:?}):");
        for failure in failures.iter().take(10) {
            let _ = writeln!(text, "  {failure}");
        }
    }
    for (seed, family, failures, _) in &failed {
        let first = failures.first().map(String::as_str).unwrap_or_default();
        let _ = writeln!(text, "VERGE_SIM_SEED={seed} {family:?} {first}");
    }
    assert!(failed.is_empty(), "{} of {} seeds failed\n{text}", failed.len(), seeds.len());
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in 0..Family::ALL.len() as u64 {
        let twice: Vec<_> = (0..2)
            .map(|_| {
                let world = run(family_of(seed), seed);
                (world.oracle.hash(), world.oracle.lines, world.steps)
            })
            .collect();
        assert_eq!(twice[0], twice[1], "seed {seed}");
    }
}

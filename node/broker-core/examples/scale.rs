//! A million sessions with five million subscriptions in one node, by the clock and by the byte:
//! `cargo run --release -p verge-broker-core --example scale [SESSIONS]`
//!
//! Batches count as durable at once and are not kept. Costs are those of the last ten thousand
//! operations at each size; bytes are what the allocator has handed out and not taken back.

use std::alloc::System;
use std::time::Instant;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use rig::fleet::{Fleet, SUBSCRIPTIONS};

#[path = "../benches/rig/mod.rs"]
mod rig;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Operations whose cost is told.
const SAMPLE: usize = 10_000;

fn main() {
    let asked = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let most: usize = asked.unwrap_or(1_000_000).max(SAMPLE);
    println!(
        "{:>9} {:>13} | {:>9} {:>9} | {:>8} {:>10} {:>8} {:>12}",
        "sessions",
        "subscriptions",
        "B/session",
        "B/subscr.",
        "CONNECT",
        "SUBSCRIBE",
        "PUBLISH",
        "UNSUBSCRIBE"
    );
    let mut fleet = Fleet::new();
    fleet.reserve(most);
    let (mut sessions_bytes, mut subscriptions_bytes) = (0, 0);
    let sizes = [10_000, 100_000, 1_000_000].into_iter().filter(|size| *size < most).chain([most]);
    for size in sizes {
        let from = fleet.len();
        let before = live_bytes();
        (from..size - SAMPLE).for_each(|_| fleet.connect());
        let connect = sample(|_| fleet.connect());
        let connected = live_bytes();
        (from..size - SAMPLE).for_each(|number| fleet.subscribe(number));
        let subscribe = sample(|number| fleet.subscribe(size - SAMPLE + number));
        let subscribed = live_bytes();
        sessions_bytes += connected - before;
        subscriptions_bytes += subscribed - connected;
        assert_eq!(fleet.subscriptions(), size * SUBSCRIPTIONS);
        let publish = sample(|number| fleet.order(number * 7_919 % size));
        let unsubscribe = sample(|number| fleet.unsubscribe(number));
        (0..SAMPLE).for_each(|number| fleet.subscribe(number));
        let each = SUBSCRIPTIONS as f64;
        println!(
            "{size:>9} {:>13} | {:>9.0} {:>9.0} | {connect:>5.2} us {:>7.2} us {publish:>5.2} us \
             {:>9.2} us",
            size * SUBSCRIPTIONS,
            sessions_bytes as f64 / size as f64,
            subscriptions_bytes as f64 / (size * SUBSCRIPTIONS) as f64,
            subscribe / each,
            unsubscribe / each,
        );
    }
}

/// Microseconds each takes.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn sample(mut operation: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    (0..SAMPLE).for_each(&mut operation);
    start.elapsed().as_secs_f64() * 1e6 / SAMPLE as f64
}

fn live_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

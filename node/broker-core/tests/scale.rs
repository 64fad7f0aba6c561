//! What a session and a subscription cost must not grow with how many there are: counted in bytes
//! and in allocations, which are the same on every machine.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use rig::fleet::{Fleet, SUBSCRIPTIONS};

#[path = "../benches/rig/mod.rs"]
mod rig;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Hash tables are about equally full at both, a little below a power of two's seven eighths: what
/// they have in reserve is not what this is about.
const FEW: usize = 7_000;
const MANY: usize = 4 * FEW;

/// Bytes of a session with its connection, all tables included.
const SESSION_BYTES_MAX: f64 = 740.0;
/// Bytes of a subscription, in its session and in the router: of five two are to topics of the
/// vehicle's own, one has a wildcard of its own, and two are shared with fifty others.
const SUBSCRIPTION_BYTES_MAX: f64 = 175.0;

/// Operations of which the allocations are counted.
const SAMPLE: usize = 1_000;

#[derive(Debug)]
struct Cost {
    bytes_per_session: f64,
    bytes_per_subscription: f64,
    /// Allocations of one CONNECT, one vehicle's SUBSCRIBEs, one PUBLISH, its UNSUBSCRIBEs.
    allocations: [f64; 4],
}

#[test]
fn a_session_costs_the_same_among_few_and_many() {
    let mut fleet = Fleet::new();
    fleet.reserve(MANY);
    let few = grow(&mut fleet, FEW, (0, 0));
    let (sessions, subscriptions) = (
        few.bytes_per_session * FEW as f64,
        few.bytes_per_subscription * (FEW * SUBSCRIPTIONS) as f64,
    );
    let many = grow(&mut fleet, MANY, (sessions as usize, subscriptions as usize));
    println!("{FEW}: {few:?}\n{MANY}: {many:?}");
    within(few.bytes_per_session, many.bytes_per_session, "bytes of a session");
    within(few.bytes_per_subscription, many.bytes_per_subscription, "bytes of a subscription");
    assert!(many.bytes_per_session <= SESSION_BYTES_MAX, "{many:?}");
    assert!(many.bytes_per_subscription <= SUBSCRIPTION_BYTES_MAX, "{many:?}");
    let names = ["CONNECT", "SUBSCRIBE", "PUBLISH", "UNSUBSCRIBE"];
    for (at, name) in names.into_iter().enumerate() {
        within(few.allocations[at], many.allocations[at], &format!("allocations of {name}"));
    }
}

/// Grows the fleet to `size`; earlier vehicles hold `before` bytes of sessions and subscriptions.
fn grow(fleet: &mut Fleet, size: usize, before: (usize, usize)) -> Cost {
    let from = fleet.len();
    let start = live_bytes();
    (from..size - SAMPLE).for_each(|_| fleet.connect());
    let connect = count(|_| fleet.connect());
    let connected = live_bytes();
    (from..size - SAMPLE).for_each(|number| fleet.subscribe(number));
    let subscribe = count(|number| fleet.subscribe(size - SAMPLE + number));
    let subscribed = live_bytes();
    // Once before it counts: a topic is made known to its thread by its first message.
    (0..SAMPLE).for_each(|number| fleet.order(number * 7 % size));
    let publish = count(|number| fleet.order(number * 7 % size));
    let unsubscribe = count(|number| fleet.unsubscribe(number));
    (0..SAMPLE).for_each(|number| fleet.subscribe(number));
    assert_eq!(fleet.subscriptions(), size * SUBSCRIPTIONS);
    let sessions = before.0 + connected - start;
    let subscriptions = before.1 + subscribed - connected;
    Cost {
        bytes_per_session: sessions as f64 / size as f64,
        bytes_per_subscription: subscriptions as f64 / (size * SUBSCRIPTIONS) as f64,
        allocations: [connect, subscribe, publish, unsubscribe],
    }
}

/// Allocations of one operation.
fn count(mut operation: impl FnMut(usize)) -> f64 {
    let before = ALLOCATOR.stats().allocations;
    (0..SAMPLE).for_each(&mut operation);
    (ALLOCATOR.stats().allocations - before) as f64 / SAMPLE as f64
}

fn live_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn within(few: f64, many: f64, what: &str) {
    assert!((many / few - 1.0).abs() < 0.1, "{what}: {few:.1} among few, {many:.1} among many");
}

//! Live traffic on a thread of its own, beside something else that a broker does: pairs at a steady
//! rate, whose latency is told before and during.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use verge_mqtt_proto::QoS;

use super::flow::{Exchange, Flow, Shape};
use super::net::{Net, Target};
use super::poll::{MS, SEC, now};
use super::run::run_number;

/// Pairs of publisher and subscriber.
const PAIRS: usize = 20;
/// Messages a second of all pairs together: a small part of what any broker can.
const RATE: f64 = 2_000.0;
/// The first messages, which are not counted, in nanoseconds.
const WARMUP: u64 = SEC;
/// Silence after which what has not arrived is lost, in nanoseconds.
const GIVE_UP: u64 = 5 * SEC;

/// What goes on beside the live traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// What is not told.
    Preparing,
    /// Nothing.
    Before,
    /// What it is compared with.
    During,
    /// The end.
    Ended,
}

/// What became of the live traffic.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lived {
    /// 99 % of the latencies before, in milliseconds.
    pub(super) before_ms: Option<f64>,
    /// And during.
    pub(super) during_ms: Option<f64>,
    /// Messages that were lost, doubled, changed or out of order.
    pub(super) faults: u64,
}

/// Traffic under way.
pub(super) struct Live {
    /// Looked at some hundred times a second.
    phase: Arc<Mutex<Phase>>,
    thread: JoinHandle<io::Result<Lived>>,
}

impl Live {
    /// Begins, while something else is prepared.
    pub(super) fn begin(target: &Target) -> io::Result<Self> {
        let phase = Arc::new(Mutex::new(Phase::Preparing));
        let (target, told) = (target.clone(), Arc::clone(&phase));
        let thread = std::thread::Builder::new().name("live".into());
        let thread = thread.spawn(move || run(&target, &told))?;
        Ok(Self { phase, thread })
    }

    /// Goes on in this phase.
    pub(super) fn goes_on(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Ends, and tells.
    pub(super) fn end(self) -> io::Result<Lived> {
        self.goes_on(Phase::Ended);
        self.thread.join().map_err(|_| io::Error::other("the live traffic's thread panicked"))?
    }
}

fn run(target: &Target, told: &Mutex<Phase>) -> io::Result<Lived> {
    let exchange = Exchange {
        shape: Shape::Pairs,
        publishers: PAIRS,
        subscribers: PAIRS,
        qos: QoS::AtLeastOnce,
        payload_bytes: 256,
        rate: Some(RATE),
        window: 1_000,
    };
    let mut net = Net::to(target.clone())?;
    let mut flow = Flow::new(exchange, run_number(), target.version);
    let clients =
        (0..PAIRS).map(|at| flow.subscriber(at)).chain((0..PAIRS).map(|at| flow.publisher(at)));
    let clients = clients.collect();
    net.connect_all(&mut flow, PAIRS, clients);
    if net.failed > 0 {
        return Err(io::Error::other(net.error.clone().unwrap_or_default()));
    }
    flow.begin(WARMUP, u64::MAX / 2);
    let (mut phase, mut found) = (Phase::Preparing, Lived::default());
    while phase != Phase::Ended {
        let next = flow.step(&mut net).min(now() + 5 * MS);
        net.turn(&mut flow, next);
        let current = *told.lock().unwrap_or_else(PoisonError::into_inner);
        if current != phase {
            let p99_ms = std::mem::take(&mut flow.latency).quantile_ms(0.99);
            match phase {
                Phase::Before => found.before_ms = p99_ms,
                Phase::During => found.during_ms = p99_ms,
                Phase::Preparing | Phase::Ended => {}
            }
            phase = current;
        }
    }
    flow.end();
    while !flow.is_complete() && now() < flow.last_arrival() + GIVE_UP {
        net.turn(&mut flow, now() + 20 * MS);
        flow.step(&mut net);
    }
    flow.close_books();
    let counts = flow.counts;
    let faults = counts.lost + counts.doubled + counts.reordered + counts.corrupt + counts.broken;
    found.faults = faults + counts.bad_acks;
    net.leave_all();
    Ok(found)
}

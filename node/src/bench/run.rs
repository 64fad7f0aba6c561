//! One exchange against one broker, measured.

use std::io;

use verge_mqtt_proto::ProtocolVersion;

use super::flow::{Counts, Exchange, Flow};
use super::net::{Net, Target};
use super::poll::{MS, SEC, now};
use super::procfs::{Usage, machine_cpu_secs};

/// Connections begun at once when a workload is set up.
const CONNECTING_MAX: usize = 200;
/// Silence after which what has not arrived is lost, in nanoseconds.
const DRAIN: u64 = 2 * SEC;

/// How long an exchange is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// Before the measured window, in seconds.
    pub(super) warmup: f64,
    /// The measured window, in seconds.
    pub(super) seconds: f64,
}

/// What one exchange with one broker showed.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Outcome {
    /// Deliveries a second.
    pub(super) rate: f64,
    /// The broker's CPU seconds per million deliveries; none without its process ids.
    pub(super) cpu: Option<f64>,
    /// Latency, in milliseconds.
    pub(super) p50_ms: Option<f64>,
    /// Latency, in milliseconds.
    pub(super) p99_ms: Option<f64>,
    /// How late messages were written, in milliseconds.
    pub(super) lag_p99_ms: Option<f64>,
    /// Share of the window in which the generator's thread ran.
    pub(super) generator_share: f64,
    /// Share in which the generator's thread waited for a core.
    pub(super) generator_wait: f64,
    /// Share in which the broker's threads waited for a core, summed.
    pub(super) broker_wait: f64,
    /// Cores' worth of work of everybody else.
    pub(super) others_share: f64,
    /// The whole run, warm-up included.
    pub(super) counts: Counts,
    /// What to mind when reading the figures.
    pub(super) notes: Vec<String>,
}

/// Runs an exchange.
pub(super) fn exchange(
    exchange: &Exchange,
    timing: Timing,
    target: &Target,
    pids: &[u32],
) -> io::Result<Outcome> {
    let run = run_number();
    let version: ProtocolVersion = target.version;
    let mut net = Net::to(target.clone())?;
    let mut flow = Flow::new(exchange.clone(), run, version);
    let subscribers = (0..exchange.subscribers).map(|number| flow.subscriber(number)).collect();
    let publishers = (0..exchange.publishers).map(|number| flow.publisher(number)).collect();
    net.connect_all(&mut flow, CONNECTING_MAX, subscribers);
    net.connect_all(&mut flow, CONNECTING_MAX, publishers);
    if net.failed > 0 {
        let why = net.error.clone().unwrap_or_default();
        return Err(io::Error::other(format!("{} connections failed: {why}", net.failed)));
    }
    let ns = |secs: f64| (secs * SEC as f64) as u64;
    let (from, to) = (ns(timing.warmup), ns(timing.warmup + timing.seconds));
    let start = now();
    flow.begin(from, to);
    let own = [std::process::id()];
    run_until(&mut net, &mut flow, start + from);
    let before = Look::take(pids, &own, flow.counts.delivered);
    run_until(&mut net, &mut flow, start + to);
    let after = Look::take(pids, &own, flow.counts.delivered);
    flow.end();
    while !flow.is_complete() && now() < flow.last_arrival().max(start + to) + DRAIN {
        net.turn(&mut flow, now() + 20 * MS);
        flow.step(&mut net);
    }
    flow.close_books();
    let mut outcome = after.since(&before, !pids.is_empty());
    outcome.counts = flow.counts;
    outcome.p50_ms = flow.latency.quantile_ms(0.5);
    outcome.p99_ms = flow.latency.quantile_ms(0.99);
    outcome.lag_p99_ms = flow.lag.quantile_ms(0.99);
    outcome.note(exchange);
    net.leave_all();
    Ok(outcome)
}

fn run_until(net: &mut Net, flow: &mut Flow, until: u64) {
    while now() < until {
        let next = flow.step(net).min(until);
        net.turn(flow, next);
    }
}

/// Another number for each run.
pub(super) fn run_number() -> u32 {
    rand::random()
}

/// What the machine has done until a moment.
struct Look {
    at: u64,
    broker: Usage,
    own: Usage,
    machine: f64,
    delivered: u64,
}

impl Look {
    fn take(pids: &[u32], own: &[u32], delivered: u64) -> Self {
        let at = now();
        let (broker, own) = (Usage::of(pids), Usage::of(own));
        Self { at, broker, own, machine: machine_cpu_secs(), delivered }
    }

    fn since(&self, before: &Self, has_broker: bool) -> Outcome {
        let secs = (self.at - before.at) as f64 / SEC as f64;
        let delivered = (self.delivered - before.delivered) as f64;
        let (broker, own) = (self.broker.since(before.broker), self.own.since(before.own));
        let others = self.machine - before.machine - broker.cpu_secs - own.cpu_secs;
        Outcome {
            rate: delivered / secs,
            cpu: (has_broker && delivered > 0.0).then(|| broker.cpu_secs / delivered * 1e6),
            generator_share: own.cpu_secs / secs,
            generator_wait: own.wait_secs / secs,
            broker_wait: broker.wait_secs / secs,
            others_share: if has_broker { (others / secs).max(0.0) } else { 0.0 },
            ..Outcome::default()
        }
    }
}

/// Above these a figure is worth a remark.
const GENERATOR_BUSY: f64 = 0.9;
const WAIT_HIGH: f64 = 0.1;
const OTHERS_HIGH: f64 = 0.2;

impl Outcome {
    fn note(&mut self, exchange: &Exchange) {
        let mut notes = Vec::new();
        if self.generator_share > GENERATOR_BUSY {
            notes.push("the generator's thread was the limit".to_owned());
        }
        if self.generator_wait.max(self.broker_wait) > WAIT_HIGH {
            notes.push("threads waited for a core".to_owned());
        }
        if self.others_share > OTHERS_HIGH {
            notes.push(format!("other processes took {:.1} cores", self.others_share));
        }
        if let Some(rate) = exchange.rate {
            let fan = self.counts.delivered as f64 / self.counts.sent.max(1) as f64;
            if self.rate < rate * fan * 0.98 {
                notes.push("the asked rate was not kept up".to_owned());
            }
        }
        if !self.counts.is_clean() {
            let Counts { lost, doubled, reordered, corrupt, bad_acks, broken, stalls, .. } =
                self.counts;
            let faults = [
                (lost, "lost"),
                (doubled, "doubled"),
                (reordered, "reordered"),
                (corrupt, "corrupt"),
                (bad_acks, "bad acknowledgements"),
                (broken, "broken connections"),
                (stalls, "stalls"),
            ];
            let found = faults.iter().filter(|(count, _)| *count > 0);
            notes.extend(found.map(|(count, what)| format!("{count} {what}")));
        }
        self.notes = notes;
    }
}

//! The comparison: each piece of work by each broker in turn, freshly started, in rounds.

use std::sync::Arc;

use rustls::ClientConfig;

use super::conns::{self, Security};
use super::crowd;
use super::durable::{self, Watched};
use super::figures::{
    churn_figures, durable_figures, exchange_figures, fan_figures, held_figures, idle_figures,
    kept_figures, restart_figures, subscribe_figures, trickle_figures,
};
use super::flow::{Exchange, Shape};
use super::held;
use super::net::Target;
use super::peers::{Broker, Manner, Peer, ServerFiles};
use super::report::{Figures, Point, Results};
use super::run::{self, Outcome, Timing};
use super::store;
use super::subs;
use super::work::{Kind, Work};

/// What is compared, and how.
pub(super) struct Suite {
    pub(super) peers: Vec<Peer>,
    pub(super) works: Vec<Work>,
    pub(super) rounds: usize,
    pub(super) timing: Timing,
    pub(super) files: Option<ServerFiles>,
    pub(super) tls: Arc<ClientConfig>,
    /// Whether latency is drawn against the offered rate.
    pub(super) sweep: bool,
}

/// Fractions of a broker's own maximum that a sweep offers.
const SWEEP: [f64; 7] = [0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95];

impl Suite {
    /// Does all of it.
    pub(super) fn run(&self) -> Results {
        let mut results = Results::new(&self.peers);
        for (at, work) in self.works.iter().enumerate() {
            for round in 0..self.rounds {
                for &peer in &self.peers {
                    eprintln!(
                        "{}/{} {} round {} {}",
                        at + 1,
                        self.works.len(),
                        work.name,
                        round + 1,
                        peer.name()
                    );
                    match self.one(work, peer) {
                        Ok(Some(figures)) => results.add(&work.name, peer, figures),
                        Ok(None) => {}
                        Err(error) => results.fail(&work.name, peer, error),
                    }
                }
            }
        }
        if self.sweep {
            self.sweep(&mut results);
        }
        results
    }

    fn one(&self, work: &Work, peer: Peer) -> Result<Option<Figures>, String> {
        let simple = matches!(work.kind, Kind::Exchange(_) | Kind::Idle(..) | Kind::Churn(..));
        if peer == Peer::Null && !simple {
            return Ok(None);
        }
        if matches!(work.kind, Kind::Held(..)) && peer != Peer::Verge {
            return Ok(None);
        }
        if let Kind::Restart { .. } = work.kind
            && !peer.is_durable()
        {
            return Ok(None);
        }
        let broker = Broker::start(peer, self.files.as_ref(), work.kind.manner())?;
        let (pids, plain) = (broker.pids(), self.plain(&broker));
        let secured = |security| conns::target(&broker, security, &self.tls);
        let figures = match &work.kind {
            Kind::Exchange(exchange) => self.exchange(exchange, &broker).map(Some),
            Kind::Idle(security, count) => secured(*security)
                .map(|target| conns::idle(&target, *count, &pids))
                .transpose()
                .map(|found| found.map(|found| idle_figures(&found))),
            Kind::Held(scheme, count) => broker
                .held
                .map(|addr| held::idle(*scheme, addr, &self.tls, *count, &pids))
                .transpose()
                .map(|found| found.map(|found| held_figures(&found))),
            Kind::Churn(security, count) => secured(*security)
                .map(|target| conns::come_and_go(&target, *count, &pids))
                .transpose()
                .map(|found| found.map(|found| churn_figures(&found))),
            Kind::Subscribe { filters, wildcards } => {
                subs::subscribe(&plain, *filters, *wildcards, &pids)
                    .map(|found| Some(subscribe_figures(&found)))
            }
            Kind::Durable { count, live, .. } => {
                let disk_bytes = || broker.disk_bytes();
                let watched = Watched { target: &plain, pids: &pids, disk_bytes: &disk_bytes };
                match live {
                    true => durable::run_beside_live(&watched, *count),
                    false => durable::run(&watched, *count, self.timing.seconds, None),
                }
                .map(|found| Some(durable_figures(&found)))
            }
            Kind::Trickle { rate, secs } => {
                let disk_bytes = || broker.disk_bytes();
                let watched = Watched { target: &plain, pids: &pids, disk_bytes: &disk_bytes };
                let rate = f64::from(*rate);
                durable::trickle(&watched, rate, f64::from(*secs))
                    .map(|found| Some(trickle_figures(&found, rate)))
            }
            Kind::Fan { sessions } => {
                crowd::fan(&broker, &plain, *sessions).map(|found| Some(fan_figures(&found)))
            }
            Kind::Restart { sessions } => {
                return crowd::restart(broker, &plain, *sessions)
                    .map(|found| Some(restart_figures(&found)));
            }
            Kind::Retained { count } => {
                store::retained(&plain, *count, 256, &pids).map(|found| Some(kept_figures(&found)))
            }
            Kind::Offline { sessions, count } => {
                store::offline(&plain, *sessions, *count, 256, &pids)
                    .map(|found| Some(kept_figures(&found)))
            }
        };
        figures.map_err(|error| error.to_string())
    }

    fn plain(&self, broker: &Broker) -> Target {
        conns::target(broker, Security::Plain, &self.tls).expect("every broker speaks TCP")
    }

    /// As fast as it goes, then at half of that.
    fn exchange(&self, exchange: &Exchange, broker: &Broker) -> std::io::Result<Figures> {
        let (target, pids) = (self.plain(broker), broker.pids());
        let fast = run::exchange(exchange, self.timing, &target, &pids)?;
        let half = Exchange {
            // A broker may have delivered nothing at all.
            rate: Some((published(exchange, &fast) / 2.0).max(1.0)),
            window: HALF_WINDOW,
            ..exchange.clone()
        };
        let slow = run::exchange(&half, self.timing, &target, &pids)?;
        Ok(exchange_figures(&fast, &slow))
    }

    /// Latency against offered rate, pairs at QoS 1.
    fn sweep(&self, results: &mut Results) {
        let exchange = Exchange {
            shape: Shape::Pairs,
            publishers: 50,
            subscribers: 50,
            qos: verge_mqtt_proto::QoS::AtLeastOnce,
            payload_bytes: 64,
            rate: None,
            window: 16,
        };
        for &peer in &self.peers {
            eprintln!("latency against offered rate: {}", peer.name());
            let points = self.sweep_one(&exchange, peer);
            match points {
                Ok(points) => results.curves.push((peer, points)),
                Err(error) => results.fail("latency against offered rate", peer, error),
            }
        }
    }

    fn sweep_one(&self, exchange: &Exchange, peer: Peer) -> Result<Vec<Point>, String> {
        let broker = Broker::start(peer, None, Manner::default())?;
        let (target, pids) = (self.plain(&broker), broker.pids());
        let measure = |exchange: &Exchange| {
            run::exchange(exchange, self.timing, &target, &pids).map_err(|error| error.to_string())
        };
        let most = published(exchange, &measure(exchange)?);
        let mut points = Vec::new();
        for fraction in SWEEP {
            let rate = most * fraction;
            let open = Exchange { rate: Some(rate), window: HALF_WINDOW, ..exchange.clone() };
            let found = measure(&open)?;
            let Outcome { rate: delivered, p50_ms, p99_ms, .. } = found;
            points.push(Point { offered: rate, delivered, p50_ms, p99_ms });
        }
        Ok(points)
    }
}

/// In open loop the window bounds only what brokers' own queues must bear.
const HALF_WINDOW: u64 = 1_000;

/// Messages published a second when this many were delivered.
fn published(exchange: &Exchange, outcome: &Outcome) -> f64 {
    let fan = match exchange.shape {
        Shape::Pairs | Shape::Shared => 1,
        Shape::FanIn | Shape::FanOut => exchange.subscribers,
    };
    outcome.rate / fan as f64
}

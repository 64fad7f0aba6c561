//! The work that brokers are compared by, as a list.

use super::conns::Security;
use super::flow::{Exchange, Shape};
use super::peers::Manner;
use crate::client::address::Scheme;
use verge_mqtt_proto::QoS;
use verge_storage::Promise;

/// One piece of work.
#[derive(Debug, Clone)]
pub(super) struct Work {
    /// As tables name it, and `--only` finds it.
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What is done.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// As fast as the broker can, then at half of that.
    Exchange(Exchange),
    /// Connections that stay.
    Idle(Security, usize),
    /// Connections that stay, over WebSocket and QUIC, and then carry a message each.
    Held(Scheme, usize),
    /// Connections that come and go.
    Churn(Security, usize),
    /// Filters, exact or with wildcards.
    Subscribe { filters: usize, wildcards: bool },
    /// Retained messages.
    Retained { count: usize },
    /// Messages for sessions that are away.
    Offline { sessions: usize, count: usize },
    /// Messages of many for sessions that are away, at a promise, beside live traffic or not.
    Durable { promise: Promise, count: usize, live: bool },
    /// So many messages a second for sessions that are away, synced, for so many seconds.
    Trickle { rate: u32, secs: u32 },
    /// One message for very many sessions that are away.
    Fan { sessions: usize },
    /// A restart with very many sessions that are away.
    Restart { sessions: usize },
}

impl Kind {
    /// How a broker is started for it.
    pub(super) fn manner(&self) -> Manner {
        let promise = match self {
            Self::Durable { promise, .. } => Some(*promise),
            Self::Trickle { .. } | Self::Fan { .. } | Self::Restart { .. } => Some(Promise::Synced),
            Self::Exchange(_)
            | Self::Idle(..)
            | Self::Held(..)
            | Self::Churn(..)
            | Self::Subscribe { .. }
            | Self::Retained { .. }
            | Self::Offline { .. } => None,
        };
        let scheme = if let Self::Held(scheme, _) = self { Some(*scheme) } else { None };
        // Windows decide how much a drain may put before what is live.
        let modest = matches!(self, Self::Durable { live: true, .. });
        let flash = matches!(self, Self::Trickle { .. });
        Manner { scheme, promise, modest, flash }
    }
}

/// Publishers and subscribers of pairs.
const PAIRS: usize = 50;
/// Publishers of fan-in and shared groups, subscribers of fan-out.
const MANY: usize = 100;
/// Members of a shared group.
const MEMBERS: usize = 4;

/// Everything, or what says most in some minutes.
pub(super) fn list(quick: bool) -> Vec<Work> {
    let mut list = Vec::new();
    let payloads: &[usize] = if quick { &[64] } else { &[64, 256, 1024, 64 * 1024] };
    let levels: &[QoS] = if quick {
        &[QoS::AtMostOnce, QoS::AtLeastOnce]
    } else {
        &[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
    };
    for shape in [Shape::Pairs, Shape::FanIn, Shape::FanOut, Shape::Shared] {
        if quick && shape == Shape::Shared {
            continue;
        }
        for &payload_bytes in payloads {
            for &qos in levels {
                list.push(exchange(shape, qos, payload_bytes));
            }
        }
    }
    let (connections, churn) = if quick { (1_000, 1_000) } else { (5_000, 5_000) };
    for (security, name) in [(Security::Plain, "tcp"), (Security::Tls, "tls")] {
        list.push(work(format!("idle-{name}"), Kind::Idle(security, connections)));
        list.push(work(format!("connect-{name}"), Kind::Churn(security, churn)));
    }
    // More than one process could have sockets for.
    let (held, quic) = if quick { (1_000, 2_000) } else { (5_000, 20_000) };
    for (scheme, count, name) in
        [(Scheme::Ws, held, "ws"), (Scheme::Wss, held, "wss"), (Scheme::Quic, quic, "quic")]
    {
        list.push(work(format!("idle-{name}"), Kind::Held(scheme, count)));
    }
    list.push(work("connect-tls-resumed".into(), Kind::Churn(Security::TlsResumed, churn)));
    let sizes: &[usize] = if quick { &[10_000] } else { &[10_000, 100_000, 1_000_000] };
    for &filters in sizes {
        for (wildcards, name) in [(false, "exact"), (true, "wildcard")] {
            let kind = Kind::Subscribe { filters, wildcards };
            list.push(work(format!("subscribe-{name}-{filters}"), kind));
        }
    }
    let count = if quick { 10_000 } else { 100_000 };
    list.push(work(format!("retained-{count}"), Kind::Retained { count }));
    list.push(work(format!("offline-{count}"), Kind::Offline { sessions: 100, count }));
    list.extend(durable(quick));
    list
}

/// What is kept on disk: stored, drained, drained beside live traffic, for many, over a restart.
fn durable(quick: bool) -> Vec<Work> {
    let (count, backlog) = if quick { (100_000, 300_000) } else { (1_000_000, 1_000_000) };
    let (fan, parked) = if quick { (10_000, 100_000) } else { (100_000, 1_000_000) };
    let stored = |promise: Promise| {
        work(format!("durable-{promise}-{count}"), Kind::Durable { promise, count, live: false })
    };
    let live = Kind::Durable { promise: Promise::Synced, count: backlog, live: true };
    let mut list: Vec<Work> = Promise::ALL.into_iter().map(stored).collect();
    list.push(work(format!("drain-live-{backlog}"), live));
    let secs = if quick { 5 } else { 60 };
    list.push(work("trickle-1000".into(), Kind::Trickle { rate: 1_000, secs }));
    list.push(work(format!("fan-offline-{fan}"), Kind::Fan { sessions: fan }));
    list.push(work(format!("restart-{parked}"), Kind::Restart { sessions: parked }));
    list
}

fn exchange(shape: Shape, qos: QoS, payload_bytes: usize) -> Work {
    let (name, publishers, subscribers) = match shape {
        Shape::Pairs => ("pairs", PAIRS, PAIRS),
        Shape::FanIn => ("fan-in", MANY, 1),
        Shape::FanOut => ("fan-out", 1, MANY),
        Shape::Shared => ("shared", MANY, MEMBERS),
    };
    // Enough to keep every broker busy, and less than what queues are bounded by: 32 MB under way.
    let window = (32 << 20) / (publishers * subscribers.min(MEMBERS) * payload_bytes);
    let window = window.clamp(1, 16) as u64;
    let kind = Kind::Exchange(Exchange {
        shape,
        publishers,
        subscribers,
        qos,
        payload_bytes,
        rate: None,
        window,
    });
    let size = match payload_bytes {
        bytes if bytes < 1024 => format!("{bytes}B"),
        bytes => format!("{}KB", bytes / 1024),
    };
    work(format!("{name}-qos{}-{size}", qos.bits()), kind)
}

fn work(name: String, kind: Kind) -> Work {
    Work { name, kind }
}

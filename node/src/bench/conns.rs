//! What connections cost: how fast they are made, over TCP and TLS, and what an idle one keeps.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use verge_mqtt_proto::ProtocolVersion;

use super::net::{App, Client, Idle, Net, Target};
use super::peers::Broker;
use super::poll::{MS, SEC, now};
use super::procfs::{Usage, resident_bytes};
use super::run::run_number;

/// Connections under way at once.
pub(super) const CONNECTING_MAX: usize = 64;
/// Of those that come and go: a client keeps eight tickets of a server, and uses each once.
const COMING_MAX: usize = 4;
/// What the broker gets to settle before its memory is read, in nanoseconds.
pub(super) const SETTLE: u64 = SEC;

/// How connections are secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Security {
    /// TCP.
    Plain,
    /// TLS, each with a full handshake.
    Tls,
    /// TLS, with tickets of earlier connections.
    TlsResumed,
}

/// What connecting showed.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Connected {
    /// Connections a second, to CONNACK.
    pub(super) rate: f64,
    /// The broker's CPU seconds per thousand connections.
    pub(super) cpu_per_thousand: f64,
    /// To CONNACK, in milliseconds.
    pub(super) p99_ms: Option<f64>,
    /// Resident bytes the broker has for each that is idle.
    pub(super) bytes_each: f64,
    /// Share of TLS handshakes that were resumptions.
    pub(super) resumed_share: f64,
    /// Clients whose message to themselves came back, where they were asked for one.
    pub(super) exchanged: u64,
    /// Those that failed.
    pub(super) failed: u64,
}

/// The target of a broker at this security; none if it does not speak TLS.
pub(super) fn target(
    broker: &Broker,
    security: Security,
    tls: &Arc<ClientConfig>,
) -> Option<Target> {
    let version = ProtocolVersion::V4;
    let secured = |resumption| {
        let mut config = ClientConfig::clone(tls);
        config.resumption = resumption;
        Some(Target { addr: broker.tls?, version, tls: Some(Arc::new(config)) })
    };
    match security {
        Security::Plain => Some(Target { addr: broker.addr, version, tls: None }),
        Security::Tls => secured(Resumption::disabled()),
        Security::TlsResumed => secured(Resumption::in_memory_sessions(1)),
    }
}

/// Connects `count` clients, leaves them idle, and reads the broker's memory.
pub(super) fn idle(target: &Target, count: usize, pids: &[u32]) -> io::Result<Connected> {
    let (mut net, run) = (Net::to(target.clone())?, run_number());
    // The first connections pay for what the broker makes once.
    net.connect_all(&mut Idle, CONNECTING_MAX, clients(run, 0..200));
    settle(&mut net);
    let (memory, cpu) = (resident_bytes(pids), Usage::of(pids));
    let secs = net.connect_all(&mut Idle, CONNECTING_MAX, clients(run, 200..200 + count));
    let used = Usage::of(pids).since(cpu);
    settle(&mut net);
    let grown = resident_bytes(pids).saturating_sub(memory);
    let made = (count as f64 - net.failed as f64).max(1.0);
    let connected = Connected {
        rate: made / secs,
        cpu_per_thousand: used.cpu_secs / made * 1e3,
        p99_ms: net.connack.quantile_ms(0.99),
        bytes_each: grown as f64 / made,
        failed: net.failed,
        ..Connected::default()
    };
    net.leave_all();
    Ok(connected)
}

/// Clients that come and go, one after another on each of a few slots.
pub(super) fn come_and_go(target: &Target, count: usize, pids: &[u32]) -> io::Result<Connected> {
    let (mut net, run) = (Net::to(target.clone())?, run_number());
    let mut leave = Leave::default();
    // Leaves a ticket behind, where there are tickets.
    net.connect_all(&mut leave, 1, clients(run, 0..1));
    let end = now() + SEC / 2;
    while now() < end {
        net.turn(&mut leave, end);
    }
    leave.resumed = 0;
    let cpu = Usage::of(pids);
    let secs = net.connect_all(&mut leave, COMING_MAX, clients(run, 1..1 + count));
    let used = Usage::of(pids).since(cpu);
    let made = (count as f64 - net.failed as f64).max(1.0);
    Ok(Connected {
        rate: made / secs,
        cpu_per_thousand: used.cpu_secs / made * 1e3,
        p99_ms: net.connack.quantile_ms(0.99),
        resumed_share: leave.resumed as f64 / made,
        failed: net.failed,
        ..Connected::default()
    })
}

/// Leaves as soon as it is there.
#[derive(Default)]
struct Leave {
    /// TLS handshakes that resumed an earlier session.
    resumed: u64,
}

impl App for Leave {
    fn ready(&mut self, net: &mut Net, id: usize) {
        let kind = net.conns[id].tls.as_ref().and_then(|tls| tls.handshake_kind());
        self.resumed += u64::from(kind == Some(HandshakeKind::Resumed));
        net.leave(id);
    }

    fn packet(&mut self, _: &mut Net, _: usize, _: &verge_mqtt_proto::Packet<'_>, _: u64) {}
}

fn clients(run: u32, numbers: std::ops::Range<usize>) -> Vec<Client> {
    let client = |number| Client {
        id: format!("c{number}-{run:08x}"),
        clean: true,
        wants: None,
        tag: number as u32,
    };
    numbers.map(client).collect()
}

fn settle(net: &mut Net) {
    let end = now() + SETTLE;
    while now() < end {
        net.turn(&mut Idle, now() + 50 * MS);
    }
}

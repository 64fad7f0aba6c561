//! What subscriptions cost: SUBSCRIBE and UNSUBSCRIBE with many filters present, from a few
//! connections, and whether what they match still arrives.

use std::io;

use verge_mqtt_proto::{
    Packet, PacketId, Publish, PublishProperties, QoS, Unsubscribe, UnsubscribeFilters,
    UserProperties,
};

use super::net::{App, Client, Net, Target};
use super::poll::{SEC, now};
use super::procfs::{Usage, resident_bytes};
use super::run::run_number;

/// Connections that subscribe.
const CONNECTIONS: usize = 10;
/// Filters of one packet.
const PER_PACKET: usize = 20;
/// Packets of one connection under way.
const WINDOW: usize = 4;
/// Messages published to see that filters match, each for one of them.
const PROBES: usize = 20_000;
/// Probes under way.
const PROBES_WINDOW: usize = 200;
/// Silence after which what is awaited is lost, in nanoseconds.
const GIVE_UP: u64 = 20 * SEC;

/// Longest a phase may take, in nanoseconds: some brokers need time that grows with the square of the
/// filters. What is not done by then is missing.
const PHASE_MAX: u64 = 120 * SEC;

/// What subscribing showed.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Subscribed {
    /// Filters subscribed to in a second.
    pub(super) subscribe_rate: f64,
    /// The broker's CPU, in microseconds a filter.
    pub(super) subscribe_cpu_us: f64,
    /// Resident bytes of the broker for each filter.
    pub(super) bytes_each: f64,
    /// Messages a second, each matched by one filter.
    pub(super) match_rate: f64,
    /// The broker's CPU, in microseconds a message.
    pub(super) match_cpu_us: f64,
    /// Filters unsubscribed from in a second.
    pub(super) unsubscribe_rate: f64,
    /// The broker's CPU, in microseconds a filter.
    pub(super) unsubscribe_cpu_us: f64,
    /// Packets or messages that never came.
    pub(super) missing: u64,
}

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Subscribe,
    Probe,
    Unsubscribe,
}

struct Subs {
    run: u32,
    wildcards: bool,
    filters: usize,
    phase: Phase,
    begun: usize,
    done: usize,
    last: u64,
}

/// Subscribes to `filters` filters, publishes, and unsubscribes.
pub(super) fn subscribe(
    target: &Target,
    filters: usize,
    wildcards: bool,
    pids: &[u32],
) -> io::Result<Subscribed> {
    let (mut net, run) = (Net::to(target.clone())?, run_number());
    let phase = Phase::Subscribe;
    let mut subs = Subs { run, wildcards, filters, phase, begun: 0, done: 0, last: now() };
    let clients = (0..=CONNECTIONS).map(|number| Client {
        id: format!("f{number}-{run:08x}"),
        clean: true,
        wants: None,
        tag: number as u32,
    });
    net.connect_all(&mut subs, 1, clients.collect());
    if net.failed > 0 {
        return Err(io::Error::other(net.error.unwrap_or_default()));
    }
    let mut outcome = Subscribed::default();
    let memory = resident_bytes(pids);
    let mut phase = |subs: &mut Subs, net: &mut Net, phase, wanted: usize, window: usize| {
        let (start, cpu) = (now(), Usage::of(pids));
        (subs.phase, subs.begun, subs.done, subs.last) = (phase, 0, 0, start);
        (0..window).for_each(|_| subs.next(net));
        while subs.done < wanted && now() < (subs.last + GIVE_UP).min(start + PHASE_MAX) {
            net.turn(subs, now() + SEC / 10);
        }
        outcome.missing += (wanted - subs.done) as u64;
        let done = subs.done.max(1) as f64;
        let secs = (subs.last - start) as f64 / SEC as f64;
        (done / secs, Usage::of(pids).since(cpu).cpu_secs / done * 1e6)
    };
    let window = CONNECTIONS * WINDOW;
    let subscribing = phase(&mut subs, &mut net, Phase::Subscribe, filters, window);
    let grown = resident_bytes(pids).saturating_sub(memory);
    let probing = phase(&mut subs, &mut net, Phase::Probe, PROBES, PROBES_WINDOW);
    let unsubscribing = phase(&mut subs, &mut net, Phase::Unsubscribe, filters, window);
    (outcome.subscribe_rate, outcome.subscribe_cpu_us) = subscribing;
    (outcome.match_rate, outcome.match_cpu_us) = probing;
    (outcome.unsubscribe_rate, outcome.unsubscribe_cpu_us) = unsubscribing;
    outcome.bytes_each = grown as f64 / filters as f64;
    net.leave_all();
    Ok(outcome)
}

impl Subs {
    /// Filter `number`; wildcards as areas are subscribed to.
    fn filter(&self, number: usize) -> String {
        let run = self.run;
        let (a, b, c) = (number % 100, number / 100 % 100, number / 10_000);
        if self.wildcards {
            format!("bench/{run:08x}/{a}/{b}/{c}/+/position")
        } else {
            format!("bench/{run:08x}/{a}/{b}/{c}/one/position")
        }
    }

    /// Begins one more of what this phase does.
    fn next(&mut self, net: &mut Net) {
        let number = self.begun;
        if self.phase == Phase::Probe {
            if number >= PROBES {
                return;
            }
            self.begun += 1;
            let spread = (number * 7_919) % self.filters;
            let topic = self.filter(spread).replace('+', "one");
            let publish = Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: &topic,
                packet_id: None,
                properties: PublishProperties::default(),
                payload: topic.as_bytes(),
            });
            return net.send(CONNECTIONS, &publish);
        }
        if number >= self.filters {
            return;
        }
        let end = (number + PER_PACKET).min(self.filters);
        self.begun = end;
        let texts: Vec<String> = (number..end).map(|number| self.filter(number)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let packet = number / PER_PACKET;
        let id = packet % CONNECTIONS;
        // Carries how many filters are answered by its acknowledgement.
        let packet_id = (packet / CONNECTIONS % 32_000) as u16 + 1;
        if self.phase == Phase::Subscribe {
            net.subscribe(id, packet_id, &texts, QoS::AtMostOnce);
        } else if let Some(packet_id) = PacketId::new(packet_id) {
            let unsubscribe = Packet::Unsubscribe(Unsubscribe {
                packet_id,
                user_properties: UserProperties::NONE,
                filters: UnsubscribeFilters::from_slice(&texts),
            });
            net.send(id, &unsubscribe);
        }
    }
}

impl App for Subs {
    fn packet(&mut self, net: &mut Net, _: usize, packet: &Packet<'_>, at: u64) {
        let done = match packet {
            Packet::Suback(suback) => {
                suback.reasons.iter().filter(|reason| reason.byte() < 0x80).count()
            }
            // One UNSUBACK for each packet; only the last may be for fewer filters.
            Packet::Unsuback(_) => PER_PACKET.min(self.filters - self.done),
            Packet::Publish(publish) => usize::from(publish.payload == publish.topic.as_bytes()),
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Ack(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq
            | Packet::Pingresp
            | Packet::Disconnect(_)
            | Packet::Auth(_) => 0,
        };
        self.done += done;
        self.last = at;
        self.next(net);
    }
}

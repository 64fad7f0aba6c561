//! What happened at a node, counted for operators.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use verge_model::Class;
use verge_mqtt_proto::QoS;

/// Most different labels of one counter. Labels are texts of the program, never of a peer, and are
/// far fewer; what is beyond the bound is counted as [`OTHER`].
const LABELS_MAX: usize = 64;
/// The label of what has no place of its own.
const OTHER: &str = "other";

/// Why a QoS 0 message was not sent to a session that wanted it. QoS 0 is nobody's debt, so this
/// is not in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Qos0Drop {
    /// The client does not read as fast as messages come.
    OutputFull,
    /// It is larger than the client accepts [MQTT-3.1.2-25].
    TooLarge,
    /// The client is not connected, or not served yet.
    Away,
    /// It was for another node, and no link leads there now.
    Unlinked,
}

impl Qos0Drop {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::OutputFull, Self::TooLarge, Self::Away, Self::Unlinked];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutputFull => "output_full",
            Self::TooLarge => "too_large",
            Self::Away => "away",
            Self::Unlinked => "unlinked",
        }
    }
}

/// A number for operators, in the shape of a Prometheus counter. The name lacks the product's
/// prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// `<area>_<noun>_<unit>`, ending in `_total`.
    pub name: &'static str,
    /// One sentence without its full stop.
    pub help: &'static str,
    /// Label names and values.
    pub labels: Vec<(&'static str, &'static str)>,
    /// The count.
    pub value: u64,
}

/// Counters since this process began, shared by all threads of a node.
#[derive(Debug, Default)]
pub struct Counters {
    received: [AtomicU64; 3],
    sent: [AtomicU64; 3],
    /// By reason, then class.
    dropped_qos0: [[AtomicU64; Class::ALL.len()]; Qos0Drop::ALL.len()],
    forwarded: AtomicU64,
    forward_received: AtomicU64,
    duplicates_suppressed: AtomicU64,
    uplink_selected: AtomicU64,
    refused_storage: AtomicU64,
    handovers_started: AtomicU64,
    handovers_completed: AtomicU64,
    handovers_unreachable: AtomicU64,
    handovers_given: AtomicU64,
    handovers_hurried: AtomicU64,
    bad_frames: AtomicU64,
    payloads_refused: AtomicU64,
    share_unserved: AtomicU64,
    retained_replays_cut: AtomicU64,
    subscriptions_refused: Labelled,
    connects_accepted: AtomicU64,
    connects_refused: Labelled,
    authentications_failed: Labelled,
    connections_closed: Labelled,
    streams_reset: Labelled,
}

impl Counters {
    /// A client's PUBLISH was accepted.
    pub fn received(&self, qos: QoS, count: usize) {
        add(&self.received[qos as usize], count);
    }

    /// PUBLISH packets were sent to clients for the first time.
    pub fn sent(&self, qos: QoS, count: usize) {
        add(&self.sent[qos as usize], count);
    }

    /// QoS 0 messages were dropped.
    pub fn dropped_qos0_for(&self, reason: Qos0Drop, class: Class, count: usize) {
        add(&self.dropped_qos0[reason as usize][class as usize], count);
    }

    /// QoS 0 messages dropped, by reason and then class, in the order of their `ALL`.
    #[must_use]
    pub fn dropped_qos0_by_class(&self) -> [[u64; Class::ALL.len()]; Qos0Drop::ALL.len()] {
        self.dropped_qos0.each_ref().map(|classes| classes.each_ref().map(read))
    }

    /// Messages were put into forward logs.
    pub fn forwarded(&self, count: usize) {
        add(&self.forwarded, count);
    }

    /// Messages came from other nodes.
    pub fn forward_received(&self, count: usize) {
        add(&self.forward_received, count);
    }

    /// Messages reached a session that had them already.
    pub fn duplicate_suppressed(&self, count: usize) {
        add(&self.duplicates_suppressed, count);
    }

    /// Messages were put into the outbox.
    pub fn uplink_selected(&self, count: usize) {
        add(&self.uplink_selected, count);
    }

    /// Deliveries were given up and refused to their publisher, since storage did not take them.
    pub fn refused_storage(&self, count: usize) {
        add(&self.refused_storage, count);
    }

    /// CONNECTs were accepted.
    pub fn connect_accepted(&self, count: usize) {
        add(&self.connects_accepted, count);
    }

    /// A CONNECT was refused, for the reason that the standard names so.
    pub fn connect_refused(&self, reason: &'static str) {
        self.connects_refused.add(reason);
    }

    /// A client could not prove who it is, by this means.
    pub fn authentication_failed(&self, means: &'static str) {
        self.authentications_failed.add(means);
    }

    /// Sessions of other nodes were claimed for clients that connected here.
    pub fn handover_started(&self, count: usize) {
        add(&self.handovers_started, count);
    }

    /// Sessions of other nodes are here, with all that was owed to them there.
    pub fn handover_completed(&self, count: usize) {
        add(&self.handovers_completed, count);
    }

    /// Sessions were served from what is replicated, since their owner did not answer.
    pub fn handover_unreachable(&self, count: usize) {
        add(&self.handovers_unreachable, count);
    }

    /// Sessions of this node went to other nodes.
    pub fn handover_given(&self, count: usize) {
        add(&self.handovers_given, count);
    }

    /// Logs were closed before all nodes that are away were heard: their sessions have too many.
    pub fn handover_hurried(&self, count: usize) {
        add(&self.handovers_hurried, count);
    }

    /// Frames of other nodes could not be read, and were left out.
    pub fn bad_frame(&self, count: usize) {
        add(&self.bad_frames, count);
    }

    /// Messages for groups of shared subscriptions found no member in the mesh any more.
    pub fn share_unserved(&self, count: usize) {
        add(&self.share_unserved, count);
    }

    /// A new subscription was sent some of its retained messages only.
    pub fn retained_replay_cut(&self, count: usize) {
        add(&self.retained_replays_cut, count);
    }

    /// A filter of a SUBSCRIBE was refused, for the reason that the standard names so.
    pub fn subscription_refused(&self, reason: &'static str) {
        self.subscriptions_refused.add(reason);
    }

    /// Messages were refused whose payload is not UTF-8 as they say.
    pub fn payload_refused(&self, count: usize) {
        add(&self.payloads_refused, count);
    }

    /// A connection was closed for what its client did or did not do, by the label of
    /// [`CloseReason`](verge_mqtt_proto::CloseReason).
    pub fn connection_closed(&self, label: &'static str) {
        self.connections_closed.add(label);
    }

    /// A stream of a connection was reset, and the connection went on; by the same labels.
    pub fn stream_reset(&self, label: &'static str) {
        self.streams_reset.add(label);
    }

    /// The counts as they are now, read one after the other.
    #[must_use]
    pub fn snapshot(&self) -> CountersSnapshot {
        let dropped = Qos0Drop::ALL.into_iter().zip(self.dropped_qos0_by_class());
        CountersSnapshot {
            received: self.received.each_ref().map(read),
            sent: self.sent.each_ref().map(read),
            dropped_qos0: dropped.map(|(reason, counts)| (reason.as_str(), counts)).collect(),
            forwarded: read(&self.forwarded),
            forward_received: read(&self.forward_received),
            duplicates_suppressed: read(&self.duplicates_suppressed),
            uplink_selected: read(&self.uplink_selected),
            refused_storage: read(&self.refused_storage),
            handovers_started: read(&self.handovers_started),
            handovers_completed: read(&self.handovers_completed),
            handovers_unreachable: read(&self.handovers_unreachable),
            handovers_given: read(&self.handovers_given),
            handovers_hurried: read(&self.handovers_hurried),
            bad_frames: read(&self.bad_frames),
            payloads_refused: read(&self.payloads_refused),
            retained_replays_cut: read(&self.retained_replays_cut),
            subscriptions_refused: self.subscriptions_refused.snapshot(),
            share_unserved: read(&self.share_unserved),
            connects_accepted: read(&self.connects_accepted),
            connects_refused: self.connects_refused.snapshot(),
            authentications_failed: self.authentications_failed.snapshot(),
            connections_closed: self.connections_closed.snapshot(),
            streams_reset: self.streams_reset.snapshot(),
        }
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Counts by label.
#[derive(Debug, Default)]
struct Labelled {
    /// A lock, since labels come as they come; it is taken for connections, never for messages.
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Labelled {
    fn add(&self, label: &'static str) {
        let mut counts = self.counts.lock();
        let known = counts.len() < LABELS_MAX || counts.contains_key(label);
        *counts.entry(if known { label } else { OTHER }).or_default() += 1;
    }

    fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().clone()
    }
}

/// Counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CountersSnapshot {
    /// PUBLISHes of clients, by QoS.
    pub received: [u64; 3],
    /// PUBLISHes to clients, by QoS, repetitions left out.
    pub sent: [u64; 3],
    /// QoS 0 messages dropped, by [`Qos0Drop`], and by class in the order of [`Class::ALL`].
    pub dropped_qos0: BTreeMap<&'static str, [u64; Class::ALL.len()]>,
    /// Messages put into forward logs, once per node they are for.
    pub forwarded: u64,
    /// Messages from other nodes.
    pub forward_received: u64,
    /// Messages that reached a session again.
    pub duplicates_suppressed: u64,
    /// Messages put into the outbox.
    pub uplink_selected: u64,
    /// Deliveries given up since storage did not take them.
    pub refused_storage: u64,
    /// Sessions of other nodes claimed.
    pub handovers_started: u64,
    /// Sessions of other nodes taken over with all that was owed to them.
    pub handovers_completed: u64,
    /// Sessions served without their owner, which did not answer.
    pub handovers_unreachable: u64,
    /// Sessions given to other nodes.
    pub handovers_given: u64,
    /// See [`Counters::handover_hurried`].
    pub handovers_hurried: u64,
    /// Frames of other nodes that could not be read.
    pub bad_frames: u64,
    /// Messages for groups that have no member any more.
    pub share_unserved: u64,
    /// Messages refused for their payload's format.
    pub payloads_refused: u64,
    /// New subscriptions that were sent some of their retained messages only.
    pub retained_replays_cut: u64,
    /// Filters of SUBSCRIBEs refused, by the standard's name of the reason.
    pub subscriptions_refused: BTreeMap<&'static str, u64>,
    /// CONNECTs accepted.
    pub connects_accepted: u64,
    /// CONNECTs refused, by the standard's name of the reason.
    pub connects_refused: BTreeMap<&'static str, u64>,
    /// Clients that could not prove who they are, by means.
    pub authentications_failed: BTreeMap<&'static str, u64>,
    /// Connections closed for what their client did or did not do, by reason.
    pub connections_closed: BTreeMap<&'static str, u64>,
    /// Streams reset for what their client did or did not do, by reason.
    pub streams_reset: BTreeMap<&'static str, u64>,
}

impl CountersSnapshot {
    /// The counts as metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        let by_qos = ["0", "1", "2"];
        let mut labelled =
            |name, help, label, counts: &mut dyn Iterator<Item = (&'static str, u64)>| {
                metrics.extend(counts.map(|(value, count)| Metric {
                    name,
                    help,
                    labels: vec![(label, value)],
                    value: count,
                }));
            };
        labelled(
            "messages_received_total",
            "Messages published by clients of this node",
            "qos",
            &mut by_qos.into_iter().zip(self.received),
        );
        labelled(
            "messages_sent_total",
            "Messages sent to clients of this node, repetitions left out",
            "qos",
            &mut by_qos.into_iter().zip(self.sent),
        );
        let each = |counts: &BTreeMap<&'static str, u64>| counts.clone().into_iter();
        labelled(
            "connections_refused_total",
            "Connections refused at CONNECT",
            "reason",
            &mut each(&self.connects_refused),
        );
        labelled(
            "subscriptions_refused_total",
            "Filters of SUBSCRIBE refused",
            "reason",
            &mut each(&self.subscriptions_refused),
        );
        labelled(
            "authentications_failed_total",
            "Clients that could not prove who they are",
            "means",
            &mut each(&self.authentications_failed),
        );
        labelled(
            "connections_closed_total",
            "Connections closed for what their client did or did not do",
            "reason",
            &mut each(&self.connections_closed),
        );
        labelled(
            "streams_reset_total",
            "Streams reset for what their client did or did not do, while the connection went on",
            "reason",
            &mut each(&self.streams_reset),
        );
        for (reason, counts) in &self.dropped_qos0 {
            metrics.extend(Class::ALL.into_iter().zip(counts).map(|(class, count)| Metric {
                name: "messages_dropped_qos0_total",
                help: "QoS 0 messages not sent to a session that wanted them",
                labels: vec![("reason", *reason), ("class", class.as_str())],
                value: *count,
            }));
        }
        let single = |(name, help, value)| Metric { name, help, labels: Vec::new(), value };
        metrics.extend(self.singles().map(single));
        metrics
    }

    fn singles(&self) -> [(&'static str, &'static str, u64); 15] {
        [
            (
                "connections_accepted_total",
                "Connections accepted at CONNECT",
                self.connects_accepted,
            ),
            (
                "forward_sent_messages_total",
                "Messages to be sent to other nodes, once per node",
                self.forwarded,
            ),
            (
                "forward_received_messages_total",
                "Messages received from other nodes",
                self.forward_received,
            ),
            (
                "messages_duplicates_suppressed_total",
                "Messages that reached a session again and were left out",
                self.duplicates_suppressed,
            ),
            (
                "uplink_selected_messages_total",
                "Messages selected for the cloud tier",
                self.uplink_selected,
            ),
            (
                "storage_refused_deliveries_total",
                "Deliveries given up since storage did not take them",
                self.refused_storage,
            ),
            (
                "handover_started_sessions_total",
                "Sessions of other nodes claimed for clients that connected here",
                self.handovers_started,
            ),
            (
                "handover_completed_sessions_total",
                "Sessions of other nodes taken over with all that was owed to them",
                self.handovers_completed,
            ),
            (
                "handover_unreachable_sessions_total",
                "Sessions served from what is replicated, since their owner did not answer",
                self.handovers_unreachable,
            ),
            (
                "handover_given_sessions_total",
                "Sessions given to other nodes",
                self.handovers_given,
            ),
            (
                "handover_hurried_logs_total",
                "Logs of sessions with very many, closed before all nodes that are away were heard",
                self.handovers_hurried,
            ),
            (
                "mesh_bad_frames_total",
                "Frames of other nodes that could not be read",
                self.bad_frames,
            ),
            (
                "messages_refused_payload_total",
                "Messages refused since their payload is not UTF-8 as they say",
                self.payloads_refused,
            ),
            (
                "share_unserved_messages_total",
                "Messages for shared subscriptions that had no member any more",
                self.share_unserved,
            ),
            (
                "retained_replays_cut_total",
                "New subscriptions sent some of their retained messages only",
                self.retained_replays_cut,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_one_metric() {
        let counters = Counters::default();
        counters.received(QoS::AtLeastOnce, 1);
        counters.sent(QoS::ExactlyOnce, 1);
        counters.dropped_qos0_for(Qos0Drop::OutputFull, Class::Safety, 2);
        counters.dropped_qos0_for(Qos0Drop::Away, Class::Bulk, 3);
        counters.forwarded(4);
        counters.forward_received(5);
        counters.duplicate_suppressed(6);
        counters.uplink_selected(7);
        counters.refused_storage(8);
        counters.handover_started(9);
        counters.handover_completed(10);
        counters.handover_unreachable(11);
        counters.handover_given(12);
        counters.handover_hurried(14);
        counters.bad_frame(13);
        counters.payload_refused(16);
        counters.share_unserved(15);
        counters.retained_replay_cut(17);
        counters.subscription_refused("Quota exceeded");
        counters.connect_accepted(1);
        counters.connect_refused("Not authorized");
        counters.authentication_failed("password");
        counters.connection_closed("keep_alive_timeout");
        counters.stream_reset("malformed_packet");
        let shown: Vec<_> = counters
            .snapshot()
            .metrics()
            .into_iter()
            .filter(|metric| metric.value > 0)
            .map(|metric| (metric.name, metric.labels, metric.value))
            .collect();
        let expected = [
            ("messages_received_total", vec![("qos", "1")], 1),
            ("messages_sent_total", vec![("qos", "2")], 1),
            ("connections_refused_total", vec![("reason", "Not authorized")], 1),
            ("subscriptions_refused_total", vec![("reason", "Quota exceeded")], 1),
            ("authentications_failed_total", vec![("means", "password")], 1),
            ("connections_closed_total", vec![("reason", "keep_alive_timeout")], 1),
            ("streams_reset_total", vec![("reason", "malformed_packet")], 1),
            ("messages_dropped_qos0_total", vec![("reason", "away"), ("class", "bulk")], 3),
            (
                "messages_dropped_qos0_total",
                vec![("reason", "output_full"), ("class", "safety")],
                2,
            ),
            ("connections_accepted_total", vec![], 1),
            ("forward_sent_messages_total", vec![], 4),
            ("forward_received_messages_total", vec![], 5),
            ("messages_duplicates_suppressed_total", vec![], 6),
            ("uplink_selected_messages_total", vec![], 7),
            ("storage_refused_deliveries_total", vec![], 8),
            ("handover_started_sessions_total", vec![], 9),
            ("handover_completed_sessions_total", vec![], 10),
            ("handover_unreachable_sessions_total", vec![], 11),
            ("handover_given_sessions_total", vec![], 12),
            ("handover_hurried_logs_total", vec![], 14),
            ("mesh_bad_frames_total", vec![], 13),
            ("messages_refused_payload_total", vec![], 16),
            ("share_unserved_messages_total", vec![], 15),
            ("retained_replays_cut_total", vec![], 17),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn labels_are_bounded_and_nothing_goes_uncounted() {
        let labelled = Labelled::default();
        let events = LABELS_MAX + 10;
        for number in 0..events {
            labelled.add(Box::leak(number.to_string().into_boxed_str()));
        }
        labelled.add("0");
        let counts = labelled.snapshot();
        assert_eq!(counts.len(), LABELS_MAX + 1);
        assert_eq!(counts["0"], 2);
        assert_eq!(counts[OTHER], 10);
    }
}

//! What a turn counts often, counted here first: one step of a shared counter a turn, not one a
//! message.

use verge_model::{Class, ClientKey};
use verge_mqtt_proto::QoS;
use verge_mqtt_proto::message::Message;

use crate::ledger::{Opened, Qos0Drop, Settled};
use crate::shared::NodeShared;

/// Counts of one turn; by class in the order of [`Class::ALL`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    received: [usize; 3],
    sent: [usize; 3],
    /// By reason, then class.
    dropped_qos0: [[usize; Class::ALL.len()]; Qos0Drop::ALL.len()],
    any_dropped_qos0: bool,
    accepted: [u64; Class::ALL.len()],
    delivered: [u64; Class::ALL.len()],
}

impl Tally {
    /// A client published.
    pub(super) fn received(&mut self, qos: QoS) {
        self.received[qos as usize] += 1;
    }

    /// A PUBLISH was sent to a client for the first time.
    pub(super) fn sent(&mut self, qos: QoS) {
        self.sent[qos as usize] += 1;
    }

    /// A QoS 0 message was dropped.
    pub(super) fn dropped_qos0(&mut self, reason: Qos0Drop, class: Class) {
        self.dropped_qos0[reason as usize][class as usize] += 1;
        self.any_dropped_qos0 = true;
    }

    /// A debt was taken on for an accepted message.
    pub(super) fn accepted(&mut self, class: Class) {
        self.accepted[class as usize] += 1;
    }

    /// A debt was settled.
    pub(super) fn settled(
        &mut self,
        settled: Settled,
        client: &ClientKey,
        message: &Message,
        shared: &NodeShared,
    ) {
        if settled == Settled::Delivered {
            self.delivered[message.class as usize] += 1;
        } else {
            shared.settle(settled, client, message);
        }
    }

    /// Adds what was counted to what is shown.
    pub(super) fn flush(&mut self, shared: &NodeShared) {
        let Self { received, sent, dropped_qos0, any_dropped_qos0, accepted, delivered } =
            std::mem::take(self);
        for (qos, count) in QoS::ALL.into_iter().zip(received).filter(|(_, count)| *count > 0) {
            shared.counters.received(qos, count);
        }
        for (qos, count) in QoS::ALL.into_iter().zip(sent).filter(|(_, count)| *count > 0) {
            shared.counters.sent(qos, count);
        }
        if any_dropped_qos0 {
            for (reason, counts) in Qos0Drop::ALL.into_iter().zip(dropped_qos0) {
                for (class, count) in Class::ALL.into_iter().zip(counts) {
                    shared.counters.dropped_qos0_for(reason, class, count);
                }
            }
        }
        for (class, (accepted, delivered)) in
            Class::ALL.into_iter().zip(accepted.into_iter().zip(delivered))
        {
            if accepted > 0 {
                shared.ledger.open(Opened::Accepted, class, accepted);
            }
            if delivered > 0 {
                shared.ledger.settle(Settled::Delivered, class, delivered);
            }
        }
    }
}

//! Receive Maximum (4.9), towards us: how many QoS 1 and 2 messages a client has under way.

use crate::codec::reason_code::ReasonCode;
use crate::packet::fields::PacketId;

/// The client's PUBLISH packets above QoS 0 that we have not answered for good.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    maximum: u16,
    /// Each once; no more than `maximum`. Searched from the front, where the oldest are answered
    /// first.
    open: Vec<PacketId>,
}

impl ReceiveWindow {
    pub(crate) const fn new(maximum: u16) -> Self {
        Self { maximum, open: Vec::new() }
    }

    /// A PUBLISH came; whether it is within the maximum. One that is repeated counts once.
    pub(crate) fn on_publish(&mut self, packet_id: PacketId) -> bool {
        if self.open.contains(&packet_id) {
            return true;
        }
        if self.open.len() >= usize::from(self.maximum) {
            return false;
        }
        self.open.push(packet_id);
        true
    }

    /// A PUBREC goes out; with an error it is the last answer. (4.9)
    pub(crate) fn on_pubrec_sent(&mut self, packet_id: PacketId, reason: ReasonCode) {
        if reason.is_error() {
            self.on_answered(packet_id);
        }
    }

    /// The last answer goes out: PUBACK or PUBCOMP. What is resumed from an earlier connection was
    /// never counted here.
    pub(crate) fn on_answered(&mut self, packet_id: PacketId) {
        if let Some(index) = self.open.iter().position(|&open| open == packet_id) {
            self.open.remove(index);
        }
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.open.len() <= usize::from(self.maximum), "within the receive maximum");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identifier_counts_once_until_its_last_answer() {
        let id = |number| PacketId::new(number).unwrap();
        let mut window = ReceiveWindow::new(2);
        assert!(window.on_publish(id(1)));
        assert!(window.on_publish(id(1)), "a repeated PUBLISH is the same message");
        assert!(window.on_publish(id(2)));
        assert!(!window.on_publish(id(3)), "[MQTT-3.3.4-7]");
        window.on_pubrec_sent(id(2), ReasonCode::Success);
        assert!(!window.on_publish(id(3)));
        window.on_pubrec_sent(id(2), ReasonCode::QuotaExceeded);
        assert!(window.on_publish(id(3)));
        window.on_answered(id(7));
        window.on_answered(id(1));
        assert!(window.on_publish(id(4)));
        window.check_invariants();
    }
}

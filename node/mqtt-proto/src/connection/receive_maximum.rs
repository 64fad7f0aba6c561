//! Receive Maximum (4.9), towards us: how many QoS 1 and 2 messages a client has under way.

use crate::codec::reason_code::ReasonCode;
use crate::packet::fields::PacketId;

/// The client's PUBLISH packets above QoS 0 that we have not answered for good.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    maximum: u16,
    /// How many there are on other streams of the connection; they count too.
    elsewhere: u16,
    /// Each once; no more than `maximum`. Searched from the front, where the oldest are answered
    /// first. There once the client has published above QoS 0.
    #[allow(clippy::box_collection, reason = "most clients have none, and a word for it")]
    open: Option<Box<Vec<PacketId>>>,
}

impl ReceiveWindow {
    pub(crate) const fn new(maximum: u16) -> Self {
        Self { maximum, elsewhere: 0, open: None }
    }

    /// A PUBLISH came; whether it is within the maximum. One that is repeated counts once.
    pub(crate) fn on_publish(&mut self, packet_id: PacketId) -> bool {
        if self.contains(packet_id) {
            return true;
        }
        if !self.has_room() {
            return false;
        }
        self.open.get_or_insert_default().push(packet_id);
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
    /// Returns whether it was open.
    pub(crate) fn on_answered(&mut self, packet_id: PacketId) -> bool {
        let Some(all) = self.open.as_deref_mut() else { return false };
        let index = all.iter().position(|&open| open == packet_id);
        if let Some(index) = index {
            all.remove(index);
        }
        index.is_some()
    }

    /// The maximum.
    pub(crate) const fn maximum(&self) -> u16 {
        self.maximum
    }

    /// Whether one more is within the maximum.
    pub(crate) fn has_room(&self) -> bool {
        self.open_len() + usize::from(self.elsewhere) < usize::from(self.maximum)
    }

    /// Whether this one is open here.
    pub(crate) fn contains(&self, packet_id: PacketId) -> bool {
        self.open.as_deref().is_some_and(|open| open.contains(&packet_id))
    }

    /// How many are open here.
    pub(crate) fn open_len(&self) -> usize {
        self.open.as_deref().map_or(0, Vec::len)
    }

    /// How many are open on other streams.
    pub(crate) fn elsewhere(&self) -> usize {
        usize::from(self.elsewhere)
    }

    /// More, or fewer, are open on other streams.
    pub(crate) fn count_elsewhere(&mut self, by: i32) {
        let elsewhere = i32::from(self.elsewhere) + by;
        self.elsewhere = u16::try_from(elsewhere).expect("each is counted in and out once");
    }

    pub(crate) fn check_invariants(&self) {
        let open = self.open_len() + usize::from(self.elsewhere);
        assert!(open <= usize::from(self.maximum), "within the receive maximum");
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

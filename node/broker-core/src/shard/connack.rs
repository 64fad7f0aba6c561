//! CONNACK to a client that takes small packets only.
//!
//! A packet that is larger than the client's Maximum Packet Size must not be sent [MQTT-3.1.2-24],
//! and no other may be sent before CONNACK [MQTT-3.2.0-1]. So what a client can do without is left
//! out, and one that cannot be told even the rest is refused.

use verge_model::Now;
use verge_mqtt_proto::{Connack, ReasonCode};

use super::Shard;
use super::api::{ConnId, SessionNo};
use super::connection::Conn;

/// What such a client is told, if that fits.
const WORDS: &str = "CONNACK is larger than the Maximum Packet Size";

impl Conn {
    /// Writes the CONNACK of an accepted client, with what fits; false if it does not.
    pub(super) fn write_connack(&mut self, mut connack: Connack<'_>) -> bool {
        if self.write(&connack) {
            return true;
        }
        let asked = self.machine.client_session_expiry_interval();
        let properties = &mut connack.properties;
        // Absent, "the Server is using the value sent by the Client" (3.2.2.3.2).
        properties.session_expiry_interval.take_if(|granted| *granted == asked);
        // Absent, no aliases are used (3.2.2.3.8), which is within what is granted.
        properties.topic_alias_maximum = None;
        self.write(&connack)
    }
}

impl Shard {
    /// Refuses a client that cannot be told that it is accepted. Its Will is not published: it was
    /// never served.
    pub(super) fn refuse_unsayable(&mut self, id: ConnId, no: SessionNo, now: Now) {
        if let Some(session) = self.sessions.get_mut(&no) {
            session.will = None;
        }
        // "The CONNECT is valid but is not accepted by this Server." (3.2.2.2)
        let reason = ReasonCode::ImplementationSpecificError;
        self.shared.counters.connect_refused(reason.name());
        self.disconnect_saying(id, reason, WORDS, now);
    }
}

//! Keep Alive (3.1.2.10): the client's longest silence.

use std::time::Duration;

use verge_model::Millis;

/// Watches for silence.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    /// The Keep Alive; 0 if the client may be silent for ever.
    secs: u16,
    /// When the last whole packet was read.
    heard_at: Millis,
}

impl KeepAlive {
    /// "A Keep Alive value of 0 has the effect of turning off the Keep Alive mechanism."
    pub(crate) const fn new(keep_alive_secs: u16, now: Millis) -> Self {
        Self { secs: keep_alive_secs, heard_at: now }
    }

    /// A packet was read; parts of one do not count. [MQTT-3.1.2-22]
    pub(crate) const fn on_packet(&mut self, now: Millis) {
        self.heard_at = now;
    }

    /// When patience ends: after one and a half times the Keep Alive.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        let patience = Duration::from_millis(u64::from(self.secs) * 1_500);
        (self.secs != 0).then(|| self.heard_at + patience)
    }
}

/// The Server Keep Alive to impose: `maximum_secs` where the client wants longer silences, or any.
pub(crate) const fn server_keep_alive(client_secs: u16, maximum_secs: u16) -> Option<u16> {
    if maximum_secs != 0 && (client_secs == 0 || client_secs > maximum_secs) {
        Some(maximum_secs)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_one_and_a_half_times_the_keep_alive_since_the_last_packet_mqtt_3_1_2_22() {
        let mut keep_alive = KeepAlive::new(3, Millis(100));
        assert_eq!(keep_alive.deadline(), Some(Millis(4_600)));
        keep_alive.on_packet(Millis(1_000));
        assert_eq!(keep_alive.deadline(), Some(Millis(5_500)));
        assert_eq!(KeepAlive::new(0, Millis(100)).deadline(), None);
        assert_eq!(KeepAlive::new(u16::MAX, Millis(0)).deadline(), Some(Millis(98_302_500)));
    }

    #[test]
    fn only_longer_silences_than_the_maximum_are_overruled() {
        let rows =
            [(60, 0, None), (0, 0, None), (60, 60, None), (61, 60, Some(60)), (0, 60, Some(60))];
        for (client, maximum, imposed) in rows {
            assert_eq!(server_keep_alive(client, maximum), imposed, "{client} of {maximum}");
        }
    }
}

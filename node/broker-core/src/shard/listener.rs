//! What the connections of one listener have in common, kept once for all of them.

use std::sync::Arc;

use verge_mqtt_proto::ConnectionConfig;
use verge_storage::Promise;

use super::Shard;
use super::api::{ConnId, ConnectionInfo, ShardConfig};

/// A listener, as its connections know it.
#[derive(Debug)]
pub(super) struct Listener {
    /// As configured: `tcp://127.0.0.1:1883`.
    pub(super) name: Arc<str>,
    /// Promise for what is published through it.
    pub(super) promise: Promise,
    /// Whether a client without credentials may connect.
    pub(super) allow_anonymous: bool,
    keep_alive_secs_max: u16,
    /// What the node allows on its connections.
    pub(super) machine: Arc<ConnectionConfig>,
}

/// Listeners with connections: as many as are configured, and were before the last reload, each with
/// the promises that rules give to sessions.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Arc<Listener>>);

impl Listeners {
    /// The same listener, with another promise.
    pub(super) fn promising(&mut self, of: &Listener, promise: Promise) -> Arc<Listener> {
        let known = self.0.iter().find(|known| {
            known.name == of.name
                && known.promise == promise
                && known.allow_anonymous == of.allow_anonymous
                && known.keep_alive_secs_max == of.keep_alive_secs_max
        });
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let listener = Arc::new(Listener {
            name: Arc::clone(&of.name),
            promise,
            allow_anonymous: of.allow_anonymous,
            keep_alive_secs_max: of.keep_alive_secs_max,
            machine: Arc::clone(&of.machine),
        });
        self.0.push(Arc::clone(&listener));
        listener
    }

    /// The listener a connection came through.
    pub(super) fn of(&mut self, info: &ConnectionInfo, config: &ShardConfig) -> Arc<Listener> {
        let known = self.0.iter().find(|known| {
            known.name == info.listener
                && known.promise == info.promise
                && known.allow_anonymous == info.allow_anonymous
                && known.keep_alive_secs_max == info.keep_alive_secs_max
        });
        if let Some(known) = known {
            return Arc::clone(known);
        }
        self.0.retain(|known| Arc::strong_count(known) > 1);
        let machine = ConnectionConfig {
            packet_bytes_max: config.packet_bytes_max,
            receive_maximum: config.receive_maximum,
            topic_alias_maximum: config.topic_alias_maximum,
            connect_timeout: config.connect_timeout,
            keep_alive_secs_max: stricter(config.keep_alive_secs_max, info.keep_alive_secs_max),
            ..ConnectionConfig::default()
        };
        let listener = Arc::new(Listener {
            name: Arc::clone(&info.listener),
            promise: info.promise,
            allow_anonymous: info.allow_anonymous,
            keep_alive_secs_max: info.keep_alive_secs_max,
            machine: Arc::new(machine),
        });
        self.0.push(Arc::clone(&listener));
        listener
    }
}

/// The smaller of two bounds, of which 0 is none.
fn stricter(a: u16, b: u16) -> u16 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}

impl Shard {
    /// Gives a connection whose client is known the promise of its rule, if there is one.
    pub(super) fn promise_by_rule(&mut self, id: ConnId) {
        let rules = &self.shared.extensions.sessions;
        if rules.0.is_empty() {
            return;
        }
        let promise =
            self.facts(id).and_then(|facts| rules.promise(facts.client_id, facts.username));
        if let (Some(promise), Some(conn)) = (promise, self.conns.get_mut(&id)) {
            conn.listener = self.listeners.promising(&conn.listener, promise);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_their_listener_and_others_are_forgotten() {
        let config = ShardConfig::default();
        let info = |name: &str, keep_alive_secs_max| ConnectionInfo {
            peer: ([127, 0, 0, 1], 1).into(),
            listener: name.into(),
            certificate_subject: None,
            promise: Promise::Buffered,
            allow_anonymous: true,
            keep_alive_secs_max,
        };
        let mut listeners = Listeners::default();
        let first = listeners.of(&info("tcp://a", 0), &config);
        assert!(Arc::ptr_eq(&first, &listeners.of(&info("tcp://a", 0), &config)));
        let strict = listeners.of(&info("quic://a", 30), &config);
        assert_eq!(
            (first.machine.keep_alive_secs_max, strict.machine.keep_alive_secs_max),
            (0, 30)
        );
        drop(first);
        listeners.of(&info("tcp://b", 0), &config);
        let names: Vec<_> = listeners.0.iter().map(|listener| &*listener.name).collect();
        assert_eq!(names, ["quic://a", "tcp://b"]);
    }
}

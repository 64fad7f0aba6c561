//! Subscriptions that every client gets when it is connected.

use verge_model::Now;
use verge_mqtt_proto::RetainHandling;
use verge_mqtt_proto::session::{StreamTag, Subscription};

use super::Shard;
use super::api::{ConnId, SessionNo};
use super::replay::RETAINED_PER_SUBSCRIBE_MAX;
use crate::extension::counts::Counted;

impl Shard {
    /// Gives a session the configured subscriptions it does not have. One that it has, from an
    /// earlier connection or its own SUBSCRIBE, stays as it is.
    pub(super) fn auto_subscribe(&mut self, id: ConnId, no: SessionNo, now: Now) {
        if self.shared.extensions.auto_subscribe.is_empty() {
            return;
        }
        let Some(facts) = self.facts(id) else { return };
        let extensions = &self.shared.extensions;
        let wanted = extensions.auto_subscribe.iter().filter_map(|auto| {
            let filter = auto.filter_for(&facts);
            if filter.is_none() {
                extensions.counts.add(Counted::AutoSubscribeSkipped);
            }
            Some((filter?, auto.subscription))
        });
        let wanted: Vec<_> = wanted.collect();
        let mut retained = Vec::new();
        let mut changed = false;
        for (filter, asked) in wanted {
            let Some(session) = self.sessions.get(&no) else { return };
            if session.subscriptions.contains_key(&filter) {
                continue;
            }
            let qos = asked.qos.min(self.config.qos_max);
            let subscription = Subscription { qos, ..asked };
            if self.add_subscription(no, StreamTag::CONTROL, &filter, subscription, now).is_err() {
                continue;
            }
            changed = true;
            let sends = asked.retain_handling != RetainHandling::DoNotSend;
            if sends && filter.share().is_none() {
                retained.push((filter, subscription));
            }
        }
        if !changed {
            return;
        }
        self.turn.promise(self.storage_promise());
        self.put_subscriptions(no, now);
        let mut room = RETAINED_PER_SUBSCRIBE_MAX;
        for (filter, subscription) in retained {
            let tag = StreamTag::CONTROL;
            room -= self.send_retained(no, tag, &filter, &subscription, room, now);
        }
    }
}

//! Messages that are published later: `$delayed/<seconds>/<topic>`.
//!
//! ```text
//!  PUBLISH ──▶ row stored ──▶ acknowledged, waits ──due──▶ planned, row deleted ──▶ published
//!                                  ▲                            │ not stored
//!                                  └──────────a while───────────┘
//! ```
//!
//! The batch that deletes the row is the one that holds every debt of the publication, so that it
//! happens once whatever crashes. At QoS 0 there is no row: such a message waits in memory and ends
//! with the process. Messages stay at the node that accepted them, wherever their clients go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use verge_model::{MessageId, Millis, Now, UnixMillis, client_id_of};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::Will;
use verge_mqtt_proto::{InboundPublish, KeptProperties, QoS, ReasonCode};
use verge_storage::key::DelayedKey;
use verge_storage::record::DelayedRecord;

use super::api::{DelayedView, SessionNo, ShardIndex};
use super::streams::api::Via;
use super::turn::Effect;
use super::{Shard, Timer};
use crate::extension::counts::Counted;
use crate::extension::delayed::DelayedTopic;
use crate::planner::Plan;
use crate::record::{BadRecord, message_from_record, message_to_record};
use crate::router::Origin;

/// Messages published in one turn; more that are due at once wait for the next, so that other
/// clients are served in between.
const PUBLISHED_PER_TURN_MAX: usize = 256;

/// How long after a publication that could not be stored it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A message that waits.
#[derive(Debug)]
pub(super) struct DelayedMessage {
    /// Without an expiry; its stamp says when it was accepted.
    message: Arc<Message>,
    /// Message Expiry Interval in seconds, counted from when it is published.
    expiry_secs: Option<u32>,
    /// When it is published, by the clock of the wall.
    due_at: UnixMillis,
    /// The same, by the clock of this process.
    due: Millis,
    /// Whether a row stands for it.
    stored: bool,
}

impl DelayedMessage {
    fn key(&self) -> DelayedKey {
        DelayedKey { due_at: self.due_at, message: self.message.id }
    }

    fn record(&self) -> DelayedRecord {
        let message = message_to_record(&self.message);
        DelayedRecord { message, message_expiry_secs: self.expiry_secs }
    }

    pub(super) fn bytes(&self) -> usize {
        self.message.queue_bytes()
    }
}

/// The messages of a shard that wait.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    waiting: BTreeMap<(Millis, MessageId), DelayedMessage>,
    armed: Option<Millis>,
}

/// A message that waits, as the store has it.
#[derive(Debug)]
pub struct RestoredDelayed {
    pub(super) key: DelayedKey,
    pub(super) record: DelayedRecord,
}

impl RestoredDelayed {
    /// The shard, of `count`, where it waits: any will do.
    #[must_use]
    pub fn shard(&self, count: u16) -> ShardIndex {
        ShardIndex((self.key.message.seq % u64::from(count)) as u16)
    }
}

impl Shard {
    /// A PUBLISH to be published later: acknowledged when it is stored.
    pub(super) fn publish_later(
        &mut self,
        via: Via,
        no: SessionNo,
        publish: &InboundPublish<'_>,
        later: DelayedTopic,
        now: Now,
    ) {
        let Some(session) = self.sessions.get(&no) else { return };
        let rules = self.shared.rules.for_topic(later.topic.as_str());
        let message = Message {
            id: self.shared.next_message_id(),
            publisher: self.authors.of(session).clone(),
            stamp: self.shared.stamp(now.wall),
            expires_at: None,
            topic: later.topic,
            qos: publish.qos,
            retain: publish.retain,
            class: rules.class,
            properties: publish.properties.as_deref().map(KeptProperties::from).unwrap_or_default(),
            payload: Bytes::copy_from_slice(publish.payload),
            row: None,
        };
        let properties = publish.properties.as_deref();
        let expiry = properties.and_then(|properties| properties.message_expiry_interval);
        let promise = rules.promise.or(self.conns.get(&via.conn).map(|conn| conn.listener.promise));
        let Some(stored) = self.take_later(message, expiry, later.delay, now) else {
            return self.refuse_publish(via, no, publish, ReasonCode::QuotaExceeded, now);
        };
        if let Some(promise) = promise.filter(|_| stored) {
            self.turn.promise(promise);
        }
        let plan = Plan { stored, ..Plan::default() };
        self.answer_publish(via, no, publish, plan, (ReasonCode::Success, promise), now);
    }

    /// A Will to be published later still.
    pub(super) fn publish_will_later(
        &mut self,
        publisher: Arc<str>,
        will: &Will,
        later: DelayedTopic,
        now: Now,
    ) {
        let message = Message {
            id: self.shared.next_message_id(),
            publisher,
            stamp: self.shared.stamp(now.wall),
            expires_at: None,
            class: self.shared.rules.for_topic(later.topic.as_str()).class,
            topic: later.topic,
            qos: will.qos,
            retain: will.retain,
            properties: will.properties.clone().into(),
            payload: will.payload.clone(),
            row: None,
        };
        if self.take_later(message, will.message_expiry_secs, later.delay, now) == Some(true) {
            self.turn.promise(self.storage_promise());
        }
    }

    /// Lets a message wait; whether it has a row, or `None` if there is no room.
    fn take_later(
        &mut self,
        message: Message,
        expiry_secs: Option<u32>,
        delay: Duration,
        now: Now,
    ) -> Option<bool> {
        let extensions = &self.shared.extensions;
        if !extensions.delayed.take(message.queue_bytes()) {
            extensions.counts.add(Counted::DelayedFull);
            return None;
        }
        extensions.counts.add(Counted::DelayedAccepted);
        let stored = message.qos != QoS::AtMostOnce;
        let delayed = DelayedMessage {
            message: Arc::new(message),
            expiry_secs,
            due_at: now.wall + delay,
            due: now.mono + delay,
            stored,
        };
        if stored {
            self.turn.batch.put(&delayed.key(), &delayed.record());
            self.turn.when_durable(Effect::Waits(Box::new(delayed)));
        } else {
            self.wait_until_due(delayed);
        }
        Some(stored)
    }

    /// A message is stored, or needs not be.
    pub(super) fn wait_until_due(&mut self, delayed: DelayedMessage) {
        self.delayed.waiting.insert((delayed.due, delayed.message.id), delayed);
        self.arm_delayed();
    }

    /// A message was published: its row is gone.
    pub(super) fn delayed_published(&mut self, delayed: &DelayedMessage) {
        let extensions = &self.shared.extensions;
        extensions.delayed.give_back(delayed.bytes());
        extensions.counts.add(Counted::DelayedPublished);
    }

    /// A publication was not stored, and nobody heard of it: it is tried again.
    pub(super) fn delayed_again(&mut self, delayed: DelayedMessage, now: Now) {
        self.wait_until_due(DelayedMessage { due: now.mono + RETRY, ..delayed });
    }

    /// Publishes what is due.
    pub(super) fn delayed_timeout(&mut self, now: Now) {
        self.delayed.armed = None;
        for _ in 0..PUBLISHED_PER_TURN_MAX {
            let first = self.delayed.waiting.first_entry();
            let Some(first) = first.filter(|first| first.key().0 <= now.mono) else { break };
            let delayed = first.remove();
            self.publish_delayed(delayed, now);
        }
        self.arm_delayed();
    }

    fn publish_delayed(&mut self, delayed: DelayedMessage, now: Now) {
        let accepted = &delayed.message;
        let rules = self.shared.rules.for_topic(accepted.topic.as_str());
        let expiry = delayed.expiry_secs.map(|secs| Duration::from_secs(u64::from(secs)));
        let message = Arc::new(Message {
            id: accepted.id,
            publisher: accepted.publisher.clone(),
            // Of retained messages the last published counts, not the last accepted.
            stamp: self.shared.stamp(now.wall),
            expires_at: expiry.map(|expiry| now.wall + expiry),
            topic: accepted.topic.clone(),
            qos: accepted.qos,
            retain: accepted.retain,
            class: rules.class,
            properties: accepted.properties.clone(),
            payload: accepted.payload.clone(),
            row: None,
        });
        let plan = self.planner.plan(&message, Origin::Here, now, &mut self.turn.batch);
        if delayed.stored {
            self.turn.batch.delete(&delayed.key());
        }
        if delayed.stored || plan.stored {
            self.turn.promise(rules.promise.unwrap_or(self.config.promise));
        }
        self.send_transients(&plan);
        self.accept(plan, None, delayed.stored, now);
        if delayed.stored {
            self.turn.when_durable(Effect::Published(Box::new(delayed)));
        } else {
            self.delayed_published(&delayed);
        }
    }

    /// Takes back a message that waits, before the shard runs.
    ///
    /// # Errors
    /// A record that is not a message; it stays where it is.
    pub fn restore_delayed(
        &mut self,
        restored: RestoredDelayed,
        now: Now,
    ) -> Result<(), BadRecord> {
        let RestoredDelayed { key, record } = restored;
        let message = Arc::new(message_from_record(record.message)?);
        self.shared.extensions.delayed.take_stored(message.queue_bytes());
        self.wait_until_due(DelayedMessage {
            message,
            expiry_secs: record.message_expiry_secs,
            due_at: key.due_at,
            due: now.mono + key.due_at.since(now.wall),
            stored: true,
        });
        Ok(())
    }

    /// The messages that wait, for the administrator, in the order in which they are due.
    pub(super) fn delayed_views(&self) -> Vec<DelayedView> {
        let view = |delayed: &DelayedMessage| DelayedView {
            id: delayed.message.id,
            topic: delayed.message.topic.as_str().to_owned(),
            publisher: client_id_of(&delayed.message.publisher),
            qos: delayed.message.qos.bits(),
            retain: delayed.message.retain,
            payload_bytes: delayed.message.payload.len(),
            accepted_at: delayed.message.stamp.wall(),
            due_at: delayed.due_at,
        };
        self.delayed.waiting.values().map(view).collect()
    }

    fn arm_delayed(&mut self) {
        let Some(((due, _), _)) = self.delayed.waiting.first_key_value() else { return };
        let due = *due;
        if self.delayed.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        if let Some(armed) = self.delayed.armed.replace(due) {
            self.timers.remove(&(armed, Timer::Delayed));
        }
        self.timers.insert((due, Timer::Delayed));
    }
}

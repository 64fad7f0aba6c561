//! From one message to everything it causes at this node.
//!
//! A message is accepted once, where its PUBLISH arrived or a peer forwarded it to, and the plan
//! covers all shards: the rows of every debt, whatever shard serves the session, stand in the
//! acceptor's batch, so that they are durable together or not at all. That is what makes an
//! acknowledgement honest.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use verge_model::{Class, ClientId, NodeKey, Now, client_id_of};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::Stored;
use verge_mqtt_proto::{QoS, TopicFilter};
use verge_storage::Batch;
use verge_storage::key::LANE_OWN;
use verge_storage::record::{OutboxRecord, RetainedRecord};

use crate::debts::{put_delivery, put_message};
use crate::record::{ForwardRecord, message_to_record};
use crate::retained::RetainedValue;
use crate::router::{ForwardTargets, GroupMember, Match, Matches, Origin, RemoteMatch};
use crate::rule::{RuleOutcome, Scope};
use crate::shard::api::{Delivery, ShardIndex};
use crate::shared::NodeShared;
use crate::topics::{Topic, Topics};

/// How often nodes without a member of a group pass a message of it on. Members have moved further
/// every time; two nodes that each think so of the other must come to an end.
const HOPS_MAX: u8 = 4;

/// Deliveries of one message, by shard. Most messages have one; more room would be moved with it at
/// every step.
pub type Deliveries = SmallVec<[(ShardIndex, Delivery); 1]>;

/// What a plan came to.
#[derive(Debug, Default)]
pub struct Plan {
    /// What each session gets. Hand it out when the batch is durable.
    pub deliveries: Deliveries,
    /// Copies for other nodes that no disk holds: a message of QoS 0, encoded as a
    /// [`ForwardRecord`].
    pub transients: Vec<(NodeKey, Class, Bytes)>,
    /// Whether the batch holds rows for this message.
    pub stored: bool,
    /// Sessions and nodes that get the message.
    pub recipients: usize,
}

/// A message that a group gives to another member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MovedMessage<'a> {
    pub(crate) message: &'a Arc<Message>,
    pub(crate) group: &'a TopicFilter,
    /// How often nodes have passed it on.
    pub(crate) hops: u8,
}

/// Where it went.
#[derive(Debug)]
pub(crate) enum Moved {
    /// To a session of this node: hand it out when the batch is durable.
    Here(ShardIndex, Delivery),
    /// To another node, at QoS 0.
    Transient(NodeKey, Class, Bytes),
    /// To another node, by its log.
    Forwarded,
}

impl Plan {
    fn take(&mut self, moved: Moved) {
        match moved {
            Moved::Here(shard, delivery) => {
                self.stored |= delivery.stored.is_stored();
                self.deliveries.push((shard, delivery));
            }
            Moved::Transient(node, class, record) => self.transients.push((node, class, record)),
            Moved::Forwarded => self.stored = true,
        }
    }
}

/// Plans messages. Each thread has its own, for the memory it re-uses.
#[derive(Debug)]
pub struct Planner {
    shared: Arc<NodeShared>,
    topics: Topics,
    /// Whom a forwarded message is for.
    matches: Matches,
}

impl Planner {
    /// A planner of this node.
    #[must_use]
    pub fn new(shared: Arc<NodeShared>) -> Self {
        Self { shared, topics: Topics::new(), matches: Matches::default() }
    }

    /// Plans `message`: puts rows for everything owed into `batch`.
    pub fn plan(
        &mut self,
        message: &Arc<Message>,
        origin: Origin<'_>,
        now: Now,
        batch: &mut Batch,
    ) -> Plan {
        if origin == Origin::Here {
            let topic = self.topic(message.topic.as_str(), &message.publisher);
            let plan = self.plan_accepted(&topic, message, None, now, batch);
            self.keep(topic);
            return plan;
        }
        let name = message.topic.as_str();
        self.shared.router.matches(name, origin, &message.publisher, &mut self.matches);
        let mut plan = self.plan_matches(&self.matches, message, None, now, batch);
        match origin {
            Origin::Forwarded(targets) if self.matches.groups_unserved > 0 => {
                self.pass_on(message, targets, now, batch, &mut plan);
            }
            Origin::Node => {
                self.uplink(&self.shared.rules.for_topic(name), message, batch, &mut plan)
            }
            Origin::Here | Origin::Forwarded(_) => {}
        }
        plan
    }

    /// What a message to this topic causes; to be given back with [`keep`](Self::keep).
    pub(crate) fn topic(&mut self, name: &str, publisher: &ClientId) -> Box<Topic> {
        self.topics.take(name, publisher, &self.shared)
    }

    /// Keeps a topic for its next message.
    pub(crate) fn keep(&mut self, topic: Box<Topic>) {
        self.topics.keep(topic);
    }

    /// Plans a message that this node accepts from its publisher; sessions of the shard `served`
    /// have been sent it already.
    pub(crate) fn plan_accepted(
        &self,
        topic: &Topic,
        message: &Arc<Message>,
        served: Option<ShardIndex>,
        now: Now,
        batch: &mut Batch,
    ) -> Plan {
        let mut plan = self.plan_matches(&topic.matches, message, served, now, batch);
        let remotes = &topic.matches.remotes;
        if topic.rules.scope != Scope::Node && (message.retain || !remotes.is_empty()) {
            self.forward(remotes, message, batch, &mut plan);
        }
        self.uplink(&topic.rules, message, batch, &mut plan);
        plan
    }

    fn uplink(&self, rules: &RuleOutcome, message: &Message, batch: &mut Batch, plan: &mut Plan) {
        for stream in rules.uplinks {
            batch.append_outbox(*stream, &outbox_record(message));
            self.shared.counters.uplink_selected(1);
            plan.stored = true;
        }
    }

    /// Plans a message of the node itself, for subscribers of this node. If it is to be retained it
    /// is kept in memory only.
    pub(crate) fn plan_own(&mut self, message: &Arc<Message>, now: Now, batch: &mut Batch) -> Plan {
        let mut plan = Plan::default();
        let (topic, publisher) = (message.topic.as_str(), &message.publisher);
        self.shared.router.matches(topic, Origin::Node, publisher, &mut self.matches);
        plan.recipients = self.matches.locals.len();
        if message.retain {
            let (stamp, node) = (message.stamp, message.id.node);
            let value = RetainedValue { stamp, node, message: Some(Arc::clone(message)) };
            self.shared.retained.apply(&message.topic, value);
        }
        self.deliver(self.matches.locals.iter(), message, now, batch, &mut plan);
        plan
    }

    fn plan_matches(
        &self,
        matches: &Matches,
        message: &Arc<Message>,
        served: Option<ShardIndex>,
        now: Now,
        batch: &mut Batch,
    ) -> Plan {
        let mut plan =
            Plan { recipients: matches.locals.len() + matches.remotes.len(), ..Plan::default() };
        if message.retain {
            plan.stored |= self.retain(message, batch);
        }
        let locals = matches.locals.iter().filter(|found| Some(found.shard) != served);
        self.deliver(locals, message, now, batch, &mut plan);
        plan
    }

    fn deliver<'a>(
        &self,
        locals: impl Iterator<Item = &'a Match>,
        message: &Arc<Message>,
        now: Now,
        batch: &mut Batch,
        plan: &mut Plan,
    ) {
        let first = plan.deliveries.len();
        let mut rows = 0;
        for found in locals {
            let qos = message.qos.min(found.qos);
            let is_owed = qos != QoS::AtMostOnce;
            // What is not owed waits in no queue.
            let seq = if is_owed { self.shared.next_queue_seq() } else { 0 };
            let stored = match found.durable && is_owed {
                true => Stored::Whole,
                false => Stored::Nowhere,
            };
            rows += u32::from(stored.is_stored());
            let delivery = Delivery {
                session: found.session,
                seq,
                message: Arc::clone(message),
                qos,
                // "the Server MUST set the RETAIN flag to 0 when forwarding" [MQTT-3.3.1-12]
                retain: message.retain && found.retain_as_published,
                subscription_ids: found.subscription_ids.clone(),
                tag: found.tag,
                stored,
                share: found.share.clone(),
            };
            plan.deliveries.push((found.shard, delivery));
        }
        if rows == 0 {
            return;
        }
        plan.stored = true;
        let by_name = rows > 1;
        if by_name {
            put_message(message, rows, batch);
        }
        for (_, delivery) in &mut plan.deliveries[first..] {
            if by_name && delivery.stored.is_stored() {
                delivery.stored = Stored::ByName;
            }
            put_delivery(delivery, LANE_OWN, now, batch);
        }
    }

    /// Finds other members for groups that have none here any more.
    fn pass_on(
        &self,
        message: &Arc<Message>,
        targets: &ForwardTargets,
        now: Now,
        batch: &mut Batch,
        plan: &mut Plan,
    ) {
        let served = |name: &str| {
            let groups = self.matches.locals.iter().filter_map(|found| found.share.as_deref());
            groups.into_iter().any(|group| group.as_str() == name)
        };
        for name in targets.groups.iter().filter(|name| !served(name)) {
            let group = TopicFilter::try_from(Arc::clone(name)).ok();
            let moved = group.filter(|_| targets.hops < HOPS_MAX).and_then(|group| {
                let hops = targets.hops + 1;
                let of = MovedMessage { message, group: &group, hops };
                self.give_other(of, false, now, batch)
            });
            match moved {
                Some(moved) => plan.take(moved),
                None => self.shared.counters.share_unserved(1),
            }
        }
    }

    /// Gives a message of a group to another member: puts its rows into `batch`. `None` if there is
    /// no other member, or, with `awake`, none that is connected or of a node in reach.
    pub(crate) fn give_other(
        &self,
        MovedMessage { message, group, hops }: MovedMessage<'_>,
        awake: bool,
        now: Now,
        batch: &mut Batch,
    ) -> Option<Moved> {
        let topic = message.topic.as_str();
        match self.shared.router.choose(group, topic, &message.publisher, awake)? {
            GroupMember::Here(found) => {
                let qos = message.qos.min(found.qos);
                let stored = found.durable && qos != QoS::AtMostOnce;
                let delivery = Delivery {
                    session: found.session,
                    seq: self.shared.next_queue_seq(),
                    message: Arc::clone(message),
                    qos,
                    retain: false,
                    subscription_ids: found.subscription_ids,
                    tag: found.tag,
                    stored: if stored { Stored::Whole } else { Stored::Nowhere },
                    share: found.share,
                };
                put_delivery(&delivery, LANE_OWN, now, batch);
                Some(Moved::Here(found.shard, delivery))
            }
            GroupMember::Node(node) => {
                let groups = vec![group.shared_text()];
                let targets = ForwardTargets { plain: false, groups, hops };
                let record = ForwardRecord { targets, message: message_to_record(message) };
                let record = record.encode();
                self.shared.counters.forwarded(1);
                if message.qos == QoS::AtMostOnce {
                    return Some(Moved::Transient(node, message.class, record));
                }
                batch.append_forward(node, message.class, record);
                Some(Moved::Forwarded)
            }
        }
    }

    fn forward(
        &self,
        remotes: &[RemoteMatch],
        message: &Arc<Message>,
        batch: &mut Batch,
        plan: &mut Plan,
    ) {
        let record = message_to_record(message);
        let mut send = |node: NodeKey, targets: ForwardTargets| {
            let record = ForwardRecord { targets, message: record.clone() }.encode();
            self.shared.counters.forwarded(1);
            if message.qos == QoS::AtMostOnce && !message.retain {
                plan.transients.push((node, message.class, record));
            } else {
                batch.append_forward(node, message.class, record);
                plan.stored = true;
            }
        };
        for remote in remotes {
            send(remote.node, remote.targets.clone());
        }
        if message.retain {
            // Every peer keeps retained messages, whether or not somebody there listens now.
            for node in self.shared.peers().iter().copied() {
                if remotes.iter().all(|remote| remote.node != node) {
                    send(node, ForwardTargets::default());
                }
            }
        }
    }

    /// Keeps a retained message, or removes it if the payload is empty [MQTT-3.3.1-6]; false if a
    /// later one is kept already.
    fn retain(&self, message: &Arc<Message>, batch: &mut Batch) -> bool {
        self.shared.note_stamp(message.stamp);
        let kept = (!message.payload.is_empty()).then(|| Arc::clone(message));
        let value = RetainedValue { stamp: message.stamp, node: message.id.node, message: kept };
        let record = RetainedRecord {
            stamp: message.stamp,
            node: message.id.node,
            message: value.message.as_deref().map(message_to_record),
        };
        let retained = &self.shared.retained;
        // A client that is told whether its message is kept was told by what was set already.
        let changed =
            retained.holds(&message.topic, &value) || retained.apply(&message.topic, value);
        if changed {
            batch.put_retained(message.topic.as_str(), &record);
        }
        changed
    }
}

fn outbox_record(message: &Message) -> OutboxRecord {
    OutboxRecord {
        id: message.id,
        published_at: message.stamp.wall(),
        client_id: client_id_of(&message.publisher),
        topic: message.topic.as_str().into(),
        qos: message.qos.bits(),
        payload: message.payload.clone(),
    }
}

//! Everyone who gets one message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use verge_model::NodeKey;
use verge_mqtt_proto::session::StreamTag;
use verge_mqtt_proto::{QoS, TopicFilter};

use super::Subscriber;
use super::group_turns::GroupTurns;
use crate::pressure::Pressure;
use crate::shard::api::{SessionNo, ShardIndex};

/// Where a message came to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A client of this node published it, or the node itself.
    Here,
    /// It is for subscribers of this node only: the node itself published it, or a rule says so.
    Node,
    /// Another node accepted it and sent it here for these.
    Forwarded(&'a ForwardTargets),
}

/// Whom a forwarded message is for, at the node it is sent to. It travels with the message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ForwardTargets {
    /// Everyone there with a matching subscription that is not shared.
    pub plain: bool,
    /// One member there of each of these shared groups, named by their whole filters, sorted.
    pub groups: Vec<Arc<str>>,
    /// How often the groups' message was passed on because a node had no member any more. Not part
    /// of this encoding; a [`ForwardRecord`](crate::record::ForwardRecord) carries it.
    #[serde(skip)]
    pub hops: u8,
}

/// A session of this node that gets the message: once for each stream of its client, however many
/// subscriptions matched there, and once more for each group that chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The shard that serves the session.
    pub shard: ShardIndex,
    /// The session.
    pub session: SessionNo,
    /// The stream the subscriptions were made on.
    pub tag: StreamTag,
    /// Whether the session outlives its connection, so that the delivery has a row.
    pub durable: bool,
    /// The greatest QoS the matching subscriptions grant [MQTT-3.3.4-2]; the message's own may be
    /// less.
    pub qos: QoS,
    /// Whether one of them asks for the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// The Subscription Identifiers of all of them [MQTT-3.3.4-4], sorted.
    pub subscription_ids: SmallVec<[u32; 2]>,
    /// The group for which the session was chosen. "If a Client has a Non-shared Subscription and a
    /// Shared Subscription to the same Topic Filter, […] a second copy of messages will be delivered
    /// to one of the subscribers to the Shared Subscription, and this could result in a second copy
    /// being sent to this Client." (4.8.2)
    pub share: Option<Arc<TopicFilter>>,
}

/// Another node that gets the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteMatch {
    /// The node.
    pub node: NodeKey,
    /// Whom it is for there.
    pub targets: ForwardTargets,
}

/// What [`Router::matches`](super::Router::matches) found. Meant to be used again and again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matches {
    /// Streams of sessions of this node, each once, and once for each group that chose it.
    pub locals: Vec<Match>,
    /// Other nodes, each once, sorted.
    pub remotes: SmallVec<[RemoteMatch; 4]>,
    /// Groups whose members take turns; who is next stands behind the others in `locals`.
    turns: Vec<GroupTurns>,
    /// How many of `locals` are not of these groups.
    plain: usize,
    /// Groups of [`ForwardTargets`] that have no member here any more: their last member left
    /// while the message was under way.
    pub groups_unserved: usize,
    /// Whether it depends on more than the topic and on whose turn it is: on who publishes, or on
    /// what a group remembers. If not, the answer holds for as long as the router's generation.
    pub varies: bool,
}

impl Matches {
    /// Forgets what was found, and keeps the memory.
    pub fn clear(&mut self) {
        self.locals.clear();
        self.remotes.clear();
        self.turns.clear();
        self.plain = 0;
        self.groups_unserved = 0;
        self.varies = false;
    }

    /// Whether nobody gets the message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locals.is_empty() && self.remotes.is_empty()
    }

    /// Adds a subscription that matched.
    pub(super) fn add_local(&mut self, subscriber: &Subscriber) {
        self.locals.push(Match::of(subscriber));
    }

    /// Adds a group whose members take turns.
    pub(super) fn add_turns(&mut self, turns: GroupTurns) {
        self.turns.push(turns);
    }

    /// Lets the next member of each group have the next message.
    pub(crate) fn take_turns(&mut self, pressure: &Pressure) {
        if self.turns.is_empty() {
            return;
        }
        self.locals.truncate(self.plain);
        self.locals.extend(self.turns.iter().filter_map(|turns| turns.next(pressure)).cloned());
    }

    /// Adds the member that a group chose.
    pub(super) fn add_member(&mut self, subscriber: &Subscriber, group: &Arc<TopicFilter>) {
        let share = Some(Arc::clone(group));
        self.locals.push(Match { share, ..Match::of(subscriber) });
    }

    /// Adds a node for its subscribers outside groups.
    pub(super) fn add_remote(&mut self, node: NodeKey) {
        let targets = ForwardTargets { plain: true, ..ForwardTargets::default() };
        self.remotes.push(RemoteMatch { node, targets });
    }

    /// Adds a node for one member of a group.
    pub(super) fn add_remote_group(&mut self, node: NodeKey, group: Arc<str>) {
        let targets = ForwardTargets { groups: vec![group], ..ForwardTargets::default() };
        self.remotes.push(RemoteMatch { node, targets });
    }

    /// Merges what was found for one stream or node. `sources` lists of subscribers and groups
    /// gave local matches; a single list names no stream twice.
    pub(super) fn finish(&mut self, origin: Origin<'_>, sources: Sources) {
        if sources.lists > 1 {
            self.locals.sort_by_key(|found| (found.session, found.tag, found.share.is_some()));
            self.locals.dedup_by(|next, kept| {
                let plain = next.share.is_none() && kept.share.is_none();
                let same = plain && next.session == kept.session && next.tag == kept.tag;
                if same {
                    kept.absorb(next);
                }
                same
            });
        }
        self.plain = self.locals.len();
        if self.remotes.len() > 1 {
            self.remotes.sort_by_key(|found| found.node);
            self.remotes.dedup_by(|next, kept| {
                let same = next.node == kept.node;
                if same {
                    kept.absorb(next);
                }
                same
            });
        }
        if let Origin::Forwarded(targets) = origin {
            self.groups_unserved = targets.groups.len().saturating_sub(sources.groups);
        }
    }
}

/// Where local matches came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sources {
    /// Lists of subscribers, and groups, that gave at least one.
    pub(super) lists: usize,
    /// Groups among them.
    pub(super) groups: usize,
}

impl std::ops::AddAssign for Sources {
    fn add_assign(&mut self, other: Self) {
        self.lists += other.lists;
        self.groups += other.groups;
    }
}

impl Match {
    /// What a subscription asks for.
    pub(super) fn of(subscriber: &Subscriber) -> Self {
        Self {
            shard: subscriber.shard,
            session: subscriber.session,
            tag: subscriber.tag,
            durable: subscriber.durable,
            qos: subscriber.options.qos,
            retain_as_published: subscriber.options.retain_as_published,
            subscription_ids: subscriber.options.id_number().into_iter().collect(),
            share: None,
        }
    }

    fn absorb(&mut self, other: &Self) {
        self.qos = self.qos.max(other.qos);
        self.durable |= other.durable;
        self.retain_as_published |= other.retain_as_published;
        // "It is possible that the Client made several subscriptions that match a publication and
        // that it used the same identifier for more than one of them. In this case the PUBLISH
        // packet will carry multiple identical Subscription Identifiers." (3.3.2.3.8)
        self.subscription_ids.extend_from_slice(&other.subscription_ids);
        self.subscription_ids.sort_unstable();
    }
}

impl RemoteMatch {
    fn absorb(&mut self, other: &mut Self) {
        self.targets.plain |= other.targets.plain;
        for group in other.targets.groups.drain(..) {
            if let Err(place) = self.targets.groups.binary_search(&group) {
                self.targets.groups.insert(place, group);
            }
        }
    }
}

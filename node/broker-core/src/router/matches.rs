//! Everyone who gets one message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use verge_model::NodeKey;
use verge_mqtt_proto::QoS;

use super::Subscriber;
use crate::shard::api::{SessionNo, ShardIndex};

/// Where a message came to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A client of this node published it, or the node itself.
    Here,
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
}

/// A session of this node that gets the message, once, however many of its subscriptions matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The shard that serves the session.
    pub shard: ShardIndex,
    /// The session.
    pub session: SessionNo,
    /// Whether the session outlives its connection, so that the delivery has a row.
    pub durable: bool,
    /// The greatest QoS the matching subscriptions grant [MQTT-3.3.4-2]; the message's own may be
    /// less.
    pub qos: QoS,
    /// Whether one of them asks for the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// The Subscription Identifiers of all of them [MQTT-3.3.4-4], sorted.
    pub subscription_ids: SmallVec<[u32; 2]>,
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
    /// Sessions of this node, each once.
    pub locals: Vec<Match>,
    /// Other nodes, each once, sorted.
    pub remotes: SmallVec<[RemoteMatch; 4]>,
    /// Groups of [`ForwardTargets`] that have no member here any more: their last member left
    /// while the message was under way.
    pub groups_unserved: usize,
}

impl Matches {
    /// Forgets what was found, and keeps the memory.
    pub fn clear(&mut self) {
        self.locals.clear();
        self.remotes.clear();
        self.groups_unserved = 0;
    }

    /// Whether nobody gets the message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locals.is_empty() && self.remotes.is_empty()
    }

    /// Adds a subscription that matched.
    pub(super) fn add_local(&mut self, subscriber: &Subscriber) {
        self.locals.push(Match {
            shard: subscriber.shard,
            session: subscriber.session,
            durable: subscriber.durable,
            qos: subscriber.options.qos,
            retain_as_published: subscriber.options.retain_as_published,
            subscription_ids: subscriber.options.id.into_iter().collect(),
        });
    }

    /// Adds a node for its subscribers outside groups.
    pub(super) fn add_remote(&mut self, node: NodeKey) {
        let targets = ForwardTargets { plain: true, groups: Vec::new() };
        self.remotes.push(RemoteMatch { node, targets });
    }

    /// Adds a node for one member of a group.
    pub(super) fn add_remote_group(&mut self, node: NodeKey, group: Arc<str>) {
        let targets = ForwardTargets { plain: false, groups: vec![group] };
        self.remotes.push(RemoteMatch { node, targets });
    }

    /// Merges what was found for one session or node. `sources` lists of subscribers and groups
    /// gave local matches; a single list names no session twice.
    pub(super) fn finish(&mut self, origin: Origin<'_>, sources: Sources) {
        if sources.lists > 1 {
            self.locals.sort_by_key(|found| found.session);
            self.locals.dedup_by(|next, kept| {
                let same = next.session == kept.session;
                if same {
                    kept.absorb(next);
                }
                same
            });
        }
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

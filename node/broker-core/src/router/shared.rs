//! A group of shared subscriptions (MQTT 5.0, 4.8.2): each message for one member.
//!
//! Candidates stand in tiers, and a tier is asked only when those before it are empty:
//!
//! | strategy | 1 | 2 | 3 | 4 |
//! |---|---|---|---|---|
//! | local-first | members here, connected | nodes in reach | members here, away | nodes out of reach |
//! | any other | members here, connected, and nodes in reach | members here, away | nodes out of reach | |
//!
//! Nodes tell each other that they have members, not how many or who, so another node counts as
//! one candidate; it chooses among its own members when the message reaches it. The hash strategies
//! weigh candidates (rendezvous hashing), so that every node chooses the same member for a key and
//! a member that comes or goes moves no other's keys.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use smallvec::SmallVec;
use verge_model::{ClientId, NodeKey};
use verge_mqtt_proto::TopicFilter;

use super::Subscriber;
use super::group_turns::{GroupTurns, chance};
use super::matches::Match;
use super::remote::RemoteNodes;
use super::strategy::{ShareStrategy, SharedSettings, mixed, text_hash};
use super::subscribers::{Subscribers, Who, who};
use crate::pressure::Pressure;

/// A ShareName with a filter, and everyone in the mesh who is in it.
#[derive(Debug)]
pub struct Group {
    /// The whole filter, `$share/<group>/<filter>`, that names the group.
    pub tag: Arc<TopicFilter>,
    /// Whether it is only for what is published at this node; it has no remote members then.
    pub local: bool,
    /// Members at this node.
    members: Subscribers,
    /// How many of them are connected.
    online: usize,
    /// Nodes that have members, sorted.
    remotes: SmallVec<[NodeKey; 2]>,
    strategy: ShareStrategy,
    /// Whose turn it is: a count of turns, taken by all threads.
    turn: Arc<AtomicU32>,
    /// Members that are connected, for plans to keep; made when one is, and again after a change.
    awake: OnceLock<Arc<[Match]>>,
    /// Who has all of it, of a sticky group. A lock, since it changes under the router's read lock;
    /// other groups have none.
    stuck: Option<Box<Mutex<Option<Stuck>>>>,
}

/// What a group is asked with.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where the message was published.
    pub topic: &'a str,
    /// By whom.
    pub publisher: &'a ClientId,
    /// Which nodes are in reach.
    pub nodes: &'a RemoteNodes,
    /// What was configured.
    pub settings: &'a SharedSettings,
    /// Which members do not keep up.
    pub pressure: &'a Pressure,
    /// Whether other nodes may have it.
    pub anywhere: bool,
    /// Whether only who is connected, or in reach, may have it.
    pub awake: bool,
}

/// Who gets a message of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen<'a> {
    /// A member at this node.
    Member(&'a Subscriber),
    /// A member of this node.
    Node(NodeKey),
}

/// Who gets all messages of a sticky group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stuck {
    Member(Who),
    Node(NodeKey),
}

/// The candidates of one tier.
#[derive(Debug, Clone, Copy)]
struct Tier {
    /// Which members: connected ones, those that are away, or none.
    members: Option<bool>,
    /// Which nodes: those in reach, those that are not, or none.
    nodes: Option<bool>,
}

impl Group {
    /// A group without members.
    #[must_use]
    pub fn new(name: &str, local: bool, settings: &SharedSettings) -> Self {
        let tag = TopicFilter::try_from(Arc::from(name)).expect("a group is named by a filter");
        let strategy = settings.strategy_of(name);
        Self {
            tag: Arc::new(tag),
            local,
            members: Subscribers::default(),
            online: 0,
            remotes: SmallVec::new(),
            strategy,
            turn: Arc::default(),
            awake: OnceLock::new(),
            stuck: (strategy == ShareStrategy::Sticky).then(Box::default),
        }
    }

    /// The whole filter that names it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.tag.as_str()
    }

    /// Adds a member; true if it was one.
    pub fn insert(&mut self, subscriber: Subscriber) -> bool {
        self.awake.take();
        let online = subscriber.online;
        let before = self.members.get(who(&subscriber)).is_some_and(|member| member.online);
        self.online = self.online + usize::from(online) - usize::from(before);
        self.members.insert(subscriber)
    }

    /// Removes a member; true if it was one.
    pub fn remove(&mut self, of: Who) -> bool {
        self.awake.take();
        let online = self.members.get(of).is_some_and(|member| member.online);
        self.online -= usize::from(online);
        self.members.remove(of)
    }

    /// Says whether a member is connected.
    pub fn set_online(&mut self, of: Who, online: bool) {
        self.awake.take();
        if let Some(member) = self.members.get_mut(of) {
            let before = std::mem::replace(&mut member.online, online);
            self.online = self.online + usize::from(online) - usize::from(before);
        }
    }

    /// A member, to change what does not say whether it is connected.
    pub fn get_mut(&mut self, of: Who) -> Option<&mut Subscriber> {
        self.awake.take();
        self.members.get_mut(of)
    }

    /// Whether this node has a member.
    #[must_use]
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Who gets a message.
    #[must_use]
    pub fn choose(&self, ask: &Ask<'_>) -> Option<Chosen<'_>> {
        let (online, away) = (Some(true), Some(false));
        let far = |nodes: Option<bool>| nodes.filter(|_| ask.anywhere);
        let tiers = if self.strategy == ShareStrategy::LocalFirst {
            [(online, None), (None, far(online)), (away, None), (None, far(away))]
        } else {
            [(online, far(online)), (away, None), (None, far(away)), (None, None)]
        };
        let tiers = tiers.into_iter().map(|(members, nodes)| Tier { members, nodes });
        let asleep = |tier: &Tier| tier.members == away || tier.nodes == away;
        tiers.filter(|tier| !(ask.awake && asleep(tier))).find_map(|tier| self.pick(tier, ask))
    }

    /// The members that take turns for a message, if nobody else may have it: a plan keeps them.
    #[must_use]
    pub fn turns(&self, ask: &Ask<'_>) -> Option<GroupTurns> {
        let seed = match self.strategy {
            ShareStrategy::LocalFirst => None,
            ShareStrategy::RoundRobin | ShareStrategy::Random
                if ask.anywhere && !self.remotes.is_empty() =>
            {
                return None;
            }
            ShareStrategy::RoundRobin => None,
            ShareStrategy::Random => Some(ask.settings.seed),
            ShareStrategy::Sticky | ShareStrategy::HashClient | ShareStrategy::HashTopic => {
                return None;
            }
        };
        if self.online == 0 {
            return None;
        }
        let members = self.awake.get_or_init(|| {
            let share = || Some(Arc::clone(&self.tag));
            let awake = self.members.as_slice().iter().filter(|member| member.online);
            awake.map(|member| Match { share: share(), ..Match::of(member) }).collect()
        });
        Some(GroupTurns { members: Arc::clone(members), turn: Arc::clone(&self.turn), seed })
    }

    /// Takes note that a node has members.
    pub fn add_remote(&mut self, node: NodeKey) {
        if let Err(place) = self.remotes.binary_search(&node) {
            self.remotes.insert(place, node);
        }
    }

    /// Takes note that a node has members no more.
    pub fn remove_remote(&mut self, node: NodeKey) {
        if let Ok(place) = self.remotes.binary_search(&node) {
            self.remotes.remove(place);
        }
    }

    /// Whether nobody in the mesh is in the group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.remotes.is_empty()
    }

    fn pick(&self, tier: Tier, ask: &Ask<'_>) -> Option<Chosen<'_>> {
        let members = match tier.members {
            None => 0,
            Some(true) => self.online,
            Some(false) => self.members.as_slice().len() - self.online,
        };
        let nodes = self.nodes_of(tier, ask).count();
        let count = u32::try_from(members + nodes).ok().filter(|count| *count > 0)?;
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        let at = |place: u32| self.candidate(tier, members, ask, (place % count) as usize);
        let chance = || chance(ask.settings.seed, turn());
        match self.strategy {
            ShareStrategy::LocalFirst | ShareStrategy::RoundRobin => {
                with_room(ask.pressure, count, turn(), at)
            }
            ShareStrategy::Random => with_room(ask.pressure, count, chance(), at),
            ShareStrategy::HashClient => {
                self.heaviest(tier, members, ask, text_hash(ask.publisher))
            }
            ShareStrategy::HashTopic => self.heaviest(tier, members, ask, text_hash(ask.topic)),
            ShareStrategy::Sticky => {
                let Some(stuck) = self.stuck.as_deref() else { return at(chance()) };
                let mut stuck = stuck.lock();
                let kept = stuck.and_then(|stuck| self.still(stuck, tier, ask));
                let chosen = kept.or_else(|| at(chance()))?;
                *stuck = Some(match chosen {
                    Chosen::Member(member) => Stuck::Member(who(member)),
                    Chosen::Node(node) => Stuck::Node(node),
                });
                Some(chosen)
            }
        }
    }

    /// Who has had all so far, if they may go on.
    fn still(&self, stuck: Stuck, tier: Tier, ask: &Ask<'_>) -> Option<Chosen<'_>> {
        match stuck {
            Stuck::Member(of) => {
                let member = self.members.get(of)?;
                (tier.members == Some(member.online)).then_some(Chosen::Member(member))
            }
            Stuck::Node(node) => {
                self.nodes_of(tier, ask).find(|other| *other == node).map(Chosen::Node)
            }
        }
    }

    fn candidate(
        &self,
        tier: Tier,
        members: usize,
        ask: &Ask<'_>,
        place: usize,
    ) -> Option<Chosen<'_>> {
        if place >= members {
            return self.nodes_of(tier, ask).nth(place - members).map(Chosen::Node);
        }
        let list = self.members.as_slice();
        let member = if members == list.len() {
            list.get(place)
        } else {
            list.iter().filter(|member| Some(member.online) == tier.members).nth(place)
        };
        member.map(Chosen::Member)
    }

    fn heaviest(&self, tier: Tier, members: usize, ask: &Ask<'_>, key: u64) -> Option<Chosen<'_>> {
        let weight = |node: &NodeKey| mixed(key ^ mixed(node.0));
        let here = (members > 0).then_some(ask.settings.node);
        let node = self.nodes_of(tier, ask).chain(here).max_by_key(weight)?;
        if here != Some(node) {
            return Some(Chosen::Node(node));
        }
        let list = self.members.as_slice().iter();
        let list = list.filter(|member| Some(member.online) == tier.members);
        let name = |member: &Subscriber| member.client.as_deref().map_or(0, |name| text_hash(name));
        let weight = |member: &&Subscriber| (mixed(key ^ name(member)), who(member));
        list.max_by_key(weight).map(Chosen::Member)
    }

    fn nodes_of<'a>(
        &'a self,
        tier: Tier,
        ask: &'a Ask<'_>,
    ) -> impl Iterator<Item = NodeKey> + use<'a> {
        let wanted = move |node: &NodeKey| Some(ask.nodes.is_reachable(*node)) == tier.nodes;
        self.remotes.iter().copied().filter(wanted)
    }
}

/// The candidate at `first`, or the next one after it that keeps up.
fn with_room<'a>(
    pressure: &Pressure,
    count: u32,
    first: u32,
    at: impl Fn(u32) -> Option<Chosen<'a>>,
) -> Option<Chosen<'a>> {
    if !pressure.is_any() {
        return at(first);
    }
    let keeps_up = |chosen: &Chosen<'_>| match chosen {
        Chosen::Member(member) => pressure.get(member.session).is_none(),
        Chosen::Node(_) => true,
    };
    let mut all = (0..count).filter_map(|step| at(first.wrapping_add(step)));
    all.find(keeps_up).or_else(|| at(first))
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;

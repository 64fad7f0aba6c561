//! What a thread knows of the topics it lately saw: the topic's rules, and who gets its messages.
//!
//! Publishers repeat their topics. An answer of the router holds until a subscription changes, so
//! it is asked again only when its [generation](crate::router::Router::generation) has moved on, or
//! when the answer varies with the publisher or with what a group remembers.

use std::fmt;

use verge_model::ClientId;
use verge_mqtt_proto::TopicName;

use crate::router::{Matches, Origin};
use crate::rule::{RuleOutcome, Scope};
use crate::shared::NodeShared;

/// Places for topics: a few times as many as one thread of a roadside unit meets, 8 B each while
/// empty. Topics that share a place take turns.
const PLACES: usize = 4_096;

/// Matches kept for all topics together: 40 B each, about 2.5 MB. Beyond it all are forgotten.
const MATCHES_KEPT_MAX: usize = 65_536;

/// The longest topic that is kept, in bytes.
const TOPIC_BYTES_MAX: usize = 512;

/// A topic.
#[derive(Debug)]
pub(crate) struct Topic {
    /// Its name.
    pub(crate) name: TopicName,
    /// What the rules say of it.
    pub(crate) rules: RuleOutcome,
    /// Who gets a message published to it at this node now.
    pub(crate) matches: Matches,
    /// The router's generation that `matches` is of.
    generation: Option<u64>,
}

/// Topics lately seen, each at the one place its hash names.
pub(crate) struct Topics {
    places: Box<[Option<Box<Topic>>]>,
    /// Matches in all of them.
    kept: usize,
}

impl Topics {
    pub(crate) fn new() -> Self {
        Self { places: Box::new([]), kept: 0 }
    }

    /// A topic, with who gets what `publisher` publishes to it now; to be given back with
    /// [`keep`](Self::keep).
    pub(crate) fn take(
        &mut self,
        name: &str,
        publisher: &ClientId,
        shared: &NodeShared,
    ) -> Box<Topic> {
        let place = self.places.get_mut(place_of(name)).and_then(Option::take);
        if let Some(topic) = &place {
            self.kept -= topic.matches.locals.len();
        }
        let known = place.filter(|topic| topic.name.as_str() == name);
        let mut topic = known.unwrap_or_else(|| {
            let known = TopicName::parse_within(name, usize::MAX);
            Box::new(Topic {
                name: known.expect("the codec checked it"),
                rules: shared.rules.for_topic(name),
                matches: Matches::default(),
                generation: None,
            })
        });
        let generation = Some(shared.router.generation());
        if topic.matches.varies || topic.generation != generation {
            // A group of a topic that stays is served by members of this node.
            let stays = topic.rules.scope == Scope::Node;
            let origin = if stays { Origin::Node } else { Origin::Here };
            shared.router.matches(name, origin, publisher, &mut topic.matches);
            topic.generation = generation;
        } else {
            topic.matches.take_turns(shared.router.pressure());
        }
        topic
    }

    /// Keeps a topic for its next message.
    pub(crate) fn keep(&mut self, topic: Box<Topic>) {
        if topic.name.as_str().len() > TOPIC_BYTES_MAX {
            return;
        }
        if self.places.is_empty() || self.kept + topic.matches.locals.len() > MATCHES_KEPT_MAX {
            *self =
                Self { places: std::iter::repeat_with(|| None).take(PLACES).collect(), kept: 0 };
        }
        if topic.matches.locals.len() <= MATCHES_KEPT_MAX {
            self.kept += topic.matches.locals.len();
            let place = place_of(topic.name.as_str());
            self.places[place] = Some(topic);
        }
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("kept", &self.kept).finish_non_exhaustive()
    }
}

fn place_of(name: &str) -> usize {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = rustc_hash::FxBuildHasher.build_hasher();
    hasher.write(name.as_bytes());
    hasher.finish() as usize % PLACES
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use verge_model::NodeKey;
    use verge_mqtt_proto::session::{StreamTag, Subscription};
    use verge_mqtt_proto::{QoS, TopicFilter};

    use super::*;
    use crate::router::Subscriber;
    use crate::rule::TopicRules;
    use crate::shard::api::{SessionNo, ShardIndex};

    #[test]
    fn an_answer_holds_until_a_subscription_changes() {
        let shared = shared();
        let mut topics = Topics::new();
        assert!(sessions(&mut topics, &shared, "a/b").is_empty());
        subscribe(&shared, "a/+", 1);
        assert_eq!(sessions(&mut topics, &shared, "a/b"), [1]);
        subscribe(&shared, "a/b", 2);
        assert_eq!(sessions(&mut topics, &shared, "a/b"), [1, 2]);
        assert_eq!(sessions(&mut topics, &shared, "a/b"), [1, 2]);
        assert_eq!(sessions(&mut topics, &shared, "a/c"), [1]);
        shared.router.unsubscribe(&filter("a/b"), SessionNo(2), StreamTag::CONTROL);
        assert_eq!(sessions(&mut topics, &shared, "a/b"), [1]);
    }

    #[test]
    fn the_turns_of_a_group_are_taken() {
        let shared = shared();
        let mut topics = Topics::new();
        subscribe(&shared, "$share/g/a", 1);
        subscribe(&shared, "$share/g/a", 2);
        let turns: Vec<_> = (0..4).flat_map(|_| sessions(&mut topics, &shared, "a")).collect();
        assert_eq!(turns, [1, 2, 1, 2]);
        // The router is asked again only for what is not known of the group itself.
        let topic = topics.take("a", &"p".into(), &shared);
        assert!(!topic.matches.varies);
        topics.keep(topic);
        shared.router.set_online(SessionNo(1), [filter("$share/g/a")].iter(), false);
        let turns: Vec<_> = (0..2).flat_map(|_| sessions(&mut topics, &shared, "a")).collect();
        assert_eq!(turns, [2, 2], "who is away has none while another is there");
        subscribe(&shared, "#", 3);
        assert_eq!(sessions(&mut topics, &shared, "a"), [2, 3], "beside a subscription of its own");
        shared.router.unsubscribe(&filter("$share/g/a"), SessionNo(2), StreamTag::CONTROL);
        assert_eq!(sessions(&mut topics, &shared, "a"), [1, 3]);
    }

    #[test]
    fn a_publisher_that_wants_no_own_messages_gets_none_after_another_published() {
        let shared = shared();
        let mut topics = Topics::new();
        let no_local = Subscription { no_local: true, ..Subscription::with_qos(QoS::AtMostOnce) };
        let own = Subscriber { options: no_local, ..subscriber(1) };
        shared.router.subscribe(&filter("a"), own);
        assert_eq!(sessions(&mut topics, &shared, "a"), [1], "another's message");
        let topic = topics.take("a", &"c1".into(), &shared);
        assert!(topic.matches.is_empty(), "its own [MQTT-3.8.3-3]");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let shared = shared();
        let mut topics = Topics::new();
        for session in 0..200 {
            subscribe(&shared, "#", session);
        }
        for number in 0..2_000 {
            assert_eq!(sessions(&mut topics, &shared, &format!("t/{number}")).len(), 200);
            assert!(topics.kept <= MATCHES_KEPT_MAX);
            let counted = topics.places.iter().flatten().map(|topic| topic.matches.locals.len());
            assert_eq!(counted.sum::<usize>(), topics.kept);
        }
    }

    fn shared() -> NodeShared {
        NodeShared::new(NodeKey(1), 1, TopicRules::default())
    }

    fn sessions(topics: &mut Topics, shared: &NodeShared, name: &str) -> Vec<u64> {
        let topic = topics.take(name, &"p".into(), shared);
        let mut found: Vec<_> = topic.matches.locals.iter().map(|found| found.session.0).collect();
        found.sort_unstable();
        topics.keep(topic);
        found
    }

    fn subscribe(shared: &NodeShared, text: &str, session: u64) {
        shared.router.subscribe(&filter(text), subscriber(session));
    }

    fn subscriber(session: u64) -> Subscriber {
        Subscriber {
            shard: ShardIndex(0),
            session: SessionNo(session),
            client: Some(Box::new(format!("c{session}").into())),
            options: Subscription::with_qos(QoS::AtMostOnce),
            durable: false,
            online: true,
            tag: StreamTag::CONTROL,
        }
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::try_from(Arc::from(text)).unwrap()
    }
}

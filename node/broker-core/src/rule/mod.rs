//! What an operator says about topics: class, promise, scope and uplink.
//!
//! Rules are tried in the order they are written. Each field is decided by the first rule that
//! matches the topic and says something about that field, so a rule for one topic can stand before
//! a rule for all and change a single thing.

mod well_known;

use serde::{Deserialize, Serialize};
use verge_model::Class;
use verge_mqtt_proto::TopicFilter;
use verge_storage::promise::Promise;

use crate::router::parts::FilterParts;
use crate::router::trie::LevelTrie;

/// Most rules of a node. They are written by hand; the bound is far above what anyone reads.
pub const RULES_MAX: usize = 1024;

/// The stream that uplinked messages of every rule go to.
pub const UPLINK_STREAM: u16 = 0;

/// How far a publication goes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To subscribers of this node.
    Node,
    /// To subscribers of this region.
    Region,
    /// To subscribers of the whole mesh.
    #[default]
    Mesh,
}

/// One rule, as configured. `None` leaves a field to later rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRule {
    /// Which topics.
    pub filter: TopicFilter,
    /// Their class.
    pub class: Option<Class>,
    /// What an acknowledgement of theirs promises.
    pub promise: Option<Promise>,
    /// How far they go.
    pub scope: Option<Scope>,
    /// Whether they go to the cloud tier.
    pub uplink: Option<bool>,
}

impl TopicRule {
    /// A rule that says nothing yet.
    #[must_use]
    pub fn new(filter: TopicFilter) -> Self {
        Self { filter, class: None, promise: None, scope: None, uplink: None }
    }
}

/// Rules that cannot be used. The operator has to change them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// More than [`RULES_MAX`].
    #[error("{count} topic rules are given, at most {RULES_MAX} are used")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A rule is about topics, not about subscriptions.
    #[error("the topic rule for '{filter}' has a prefix that only subscriptions have")]
    Prefix {
        /// The rule's filter.
        filter: TopicFilter,
    },
}

/// What the rules say of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleOutcome {
    /// Its priority.
    pub class: Class,
    /// What its acknowledgement promises, if not what the listener says.
    pub promise: Option<Promise>,
    /// How far it goes.
    pub scope: Scope,
    /// The uplink streams that take it.
    pub uplinks: &'static [u16],
}

/// Rules, ready to be asked for every PUBLISH: the cost depends on the topic's levels, not on the
/// number of rules.
#[derive(Debug, Default)]
pub struct TopicRules {
    rules: Vec<TopicRule>,
    /// Places in `rules`, by filter, ascending.
    by_filter: LevelTrie<Vec<u16>>,
}

impl TopicRules {
    /// Makes rules ready.
    ///
    /// # Errors
    /// Too many, or one that is not about topics.
    pub fn compile(rules: Vec<TopicRule>) -> Result<Self, RuleError> {
        if rules.len() > RULES_MAX {
            return Err(RuleError::TooMany { count: rules.len() });
        }
        let mut by_filter = LevelTrie::default();
        for (place, rule) in (0_u16..).zip(&rules) {
            let parts = FilterParts::of(rule.filter.as_str());
            if parts.shared || parts.local {
                return Err(RuleError::Prefix { filter: rule.filter.clone() });
            }
            by_filter.get_or_insert_with(parts.filter, Vec::new).push(place);
        }
        Ok(Self { rules, by_filter })
    }

    /// What the rules say of `topic`. Without a rule's word, the class is that of well-known V2X
    /// topics or [`Class::default`], the scope is the mesh, and there is no uplink.
    #[must_use]
    pub fn for_topic(&self, topic: &str) -> RuleOutcome {
        // The first place that decides each field.
        let (mut class, mut promise, mut scope, mut uplink) = (NONE, NONE, NONE, NONE);
        self.by_filter.filters_matching(topic, |places| {
            for place in places {
                let rule = &self.rules[usize::from(*place)];
                class = class.min(if rule.class.is_some() { *place } else { NONE });
                promise = promise.min(if rule.promise.is_some() { *place } else { NONE });
                scope = scope.min(if rule.scope.is_some() { *place } else { NONE });
                uplink = uplink.min(if rule.uplink.is_some() { *place } else { NONE });
            }
        });
        let rule = |place: u16| self.rules.get(usize::from(place));
        let uplinked = rule(uplink).and_then(|rule| rule.uplink).unwrap_or(false);
        RuleOutcome {
            class: rule(class)
                .and_then(|rule| rule.class)
                .unwrap_or_else(|| well_known::class_of(topic)),
            promise: rule(promise).and_then(|rule| rule.promise),
            scope: rule(scope).and_then(|rule| rule.scope).unwrap_or_default(),
            uplinks: if uplinked { &[UPLINK_STREAM] } else { &[] },
        }
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[TopicRule] {
        &self.rules
    }
}

/// No rule: beyond every place.
const NONE: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_speaks_of_a_field_decides_it() {
        let rules = rules(vec![
            TopicRule { class: Some(Class::Control), ..rule("fleet/+/command") },
            TopicRule { uplink: Some(false), ..rule("fleet/secret/#") },
            TopicRule {
                class: Some(Class::Bulk),
                uplink: Some(true),
                scope: Some(Scope::Region),
                ..rule("fleet/#")
            },
            TopicRule { promise: Some(Promise::Memory), scope: Some(Scope::Node), ..rule("#") },
        ]);
        for (topic, class, promise, scope, uplinks) in [
            ("fleet/7/command", Class::Control, Promise::Memory, Scope::Region, true),
            ("fleet/7/map", Class::Bulk, Promise::Memory, Scope::Region, true),
            ("fleet/secret/command", Class::Control, Promise::Memory, Scope::Region, false),
            ("fleet/secret/map", Class::Bulk, Promise::Memory, Scope::Region, false),
            ("other", Class::Telemetry, Promise::Memory, Scope::Node, false),
        ] {
            let uplinks: &[u16] = if uplinks { &[UPLINK_STREAM] } else { &[] };
            let expected = RuleOutcome { class, promise: Some(promise), scope, uplinks };
            assert_eq!(rules.for_topic(topic), expected, "{topic}");
        }
    }

    #[test]
    fn two_rules_for_one_filter_stand_in_their_order() {
        let rules = rules(vec![
            TopicRule { class: Some(Class::Bulk), ..rule("a") },
            TopicRule { class: Some(Class::Safety), uplink: Some(true), ..rule("a") },
        ]);
        let outcome = rules.for_topic("a");
        assert_eq!((outcome.class, outcome.uplinks), (Class::Bulk, &[UPLINK_STREAM][..]));
    }

    #[test]
    fn without_rules_warnings_go_first_and_everything_goes_everywhere() {
        let rules = TopicRules::default();
        let outcome = rules.for_topic("5gcroco/outQueue/v2x/denm/car-1/0/3/1");
        let expected =
            RuleOutcome { class: Class::Safety, promise: None, scope: Scope::Mesh, uplinks: &[] };
        assert_eq!(outcome, expected);
        assert_eq!(rules.for_topic("a/v2x/cam/car-1/0/3/1").class, Class::Telemetry);
    }

    #[test]
    fn a_rule_can_overrule_the_class_of_a_well_known_topic() {
        let rules = rules(vec![TopicRule { class: Some(Class::Bulk), ..rule("test/#") }]);
        assert_eq!(rules.for_topic("test/v2x/denm/car-1").class, Class::Bulk);
        assert_eq!(rules.for_topic("live/v2x/denm/car-1").class, Class::Safety);
    }

    #[test]
    fn rules_that_cannot_be_used_are_refused() {
        let error = TopicRules::compile(vec![rule("$share/g/a")]).unwrap_err();
        assert_eq!(error, RuleError::Prefix { filter: filter("$share/g/a") });
        assert!(error.to_string().contains("'$share/g/a'"));
        assert!(TopicRules::compile(vec![rule("$local/a")]).is_err());
        let error = TopicRules::compile(vec![rule("a"); RULES_MAX + 1]).unwrap_err();
        assert_eq!(error, RuleError::TooMany { count: RULES_MAX + 1 });
        assert!(TopicRules::compile(vec![rule("a"); RULES_MAX]).is_ok());
    }

    fn rules(rules: Vec<TopicRule>) -> TopicRules {
        TopicRules::compile(rules).unwrap()
    }

    fn rule(text: &str) -> TopicRule {
        TopicRule::new(filter(text))
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).unwrap()
    }
}

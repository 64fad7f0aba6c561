//! How groups of shared subscriptions choose, as configured.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use verge_model::NodeKey;
use verge_mqtt_proto::topic::share::Share;

/// Most groups with a strategy of their own. They are written by hand.
pub const GROUP_STRATEGIES_MAX: usize = 1_024;

/// How a group chooses the member that gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareStrategy {
    /// A connected member of this node, in turn; another node only if there is none.
    #[default]
    LocalFirst,
    /// Each in turn; another node is one of them.
    RoundRobin,
    /// Any.
    Random,
    /// Whoever had the last one, for as long as it is there.
    Sticky,
    /// By the publisher's ClientId.
    HashClient,
    /// By the topic.
    HashTopic,
}

impl ShareStrategy {
    /// Every strategy with its name.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::LocalFirst, "local-first"),
        (Self::RoundRobin, "round-robin"),
        (Self::Random, "random"),
        (Self::Sticky, "sticky"),
        (Self::HashClient, "hash-client"),
        (Self::HashTopic, "hash-topic"),
    ];
}

impl fmt::Display for ShareStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.into_iter().find(|(strategy, _)| strategy == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for ShareStrategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|(_, name)| *name == text);
        named.map(|(strategy, _)| strategy).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            format!("'{text}' is no strategy; write one of {names}")
        })
    }
}

/// When what a member was given and has not acknowledged goes to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redeliver {
    /// When its session ends.
    #[default]
    SessionEnd,
    /// Already when its connection is lost and another member is connected. "It MAY attempt to send
    /// the message to another Client as soon as it loses its connection to the first Client."
    /// (4.8.2)
    ConnectionLost,
}

/// The strategy of one group, or of every group with its ShareName.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStrategy {
    /// The ShareName.
    pub name: Box<str>,
    /// The filter behind it; `None` is any.
    pub filter: Option<Box<str>>,
    /// How the group chooses.
    pub strategy: ShareStrategy,
}

/// What is configured of shared subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharedSettings {
    /// This node.
    pub node: NodeKey,
    /// Makes chance unpredictable, and a test's the same again.
    pub seed: u64,
    /// How groups choose that are not named below.
    pub strategy: ShareStrategy,
    /// Groups that choose otherwise; the first that names a group decides.
    pub groups: Vec<GroupStrategy>,
    /// When another member gets what one has not acknowledged.
    pub redeliver: Redeliver,
}

impl SharedSettings {
    /// The strategy of the group with this whole filter.
    #[must_use]
    pub fn strategy_of(&self, text: &str) -> ShareStrategy {
        let Ok(Some(share)) = Share::parse(text) else { return self.strategy };
        let names = |group: &&GroupStrategy| {
            *group.name == *share.name
                && group.filter.as_deref().is_none_or(|filter| filter == share.filter)
        };
        self.groups.iter().find(names).map_or(self.strategy, |group| group.strategy)
    }
}

/// SplitMix64's finaliser: neighbours become strangers.
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A hash that is the same on every node: FNV-1a, mixed.
pub(super) fn text_hash(text: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mixed(text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_is_written_as_it_is_read() {
        for (strategy, name) in ShareStrategy::ALL {
            assert_eq!(name.parse(), Ok(strategy));
            assert_eq!(strategy.to_string(), name);
        }
        let error = "fair".parse::<ShareStrategy>().unwrap_err();
        assert!(error.starts_with("'fair' is no strategy; write one of local-first, "), "{error}");
    }

    #[test]
    fn the_first_entry_that_names_a_group_decides() {
        let group = |name: &str, filter: Option<&str>, strategy| GroupStrategy {
            name: name.into(),
            filter: filter.map(Into::into),
            strategy,
        };
        let settings = SharedSettings {
            strategy: ShareStrategy::Random,
            groups: vec![
                group("g", Some("a/#"), ShareStrategy::Sticky),
                group("g", None, ShareStrategy::HashTopic),
            ],
            ..SharedSettings::default()
        };
        for (text, strategy) in [
            ("$share/g/a/#", ShareStrategy::Sticky),
            ("$share/g/a", ShareStrategy::HashTopic),
            ("$share/h/a/#", ShareStrategy::Random),
        ] {
            assert_eq!(settings.strategy_of(text), strategy, "{text}");
        }
    }
}

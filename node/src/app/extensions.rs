//! From the configuration to what the cores want to know of extensions.

use verge_broker_core::extension::{DelayedBounds, EventSettings, Extensions, TopicMetrics};
use verge_broker_core::router::{GroupStrategy, SharedSettings};

use crate::clock;
use crate::config::extensions::{
    auto_subscriptions, counted_topics, events, rewrites, session_rules,
};
use crate::config::{Config, ConfigError};

/// How shared subscriptions choose.
pub(super) fn shared(config: &Config, seed: u64) -> SharedSettings {
    let groups = config.share_groups.iter().map(|section| GroupStrategy {
        name: section.group.as_str().into(),
        filter: section.filter.as_deref().map(Into::into),
        strategy: section.strategy.0,
    });
    SharedSettings {
        seed,
        strategy: config.shared.strategy.0,
        groups: groups.collect(),
        redeliver: config.shared.redeliver,
        ..SharedSettings::default()
    }
}

/// What goes beyond the standard, on a node with so many shards.
pub(super) fn extensions(config: &Config, shards: u16) -> Result<Extensions, ConfigError> {
    let topic_metrics = TopicMetrics::default();
    for topic in counted_topics(config)? {
        // One that is written twice is counted once.
        let _ = topic_metrics.register(&topic, clock::wall());
    }
    Ok(Extensions {
        rewrites: rewrites(config)?,
        auto_subscribe: auto_subscriptions(config)?,
        sessions: session_rules(config)?,
        delayed: DelayedBounds::new(config.delayed.messages_max, config.delayed.bytes_max),
        events: EventSettings {
            node: config.node.id.as_str().into(),
            on: events(config)?,
            shard_rate_max: config.events.rate_max.div_ceil(u32::from(shards)),
        },
        topic_metrics,
        ..Extensions::default()
    })
}

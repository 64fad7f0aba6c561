//! From the configuration to what the cores want to know of extensions.

use verge_broker_core::router::{GroupStrategy, SharedSettings};

use crate::config::Config;

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

//! Sections of what goes beyond the standard, and of what it leaves to the server.

use serde::{Deserialize, Serialize};
use verge_broker_core::router::strategy::GROUP_STRATEGIES_MAX;
use verge_broker_core::router::{Redeliver, ShareStrategy};
use verge_mqtt_proto::TopicFilter;

use super::check::wrong;
use super::error::ConfigError;
use super::sections::Config;
use super::text::Text;

/// Checks what no single value shows.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let groups = &config.share_groups;
    if groups.len() > GROUP_STRATEGIES_MAX {
        return wrong(format!("share_groups: {}, at most {GROUP_STRATEGIES_MAX}", groups.len()));
    }
    for ShareGroupSection { group, filter, .. } in groups {
        let filter = filter.as_deref().unwrap_or("#");
        if group.contains('/') {
            return wrong(format!("share_groups: group \"{group}\": a ShareName has no '/'"));
        }
        if let Err(error) = TopicFilter::parse(&format!("$share/{group}/{filter}")) {
            return wrong(format!("share_groups: group \"{group}\", filter \"{filter}\": {error}"));
        }
    }
    Ok(())
}

/// `[shared]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedSection {
    /// How groups choose the member that gets a message.
    pub strategy: Text<ShareStrategy>,
    /// When another member gets what one has not acknowledged.
    pub redeliver: Redeliver,
}

/// `[[share_groups]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareGroupSection {
    /// The ShareName.
    pub group: String,
    /// The filter behind it; `None` is any.
    #[serde(default)]
    pub filter: Option<String>,
    /// How the group chooses.
    pub strategy: Text<ShareStrategy>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use verge_model::Role;

    use crate::config::{Loader, check, explain};

    /// What is said of a configuration with these settings, and these lists.
    fn complaint(settings: &[&str], lists: &[(&str, serde_json::Value)]) -> String {
        let mut loader = Loader::new();
        for setting in settings {
            loader.set(setting).unwrap();
        }
        for (key, list) in lists {
            loader.flag("test", key, list.clone());
        }
        let loaded = loader.finish(Role::Rsu);
        let checked = loaded.and_then(|loaded| check(&loaded.config));
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn shared_subscriptions_are_configured_and_errors_name_their_key() {
        let said = complaint(&["shared.strategy=fair"], &[]);
        assert!(
            said.contains("shared.strategy") && said.contains("'fair' is no strategy"),
            "{said}"
        );
        let said = complaint(&["shared.redeliver=never"], &[]);
        assert!(said.contains("shared.redeliver") && said.contains("session-end"), "{said}");
        let groups = json!([{"group": "g/h", "strategy": "sticky"}]);
        let said = complaint(&[], &[("share_groups", groups)]);
        assert!(said.starts_with("share_groups: group \"g/h\": a ShareName has no"), "{said}");
        let groups = json!([{"group": "g+", "strategy": "sticky"}]);
        let said = complaint(&[], &[("share_groups", groups)]);
        assert!(said.starts_with("share_groups: group \"g+\""), "{said}");
        let groups = json!([{"group": "g", "strateg": "sticky"}]);
        let said = complaint(&[], &[("share_groups", groups)]);
        assert!(said.contains("share_groups.strategy"), "{said}");
    }

    #[test]
    fn extensions_are_explained() {
        let mut loader = Loader::new();
        loader.set("shared.strategy=hash-topic").unwrap();
        let groups = json!([{"group": "g", "filter": "a/#", "strategy": "sticky"}]);
        loader.flag("test", "share_groups", groups);
        let text = explain(&loader.finish(Role::Rsu).unwrap());
        assert!(text.contains("strategy = \"hash-topic\""), "{text}");
        assert!(text.contains("[[share_groups]]"), "{text}");
    }
}

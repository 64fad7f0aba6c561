//! Sections of what goes beyond the standard, and of what it leaves to the server.

use serde::{Deserialize, Serialize};
use verge_broker_core::extension::auto_subscribe::AUTO_SUBSCRIPTIONS_MAX;
use verge_broker_core::extension::events::EventKind;
use verge_broker_core::extension::session_rule::SESSION_RULES_MAX;
use verge_broker_core::extension::template::Facts;
use verge_broker_core::extension::topic_metrics::TOPIC_METRICS_MAX;
use verge_broker_core::extension::{
    AutoSubscription, RewriteAction, RewriteRule, Rewrites, SessionRule, SessionRules,
};
use verge_broker_core::router::strategy::GROUP_STRATEGIES_MAX;
use verge_broker_core::router::{Redeliver, ShareStrategy};
use verge_mqtt_proto::session::Subscription;
use verge_mqtt_proto::{QoS, RetainHandling, TopicFilter, TopicName};
use verge_storage::Promise;

use super::check::wrong;
use super::error::ConfigError;
use super::sections::Config;
use super::text::{Span, Text};

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
    rewrites(config)?;
    session_rules(config)?;
    auto_subscriptions(config)?;
    events(config)?;
    counted_topics(config)?;
    Ok(())
}

/// The rules for topics and filters.
pub(crate) fn rewrites(config: &Config) -> Result<Rewrites, ConfigError> {
    let mut rules = Vec::with_capacity(config.rewrite.len());
    for section in &config.rewrite {
        let filter = TopicFilter::parse(&section.filter).map_err(|error| {
            let filter = &section.filter;
            ConfigError::Conflict(format!(
                "rewrite.filter = \"{filter}\": not a topic filter: {error}"
            ))
        })?;
        rules.push(RewriteRule {
            action: section.action,
            filter,
            regex: section.regex.clone(),
            destination: section.destination.clone(),
        });
    }
    Rewrites::compile(&rules).map_err(|error| ConfigError::Conflict(format!("rewrite: {error}")))
}

/// Which events of clients are published.
pub(crate) fn events(config: &Config) -> Result<Vec<EventKind>, ConfigError> {
    let kind = |text: &String| {
        let named = EventKind::ALL.into_iter().find(|(_, name)| name == text);
        named.map(|(kind, _)| kind).ok_or_else(|| {
            let names = EventKind::ALL.map(|(_, name)| name).join(", ");
            ConfigError::Conflict(format!("events.on = \"{text}\": one of {names}"))
        })
    };
    config.events.on.iter().map(kind).collect()
}

/// Topics that are counted from the start.
pub(crate) fn counted_topics(config: &Config) -> Result<Vec<TopicName>, ConfigError> {
    let topics = &config.topic_metrics.topics;
    if topics.len() > TOPIC_METRICS_MAX {
        let count = topics.len();
        let text = format!("topic_metrics.topics: {count}, at most {TOPIC_METRICS_MAX}");
        return Err(ConfigError::Conflict(text));
    }
    let topic = |text: &String| {
        TopicName::parse(text).map_err(|error| {
            ConfigError::Conflict(format!("topic_metrics.topics = \"{text}\": {error}"))
        })
    };
    topics.iter().map(topic).collect()
}

/// What is promised, by whose session it is.
pub(crate) fn session_rules(config: &Config) -> Result<SessionRules, ConfigError> {
    let list = &config.sessions;
    if list.len() > SESSION_RULES_MAX {
        let count = list.len();
        let text = format!("sessions: {count}, at most {SESSION_RULES_MAX}");
        return Err(ConfigError::Conflict(text));
    }
    let rule = |section: &SessionRuleSection| {
        let promise = section.promise.0;
        if section.clients.is_none() && section.users.is_none() {
            let text = format!("sessions: promise \"{promise}\": clients or users are missing");
            return Err(ConfigError::Conflict(text));
        }
        let pattern = |text: &Option<String>| text.as_deref().map(Into::into);
        Ok(SessionRule {
            clients: pattern(&section.clients),
            users: pattern(&section.users),
            promise,
        })
    };
    list.iter().map(rule).collect::<Result<_, _>>().map(SessionRules)
}

/// What every client is subscribed to.
pub(crate) fn auto_subscriptions(config: &Config) -> Result<Vec<AutoSubscription>, ConfigError> {
    let list = &config.auto_subscribe;
    let wrong = |text: String| ConfigError::Conflict(text);
    if list.len() > AUTO_SUBSCRIPTIONS_MAX {
        let count = list.len();
        return Err(wrong(format!("auto_subscribe: {count}, at most {AUTO_SUBSCRIPTIONS_MAX}")));
    }
    let mut out = Vec::with_capacity(list.len());
    for section in list {
        let filter = &section.filter;
        let at = |what: String| wrong(format!("auto_subscribe: filter \"{filter}\": {what}"));
        // What clients bring has no wildcard; with plain text in the places it must be a filter.
        let (Some(qos), Some(retain_handling)) =
            (QoS::from_bits(section.qos), RetainHandling::from_bits(section.retain_handling))
        else {
            return Err(at("qos and retain_handling are 0, 1 or 2".to_owned()));
        };
        let subscription = Subscription {
            qos,
            no_local: section.no_local,
            retain_as_published: section.retain_as_published,
            retain_handling,
            id: None,
        };
        let auto = AutoSubscription::new(filter, subscription).map_err(|e| at(e.to_string()))?;
        let facts =
            Facts { client_id: "c", username: Some("u"), peer: Some(([127, 0, 0, 1], 1).into()) };
        let Some(parsed) = auto.filter_for(&facts) else {
            return Err(at("not a topic filter".to_owned()));
        };
        if section.no_local && parsed.share().is_some() {
            return Err(at("no_local is not for shared subscriptions [MQTT-3.8.3-4]".to_owned()));
        }
        out.push(auto);
    }
    Ok(out)
}

/// `[retained]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetainedSection {
    /// Most topics with a retained message.
    pub messages_max: usize,
    /// Most bytes of retained messages.
    pub bytes_max: usize,
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

/// `[delayed]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayedSection {
    /// Most messages that wait to be published; 0 takes none.
    pub messages_max: u64,
    /// Most bytes of them.
    pub bytes_max: u64,
}

/// `[sys]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SysSection {
    /// How often `$SYS` topics are published; 0 is never.
    pub interval: Text<Span>,
}

/// `[events]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsSection {
    /// Events of clients that are published.
    pub on: Vec<String>,
    /// Most of them in a second.
    pub rate_max: u32,
}

/// `[topic_metrics]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicMetricsSection {
    /// Topics that are counted from the start.
    pub topics: Vec<String>,
}

/// `[[rewrite]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewriteSection {
    /// What it is for.
    pub action: RewriteAction,
    /// Which topics.
    pub filter: String,
    /// What of them is kept, in groups.
    pub regex: String,
    /// What they become.
    pub destination: String,
}

/// `[[auto_subscribe]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoSubscribeSection {
    /// The filter, with places for what is known of the client.
    pub filter: String,
    /// Maximum QoS.
    #[serde(default)]
    pub qos: u8,
    /// No Local.
    #[serde(default)]
    pub no_local: bool,
    /// Retain As Published.
    #[serde(default)]
    pub retain_as_published: bool,
    /// Retain Handling: 0, 1 or 2.
    #[serde(default)]
    pub retain_handling: u8,
}

/// `[[sessions]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRuleSection {
    /// Pattern of ClientIds; `None` is any.
    #[serde(default)]
    pub clients: Option<String>,
    /// Pattern of User Names; `None` is any.
    #[serde(default)]
    pub users: Option<String>,
    /// What an acknowledgement of these clients' messages promises.
    pub promise: Text<Promise>,
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
    fn rewrites_and_configured_subscriptions_are_checked() {
        let rewrite = |filter: &str, regex: &str, to: &str| {
            let rule =
                json!({"action": "all", "filter": filter, "regex": regex, "destination": to});
            complaint(&[], &[("rewrite", json!([rule]))])
        };
        assert_eq!(rewrite("a/#", "^a/(.+)$", "b/$1/%c"), "");
        let said = rewrite("a/#/b", "x", "y");
        assert!(said.starts_with("rewrite.filter = \"a/#/b\": not a topic filter"), "{said}");
        assert!(rewrite("a/#", "(", "y").starts_with("rewrite: regex '(': "));
        assert!(rewrite("a/#", "a", "$1").starts_with("rewrite: destination '$1': "));
        let auto = |filter: &str, qos: u8| {
            complaint(&[], &[("auto_subscribe", json!([{"filter": filter, "qos": qos}]))])
        };
        assert_eq!(auto("in/${clientid}/#", 1), "");
        assert!(auto("in/${clientid", 3).contains("qos and retain_handling are 0, 1 or 2"));
        assert!(auto("in/${client}", 1).contains("'${client}' is no placeholder"));
        assert!(auto("in/#/x", 1).contains("filter \"in/#/x\": not a topic filter"));
        let many = vec![json!({"filter": "a"}); 21];
        let said = complaint(&[], &[("auto_subscribe", many.into())]);
        assert!(said.starts_with("auto_subscribe: 21, at most 20"), "{said}");
        let said = complaint(&["delayed.messages_max=x"], &[]);
        assert!(said.contains("delayed.messages_max"), "{said}");
    }

    #[test]
    fn events_and_counted_topics_are_checked() {
        let said = complaint(&["events.on=connected,gone"], &[]);
        assert!(said.starts_with("events.on = \"gone\": one of connected, "), "{said}");
        let said = complaint(&["topic_metrics.topics=a/#"], &[]);
        assert!(said.starts_with("topic_metrics.topics = \"a/#\": "), "{said}");
        let said = complaint(&["sys.interval=often"], &[]);
        assert!(said.contains("sys.interval") && said.contains("not a duration"), "{said}");
        let good = ["events.on=connected", "topic_metrics.topics=a/b", "sys.interval=0s"];
        assert_eq!(complaint(&good, &[]), "");
    }

    #[test]
    fn promises_of_sessions_are_checked_and_explained() {
        let with = |rules: serde_json::Value| complaint(&[], &[("sessions", rules)]);
        assert_eq!(with(json!([{"clients": "car-*", "promise": "synced"}])), "");
        let said = with(json!([{"promise": "synced"}]));
        assert_eq!(said, "sessions: promise \"synced\": clients or users are missing");
        let said = with(json!([{"users": "u", "promise": "soon"}]));
        assert!(said.contains("sessions") && said.contains("soon"), "{said}");
        let said = with(vec![json!({"users": "u", "promise": "memory"}); 65].into());
        assert_eq!(said, "sessions: 65, at most 64");
        let mut loader = Loader::new();
        loader.flag("test", "sessions", json!([{"users": "city", "promise": "buffered"}]));
        let text = explain(&loader.finish(Role::Rsu).unwrap());
        assert!(text.contains("[[sessions]]") && text.contains("users = \"city\""), "{text}");
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

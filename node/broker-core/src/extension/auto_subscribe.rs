//! Subscriptions that every client gets at CONNECT.

use verge_mqtt_proto::TopicFilter;
use verge_mqtt_proto::session::Subscription;

use super::template::{Facts, Template, TemplateError};

/// Most such subscriptions: every client has each of them.
pub const AUTO_SUBSCRIPTIONS_MAX: usize = 20;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoSubscription {
    filter: Template,
    /// Its options.
    pub subscription: Subscription,
}

impl AutoSubscription {
    /// A subscription to a filter with places for what is known of the client.
    ///
    /// # Errors
    /// A place that nothing can be put into.
    pub fn new(filter: &str, subscription: Subscription) -> Result<Self, TemplateError> {
        Ok(Self { filter: Template::parse(filter, None)?, subscription })
    }

    /// The filter for a client; `None` if something is not known of it, or what comes out is no
    /// filter.
    #[must_use]
    pub fn filter_for(&self, facts: &Facts<'_>) -> Option<TopicFilter> {
        TopicFilter::parse(&self.filter.fill(facts, |_| None)?).ok()
    }
}

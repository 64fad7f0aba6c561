//! What a node grants its clients beyond what every MQTT server must (MQTT 5.0, 3.2.2.3).

use std::sync::Arc;
use std::time::Duration;

use verge_mqtt_proto::{ConnackProperties, Connect, ReasonCode, TopicFilter};

use crate::authn::Authn;

/// The terms. [`Terms::default`] grants all that the standard has.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Most topic aliases this node sets towards a client that accepts them; 0 for none. It bounds
    /// the table a connection has for them.
    pub topic_alias_maximum_out: u16,
    /// Who may connect with a password; none if there are no users.
    pub authn: Option<Arc<Authn>>,
    /// Most subscriptions of a session, those of all its streams together.
    pub subscriptions_max: usize,
    /// Whether messages may be retained.
    pub retain_available: bool,
    /// Whether filters may have wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_identifier_available: bool,
    /// Whether subscriptions may be shared.
    pub shared_subscription_available: bool,
    /// The basis of response topics, for clients that ask.
    pub response_information: Option<Arc<str>>,
    /// Where clients are sent when the node goes down.
    pub server_reference: Option<Arc<str>>,
    /// Whether a payload that says it is UTF-8 must be.
    pub payload_format_checked: bool,
    /// Most messages a client may publish in a second; 0 for any number.
    pub publish_rate_max: u32,
    /// Most bytes of topics and payloads a client may publish in a second; 0 for any number.
    pub publish_bytes_rate_max: u64,
    /// How long publishers wait for one subscriber whose queue is half full; zero: they do not, and
    /// what finds the queue full is dropped.
    pub publisher_hold_max: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            topic_alias_maximum_out: 32,
            authn: None,
            subscriptions_max: 100_000,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifier_available: true,
            shared_subscription_available: true,
            response_information: None,
            server_reference: None,
            payload_format_checked: false,
            publish_rate_max: 0,
            publish_bytes_rate_max: 0,
            publisher_hold_max: Duration::ZERO,
        }
    }
}

impl Terms {
    /// Why a CONNECT asks for more than is granted. [MQTT-3.2.2-13] Before 5.0 a client cannot be
    /// told, and its Will is published with what is granted.
    pub(super) fn refuses_will(&self, connect: &Connect<'_>) -> Option<ReasonCode> {
        let will = connect.will.as_ref().filter(|_| connect.version.is_v5())?;
        (will.retain && !self.retain_available).then_some(ReasonCode::RetainNotSupported)
    }

    /// Why a subscription is more than is granted.
    pub(super) fn refuses_subscription(
        &self,
        filter: &TopicFilter,
        has_identifier: bool,
    ) -> Option<ReasonCode> {
        if has_identifier && !self.subscription_identifier_available {
            return Some(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        if !self.shared_subscription_available && filter.share().is_some() {
            return Some(ReasonCode::SharedSubscriptionsNotSupported);
        }
        let is_wild = || filter.as_str().contains(['+', '#']);
        (!self.wildcard_subscription_available && is_wild())
            .then_some(ReasonCode::WildcardSubscriptionsNotSupported)
    }

    /// What CONNACK says of them: that something is there goes without saying.
    pub(super) fn in_connack(&self) -> ConnackProperties<'_> {
        let missing = |available: bool| (!available).then_some(false);
        ConnackProperties {
            retain_available: missing(self.retain_available),
            wildcard_subscription_available: missing(self.wildcard_subscription_available),
            subscription_identifier_available: missing(self.subscription_identifier_available),
            shared_subscription_available: missing(self.shared_subscription_available),
            ..ConnackProperties::default()
        }
    }
}

//! What the standard does not have and users of other brokers expect.
//!
//! | file | what |
//! |---|---|
//! | [`rewrite`] | topics and filters that become others |
//! | [`auto_subscribe`] | subscriptions every client gets |
//! | [`exclusive`] | `$exclusive/<filter>`: one subscriber at a time |
//! | [`delayed`] | `$delayed/<seconds>/<topic>`: published later |
//! | [`events`] | what clients do, as messages |
//! | [`topic_metrics`] | counts of single topics |
//! | [`session_rule`] | what is promised, by whose session it is |
//!
//! Each costs one branch where it is not used.

pub mod auto_subscribe;
pub mod counts;
pub mod delayed;
pub mod events;
pub mod exclusive;
pub mod rewrite;
pub mod session_rule;
pub mod template;
pub mod topic_metrics;

pub use self::auto_subscribe::AutoSubscription;
pub use self::counts::ExtensionCounts;
pub use self::delayed::DelayedBounds;
pub use self::events::{EventKind, EventSettings};
pub use self::exclusive::ExclusiveFilters;
pub use self::rewrite::{RewriteAction, RewriteRule, Rewrites};
pub use self::session_rule::{SessionRule, SessionRules};
pub use self::topic_metrics::TopicMetrics;

/// The extensions of a node, shared by its threads.
#[derive(Debug, Default)]
pub struct Extensions {
    /// Rules for topics and filters.
    pub rewrites: Rewrites,
    /// What every client is subscribed to at CONNECT.
    pub auto_subscribe: Vec<AutoSubscription>,
    /// Filters with one subscriber at a time.
    pub exclusive: ExclusiveFilters,
    /// How much may wait to be published.
    pub delayed: DelayedBounds,
    /// Which events of clients are published.
    pub events: EventSettings,
    /// Counts of single topics.
    pub topic_metrics: TopicMetrics,
    /// What is promised, by whose session it is.
    pub sessions: SessionRules,
    /// What happened.
    pub counts: ExtensionCounts,
}

impl Extensions {
    /// Whether a client's User Name is needed after CONNECT.
    #[must_use]
    pub fn keep_user(&self) -> bool {
        let rewrites = self.rewrites.of_publish() || self.rewrites.of_subscribe();
        let rules = rewrites || self.sessions.of_users();
        rules || !self.auto_subscribe.is_empty() || !self.events.on.is_empty()
    }
}

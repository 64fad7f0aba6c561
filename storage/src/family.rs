//! Families of rows, by lifetime.

use std::fmt;

/// A family of rows: one column family of a store. Numbers and names are written to disk; never
/// re-use one.
///
/// | family | key | lives as long as |
/// |---|---|---|
/// | `meta` | name | the data directory |
/// | `session` | session number | the session, and its seal's linger |
/// | `subscription` | session number, filter | the subscription |
/// | `queue` | session number, lane, seq | the message is owed to the session |
/// | `received` | session number, packet id | PUBREC to PUBREL of a QoS 2 publication |
/// | `seen` | session number, message id | a fragment of the session is open, and a linger |
/// | `message` | message id | a queue row names it |
/// | `retained` | topic | the retained message or its tombstone |
/// | `forward` | peer, class, seq | until the peer has custody |
/// | `link_in` | origin, log id, class | the origin is a member |
/// | `route` | origin, filter | the origin wants the filter |
/// | `route_head` | origin | the origin is a member |
/// | `registry` | principal, client id | the session, anywhere; at its homes |
/// | `member` | node | the node is a member, up or down |
/// | `outbox` | stream, seq | until the cloud tier has custody |
/// | `delayed` | when it is due, message id | the message is published |
/// | `inflight` | session number, lane, seq | the message has a packet id |
/// | `client` | principal, client id | the session this node owns for the client |
/// | `timer` | when it is due, session number | something about the session is due |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// What the directory is: format, node, log id, boot counter, trim marks.
    Meta = 0,
    /// Headers of sessions.
    Session = 1,
    /// Subscriptions of sessions.
    Subscription = 2,
    /// What each session is owed, by reference to `Message`.
    Queue = 3,
    /// QoS 2 packet ids received and not yet released.
    Received = 4,
    /// Messages a session had, against doubles from late fragments.
    Seen = 5,
    /// Messages, once each.
    Message = 6,
    /// Retained messages and their tombstones.
    Retained = 7,
    /// Log: what peers must still take.
    Forward = 8,
    /// The last sequence taken from each peer's log.
    LinkIn = 9,
    /// Replica of other origins' routes.
    Route = 10,
    /// How far each origin's routes are known.
    RouteHead = 11,
    /// Registry entries this node is a home of.
    Registry = 12,
    /// Members of the mesh.
    Member = 13,
    /// Log: what the cloud tier must still take.
    Outbox = 14,
    /// Messages that are published later.
    Delayed = 15,
    /// Packet ids of what is in flight.
    Inflight = 16,
    /// The session this node owns for each client.
    Client = 17,
    /// When a session without a connection is to be looked at.
    Timer = 18,
}

impl Family {
    /// Every family, by number.
    pub const ALL: [Self; 19] = [
        Self::Meta,
        Self::Session,
        Self::Subscription,
        Self::Queue,
        Self::Received,
        Self::Seen,
        Self::Message,
        Self::Retained,
        Self::Forward,
        Self::LinkIn,
        Self::Route,
        Self::RouteHead,
        Self::Registry,
        Self::Member,
        Self::Outbox,
        Self::Delayed,
        Self::Inflight,
        Self::Client,
        Self::Timer,
    ];

    /// The stored number.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The family with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name of the column family, also in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Session => "session",
            Self::Subscription => "subscription",
            Self::Queue => "queue",
            Self::Received => "received",
            Self::Seen => "seen",
            Self::Message => "message",
            Self::Retained => "retained",
            Self::Forward => "forward",
            Self::LinkIn => "link_in",
            Self::Route => "route",
            Self::RouteHead => "route_head",
            Self::Registry => "registry",
            Self::Member => "member",
            Self::Outbox => "outbox",
            Self::Delayed => "delayed",
            Self::Inflight => "inflight",
            Self::Client => "client",
            Self::Timer => "timer",
        }
    }

    /// The family with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_their_family() {
        for (at, family) in Family::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(family.number()), at);
            assert_eq!(Family::from_number(family.number()), Some(family));
            assert_eq!(Family::from_name(family.name()), Some(family));
        }
        assert_eq!(Family::from_number(19), None);
        assert_eq!(Family::from_name("default"), None);
    }
}

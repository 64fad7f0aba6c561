//! Answers to the administrator.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use verge_mqtt_proto::session::Held;

use super::Shard;
use super::api::{
    Answer, ClientView, HolderView, Query, SessionView, ShardCounts, SubscriptionView,
};
use super::session::Ownership;

impl Shard {
    /// Answers a question, in the order of clients.
    pub(super) fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Clients => Answer::Clients(self.clients()),
            Query::Sessions => Answer::Sessions(self.session_views()),
            Query::Subscriptions => Answer::Subscriptions(self.subscription_views()),
            Query::Delayed => Answer::Delayed(self.delayed_views()),
            Query::Counts => Answer::Counts(ShardCounts {
                connected: self.conns.values().filter(|conn| conn.session().is_some()).count()
                    as u64,
                sessions: self.open.len() as u64 + self.parking.parked(),
                parked: self.parking.parked(),
                held: self.held().total(),
            }),
            Query::Held => Answer::Held(self.held()),
            Query::Holders(top) => Answer::Holders(self.holders(*top)),
        }
    }

    /// Counted from the sessions, independent of the books.
    fn held(&self) -> Held {
        let mut held = self.parking.slots.held();
        self.sessions.values().for_each(|session| held += session.outbound.held());
        held
    }

    /// The sessions with the most messages, and those with the most bytes.
    fn holders(&self, top: usize) -> Vec<HolderView> {
        let mut owed: Vec<_> =
            self.sessions.values().filter(|session| !session.outbound.is_empty()).collect();
        let mut places = BTreeSet::new();
        let orders: [fn(&super::Session) -> usize; 2] =
            [|session| session.outbound.len(), |session| session.outbound.bytes()];
        for order in orders {
            if owed.len() > top {
                owed.select_nth_unstable_by_key(top, |session| Reverse(order(session)));
            }
            places.extend(owed.iter().take(top).map(|session| session.no));
        }
        let view = |session: &super::Session| HolderView {
            client: session.client.clone(),
            connected: session.conn.is_some(),
            moves_to: match &session.ownership {
                Ownership::Open => None,
                Ownership::Sealed(sealed) => Some(sealed.to.node),
            },
            held: session.outbound.held(),
        };
        let here = places.iter().filter_map(|no| self.sessions.get(no)).map(view);
        here.chain(self.holders_away(top)).collect()
    }

    fn clients(&self) -> Vec<ClientView> {
        let served = self.conns.values().filter(|conn| !conn.is_waiting());
        let view = |conn: &super::Conn| {
            Some(ClientView {
                client: conn.client.clone()?,
                peer: conn.peer,
                listener: conn.listener.name.clone(),
                protocol_version: conn.version().level(),
                keep_alive_secs: conn.keep_alive_secs,
                clean_start: conn.clean_start,
                connected_at: conn.connected_at,
            })
        };
        let mut views: Vec<_> = served.filter_map(view).collect();
        views.sort_by(|a, b| a.client.cmp(&b.client));
        views
    }

    fn session_views(&self) -> Vec<SessionView> {
        let view = |session: &super::Session| SessionView {
            client: session.client.clone(),
            claim: session.claim,
            connected: session.conn.is_some(),
            sealed: session.is_sealed(),
            session_expiry_secs: session.expiry_secs,
            subscriptions: session.subscription_count() as u64,
            queued: session.outbound.len() as u64,
            inflight: session.outbound.inflight_len() as u64,
            open_fragments: session.moving.fragments.len() as u64,
        };
        let mut views: Vec<_> = self.sessions.values().map(view).collect();
        views.sort_by(|a, b| (&a.client, a.claim).cmp(&(&b.client, b.claim)));
        views
    }

    fn subscription_views(&self) -> Vec<SubscriptionView> {
        let open = self.sessions.values().filter(|session| !session.is_sealed());
        let views = open.flat_map(|session| {
            let live = session.streams.iter().flat_map(|streams| streams.live.values().flatten());
            let all = session.subscriptions.iter().chain(live);
            all.map(|(filter, subscription)| SubscriptionView {
                client: session.client.clone(),
                filter: filter.clone(),
                qos: subscription.qos.bits(),
            })
        });
        let mut views: Vec<_> = views.collect();
        views.sort_by(|a, b| (&a.client, &a.filter).cmp(&(&b.client, &b.filter)));
        views
    }
}

//! To format 2: sessions are found by their clients and as they are due, and subscriptions say
//! whose they are, so that a node starts without a look at its sessions.

use std::sync::Arc;

use crate::error::StoreError;
use crate::family::Family;
use crate::key::{Key as _, KeyRange, SessionKey, SubscriptionKey};
use crate::migrate::{Part, Rewrite};
use crate::record::{
    Record as _, SessionRecord, SessionState, SubscriberRecord, SubscriptionRecord,
};
use crate::rows::StoreRows as _;

/// Each header is followed by the rows that lead to it.
pub(super) const LED_TO: Part =
    Part { what: "sessions are found by client, and as they are due", run: lead_to };

/// Each subscription names the shard of its session.
pub(super) const WHOSE: Part = Part { what: "subscriptions say whose they are", run: say_whose };

/// What a shared subscription begins with; the standard's (MQTT 5.0, 4.8.2).
const SHARE_PREFIX: &str = "$share/";

fn lead_to(rewrite: &mut Rewrite<'_>) -> Result<(), StoreError> {
    rewrite.each_row(Family::Session, &KeyRange::all(), |key, value, batch| {
        let SessionKey(no) = SessionKey::decode(key)
            .map_err(|error| StoreError::corrupt_key(Family::Session, key, &error))?;
        let header = SessionRecord::decode(value)
            .map_err(|error| StoreError::corrupt_record(Family::Session, key, &error))?;
        if header.state == SessionState::Open {
            batch.put_open(&header.client, no);
        }
        if let Some(due) = header.attention() {
            batch.put_timer(no, due, header.client.stable_hash());
        }
        Ok(())
    })
}

fn say_whose(rewrite: &mut Rewrite<'_>) -> Result<(), StoreError> {
    let store = rewrite.store();
    // Rows of one session follow each other.
    let mut header: Option<(u64, Arc<SessionRecord>)> = None;
    rewrite.each_row(Family::Subscription, &KeyRange::all(), |key, value, batch| {
        let decoded = SubscriptionKey::decode(key)
            .map_err(|error| StoreError::corrupt_key(Family::Subscription, key, &error))?;
        let record = SubscriptionRecord::decode(value)
            .map_err(|error| StoreError::corrupt_record(Family::Subscription, key, &error))?;
        if record.subscriber.is_some() {
            return Ok(());
        }
        let no = decoded.session_no;
        if header.as_ref().is_none_or(|(of, _)| *of != no) {
            header = store.session(no)?.map(|header| (no, Arc::new(header)));
        }
        let Some((_, header)) = &header else { return Ok(()) };
        let client = &header.client;
        let author = match record.no_local {
            true => Some(client.author()),
            false if decoded.filter.starts_with(SHARE_PREFIX) => {
                Some(Arc::clone(&client.client_id))
            }
            false => None,
        };
        let subscriber = SubscriberRecord { client_hash: client.stable_hash(), author };
        let record = SubscriptionRecord { subscriber: Some(subscriber), ..record };
        batch.put_subscription(no, &decoded.filter, &record);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use verge_model::{Claim, ClientKey, NodeKey, UnixMillis};

    use super::*;
    use crate::batch::Batch;
    use crate::key::TimerKey;
    use crate::memory::MemoryStore;
    use crate::migrate::{STEPS, run};
    use crate::store::Store as _;

    #[test]
    fn sessions_are_found_and_subscriptions_say_whose_they_are() {
        let store = MemoryStore::new(&"rsu-1".parse().unwrap(), 7);
        let mut header = SessionRecord {
            client: ClientKey { principal: "fleet".into(), client_id: "v".into() },
            claim: Claim { epoch: 1, node: NodeKey(5) },
            session_expiry_secs: Some(60),
            protocol_version: 5,
            will: None,
            disconnected_at: Some(UnixMillis(5_000)),
            state: SessionState::Open,
            open_fragments: Vec::new(),
            subscription_clock: Bytes::new(),
            confirmed_in: 0,
            written_in: (0, 0),
        };
        let client = header.client.clone();
        let mut batch = Batch::new();
        batch.put_session(7, &header);
        let mut plain = SubscriptionRecord {
            qos: 1,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            subscription_id: None,
            subscriber: None,
        };
        batch.put_subscription(7, "a", &plain);
        batch.put_subscription(7, "$share/g/a", &plain);
        plain.no_local = true;
        batch.put_subscription(7, "b", &plain);
        batch.put_subscription(9, "of nobody", &plain);
        header.claim.epoch = 2;
        let to = Claim { epoch: 3, node: NodeKey(6) };
        header.state = SessionState::Sealed { to, sealed_at: UnixMillis(6_000) };
        batch.put_session(8, &header);
        store.commit(&[batch], true).unwrap();

        // Twice: a step that was cut is begun again.
        for _ in 0..2 {
            run(&store, 1, STEPS, &mut |_| {}).unwrap();
            assert_eq!(store.open_session(&client), Ok(Some(7)));
            let first = TimerKey { due: TimerKey::MOVING, session_no: 0 };
            let timers = store.timers(first, UnixMillis(u64::MAX)).map(Result::unwrap);
            let timers: Vec<_> = timers.map(|(key, _)| (key.due.0, key.session_no)).collect();
            assert_eq!(timers, [(0, 8), (65_000, 7)]);
            let author = |filter: &str| {
                let record = store.subscription(7, filter).unwrap().unwrap();
                let subscriber = record.subscriber.unwrap();
                assert_eq!(subscriber.client_hash, client.stable_hash());
                subscriber.author.map(|author| author.to_string())
            };
            assert_eq!(author("a"), None);
            assert_eq!(author("b"), Some("v\0fleet".into()));
            assert_eq!(author("$share/g/a"), Some("v".into()));
            assert_eq!(store.subscription(9, "of nobody").unwrap().unwrap().subscriber, None);
        }
    }
}

//! Checks about what leads to a session.

use verge_model::{ClientKey, UnixMillis};

use super::{Place, commit, node, open};
use crate::error::StoreError;
use crate::key::TimerKey;
use crate::rows::StoreRows;
use crate::store::Store;

/// Sessions found by a client, and those that are due, in order; over a restart.
pub(super) fn found(place: &mut dyn Place) {
    let anonymous = ClientKey::anonymous("v");
    let known = ClientKey { principal: "fleet".into(), ..anonymous.clone() };
    let store = open(place);
    commit(&*store, |batch| {
        batch.put_open(&anonymous, 7);
        batch.put_open(&known, 8);
        batch.put_timer(7, TimerKey::CONNECTED, 70);
        batch.put_timer(8, TimerKey::MOVING, 80);
    });
    commit(&*store, |batch| {
        // The session ends, and another begins.
        batch.delete_open(&anonymous);
        batch.delete_timer(7, TimerKey::CONNECTED);
        batch.put_open(&anonymous, 9);
        batch.put_timer(9, UnixMillis(5_000), 90);
        batch.put_timer(10, UnixMillis(5_000), 100);
        batch.put_timer(11, UnixMillis(6_000), 110);
    });
    store.commit(&[], true).expect("an empty group syncs");
    drop(store);
    let store = place.open(&node(), 7).expect("the place opens again");
    assert_eq!(store.open_session(&anonymous), Ok(Some(9)));
    assert_eq!(store.open_session(&known), Ok(Some(8)));
    assert_eq!(store.open_session(&ClientKey::anonymous("w")), Ok(None));
    let first = |due| TimerKey { due, session_no: 0 };
    assert_eq!(due(&*store, first(TimerKey::MOVING), TimerKey::CONNECTED), [(8, 80)]);
    assert_eq!(due(&*store, first(TimerKey::CONNECTED), TimerKey::FIRST), []);
    assert_eq!(due(&*store, first(TimerKey::FIRST), UnixMillis(5_000)), []);
    assert_eq!(due(&*store, first(TimerKey::FIRST), UnixMillis(5_001)), [(9, 90), (10, 100)]);
    let later = TimerKey { due: UnixMillis(5_000), session_no: 10 };
    assert_eq!(due(&*store, later, UnixMillis(u64::MAX)), [(10, 100), (11, 110)]);
}

fn due(store: &dyn Store, from: TimerKey, to: UnixMillis) -> Vec<(u64, u64)> {
    let rows: Result<Vec<_>, StoreError> = store.timers(from, to).collect();
    let rows = rows.expect("the rows can be read");
    rows.into_iter().map(|(key, record)| (key.session_no, record.client_hash)).collect()
}

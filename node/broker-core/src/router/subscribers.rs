//! The subscribers of one filter, or the members of one group.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Subscriber;
use crate::shard::api::SessionNo;

/// Lists longer than this have an index by session. Most filters have one subscriber; comparing
/// this many session numbers is cheaper than one hash look-up.
const INDEX_FROM: usize = 16;

/// Subscribers of one filter, each session once, in no order that matters.
#[derive(Debug, Default)]
pub struct Subscribers {
    list: SmallVec<[Subscriber; 1]>,
    /// Where each session stands in `list`; there iff the list is, or once was, long.
    places: Option<Box<FxHashMap<SessionNo, u32>>>,
}

impl Subscribers {
    /// Adds a subscriber; true if its session was in the list and has been replaced.
    pub fn insert(&mut self, subscriber: Subscriber) -> bool {
        if let Some(place) = self.place(subscriber.session) {
            self.list[place] = subscriber;
            return true;
        }
        if let Some(places) = &mut self.places {
            places.insert(subscriber.session, number(self.list.len()));
        }
        self.list.push(subscriber);
        if self.list.len() > INDEX_FROM && self.places.is_none() {
            let sessions = self.list.iter().enumerate();
            let places = sessions.map(|(place, found)| (found.session, number(place)));
            self.places = Some(Box::new(places.collect()));
        }
        false
    }

    /// Removes a session; true if it was in the list.
    pub fn remove(&mut self, session: SessionNo) -> bool {
        let Some(place) = self.place(session) else { return false };
        self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(&session);
            if let Some(moved) = self.list.get(place) {
                places.insert(moved.session, number(place));
            }
        }
        if self.list.is_empty() {
            *self = Self::default();
        }
        true
    }

    /// The subscriber of a session.
    #[must_use]
    pub fn get(&self, session: SessionNo) -> Option<&Subscriber> {
        self.list.get(self.place(session)?)
    }

    /// The subscriber of a session, to change it.
    pub fn get_mut(&mut self, session: SessionNo) -> Option<&mut Subscriber> {
        let place = self.place(session)?;
        self.list.get_mut(place)
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Subscriber] {
        &self.list
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn place(&self, session: SessionNo) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&session).map(|place| *place as usize),
            None => self.list.iter().position(|found| found.session == session),
        }
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("four billion subscribers of one filter do not fit into memory")
}

#[cfg(test)]
mod tests {
    use verge_mqtt_proto::QoS;
    use verge_mqtt_proto::session::Subscription;

    use super::*;
    use crate::shard::api::ShardIndex;

    #[test]
    fn a_session_is_found_in_short_and_long_lists() {
        let mut list = Subscribers::default();
        let many = INDEX_FROM as u64 * 4;
        for session in 0..many {
            assert!(!list.insert(subscriber(session)));
            assert!(list.insert(subscriber(session)));
        }
        for session in (0..many).rev().filter(|session| session % 3 != 0) {
            assert!(list.remove(SessionNo(session)));
            assert!(!list.remove(SessionNo(session)));
        }
        for session in 0..many {
            assert_eq!(list.get_mut(SessionNo(session)).is_some(), session % 3 == 0, "{session}");
        }
        assert_eq!(list.as_slice().len() as u64, many.div_ceil(3));
    }

    #[test]
    fn an_emptied_list_keeps_no_memory() {
        let mut list = Subscribers::default();
        for session in 0..100 {
            list.insert(subscriber(session));
        }
        for session in 0..100 {
            list.remove(SessionNo(session));
        }
        assert!(list.is_empty() && list.places.is_none() && !list.list.spilled());
    }

    fn subscriber(session: u64) -> Subscriber {
        Subscriber {
            shard: ShardIndex(0),
            session: SessionNo(session),
            client: "c".into(),
            options: Subscription::with_qos(QoS::AtMostOnce),
            durable: false,
            online: true,
        }
    }
}

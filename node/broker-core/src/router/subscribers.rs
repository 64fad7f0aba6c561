//! The subscribers of one filter, or the members of one group.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use verge_mqtt_proto::session::StreamTag;

use super::Subscriber;
use crate::shard::api::SessionNo;

/// Whose a subscription is: a stream of a session's client.
pub type Who = (SessionNo, StreamTag);

/// Lists longer than this have an index. Most filters have one subscriber; comparing
/// this many session numbers is cheaper than one hash look-up.
const INDEX_FROM: usize = 16;

/// Subscribers of one filter, each stream of a session once, in no order that matters.
#[derive(Debug, Default)]
pub struct Subscribers {
    list: SmallVec<[Subscriber; 1]>,
    /// Where each stands in `list`; there iff the list is, or once was, long.
    places: Option<Box<FxHashMap<Who, u32>>>,
}

impl Subscribers {
    /// Adds a subscriber; true if it was in the list and has been replaced.
    pub fn insert(&mut self, subscriber: Subscriber) -> bool {
        if let Some(place) = self.place(who(&subscriber)) {
            self.list[place] = subscriber;
            return true;
        }
        if let Some(places) = &mut self.places {
            places.insert(who(&subscriber), number(self.list.len()));
        }
        self.list.push(subscriber);
        if self.list.len() > INDEX_FROM && self.places.is_none() {
            let sessions = self.list.iter().enumerate();
            let places = sessions.map(|(place, found)| (who(found), number(place)));
            self.places = Some(Box::new(places.collect()));
        }
        false
    }

    /// Removes a subscriber; true if it was in the list.
    pub fn remove(&mut self, of: Who) -> bool {
        let Some(place) = self.place(of) else { return false };
        self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(&of);
            if let Some(moved) = self.list.get(place) {
                places.insert(who(moved), number(place));
            }
        }
        if self.list.is_empty() {
            *self = Self::default();
        }
        true
    }

    /// The subscriber of a stream.
    #[must_use]
    pub fn get(&self, of: Who) -> Option<&Subscriber> {
        self.list.get(self.place(of)?)
    }

    /// The subscriber of a stream, to change it.
    pub fn get_mut(&mut self, of: Who) -> Option<&mut Subscriber> {
        let place = self.place(of)?;
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

    fn place(&self, of: Who) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&of).map(|place| *place as usize),
            None => self.list.iter().position(|found| who(found) == of),
        }
    }
}

/// Whose a subscription is.
pub(super) fn who(subscriber: &Subscriber) -> Who {
    (subscriber.session, subscriber.tag)
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
            assert!(list.remove(one(session)));
            assert!(!list.remove(one(session)));
        }
        for session in 0..many {
            assert_eq!(list.get_mut(one(session)).is_some(), session % 3 == 0, "{session}");
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
            list.remove(one(session));
        }
        assert!(list.is_empty() && list.places.is_none() && !list.list.spilled());
    }

    fn one(session: u64) -> Who {
        (SessionNo(session), StreamTag::CONTROL)
    }

    fn subscriber(session: u64) -> Subscriber {
        Subscriber {
            shard: ShardIndex(0),
            session: SessionNo(session),
            tag: StreamTag::CONTROL,
            client: None,
            options: Subscription::with_qos(QoS::AtMostOnce),
            durable: false,
            online: true,
        }
    }
}

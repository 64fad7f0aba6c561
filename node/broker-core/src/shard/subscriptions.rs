//! The subscriptions of a session, by filter.
//!
//! Most sessions have a handful: a list of just their size. Longer lists become trees, so that one
//! more subscription costs the same however many there are.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use verge_mqtt_proto::TopicFilter;
use verge_mqtt_proto::session::Subscription;

/// The longest list: one as long is 768 B, which are moved in less time than a tree is walked.
const FEW_MAX: usize = 32;

/// Subscriptions by filter.
#[derive(Debug)]
pub(crate) enum Subscriptions {
    /// At most [`FEW_MAX`], in the order of their filters' lengths, then texts: most are told apart
    /// without a look at the text.
    Few(Vec<(TopicFilter, Subscription)>),
    /// Once there were more.
    #[allow(clippy::box_collection, reason = "a tree by value would make every list larger")]
    Many(Box<BTreeMap<TopicFilter, Subscription>>),
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Subscriptions {
    /// Adds one; gives the one it replaces.
    pub(crate) fn insert(
        &mut self,
        filter: TopicFilter,
        subscription: Subscription,
    ) -> Option<Subscription> {
        match self {
            Self::Few(list) => match place(list, filter.as_str()) {
                Ok(at) => Some(std::mem::replace(&mut list[at].1, subscription)),
                Err(at) if list.len() < FEW_MAX => {
                    if list.len() == list.capacity() {
                        list.reserve_exact(1 + list.len() / 4);
                    }
                    list.insert(at, (filter, subscription));
                    None
                }
                Err(_) => {
                    let mut tree: BTreeMap<_, _> = std::mem::take(list).into_iter().collect();
                    tree.insert(filter, subscription);
                    *self = Self::Many(Box::new(tree));
                    None
                }
            },
            Self::Many(tree) => tree.insert(filter, subscription),
        }
    }

    /// Takes one away.
    pub(crate) fn remove(&mut self, filter: &TopicFilter) -> Option<Subscription> {
        let removed = match self {
            Self::Few(list) => {
                let at = place(list, filter.as_str()).ok()?;
                Some(list.remove(at).1)
            }
            Self::Many(tree) => tree.remove(filter),
        };
        if self.len() == 0 {
            self.clear();
        }
        removed
    }

    /// Takes all away.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The subscription to a filter.
    pub(crate) fn get(&self, filter: &(impl AsRef<str> + ?Sized)) -> Option<&Subscription> {
        self.get_key_value(filter).map(|(_, subscription)| subscription)
    }

    /// As [`get`](Self::get), to change it.
    pub(crate) fn get_mut(
        &mut self,
        filter: &(impl AsRef<str> + ?Sized),
    ) -> Option<&mut Subscription> {
        let filter = filter.as_ref();
        match self {
            Self::Few(list) => place(list, filter).ok().map(|at| &mut list[at].1),
            Self::Many(tree) => tree.get_mut(filter),
        }
    }

    /// The subscription to a filter, with the filter as it is kept.
    pub(crate) fn get_key_value(
        &self,
        filter: &(impl AsRef<str> + ?Sized),
    ) -> Option<(&TopicFilter, &Subscription)> {
        let filter = filter.as_ref();
        match self {
            Self::Few(list) => {
                let at = place(list, filter).ok()?;
                Some((&list[at].0, &list[at].1))
            }
            Self::Many(tree) => tree.get_key_value(filter),
        }
    }

    /// Whether there is one to this filter.
    pub(crate) fn contains_key(&self, filter: &(impl AsRef<str> + ?Sized)) -> bool {
        self.get_key_value(filter).is_some()
    }

    /// All of them, in an order that depends on nothing but the filters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicFilter, &Subscription)> {
        let (few, many) = match self {
            Self::Few(list) => (Some(list.iter()), None),
            Self::Many(tree) => (None, Some(tree.iter())),
        };
        let few = few.into_iter().flatten().map(|(filter, subscription)| (filter, subscription));
        few.chain(many.into_iter().flatten())
    }

    /// Their filters, in the same order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &TopicFilter> {
        self.iter().map(|(filter, _)| filter)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(tree) => tree.len(),
        }
    }
}

impl FromIterator<(TopicFilter, Subscription)> for Subscriptions {
    fn from_iter<I: IntoIterator<Item = (TopicFilter, Subscription)>>(all: I) -> Self {
        let mut subscriptions = Self::default();
        for (filter, subscription) in all {
            subscriptions.insert(filter, subscription);
        }
        subscriptions
    }
}

fn place(list: &[(TopicFilter, Subscription)], wanted: &str) -> Result<usize, usize> {
    list.binary_search_by(|(filter, _)| order(filter.as_str(), wanted))
}

fn order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use verge_mqtt_proto::QoS;

    use super::*;

    #[test]
    fn few_and_many_answer_alike() {
        for count in [1, 5, FEW_MAX, FEW_MAX + 1, 200] {
            let mut all = Subscriptions::default();
            // In an order that is neither theirs nor its reverse.
            for number in (0..count).map(|number| number * 7 % count) {
                assert!(all.insert(filter(number), at(QoS::AtMostOnce)).is_none());
            }
            assert_eq!(all.insert(filter(0), at(QoS::AtLeastOnce)), Some(at(QoS::AtMostOnce)));
            assert_eq!(all.get("f/0"), Some(&at(QoS::AtLeastOnce)));
            let mut texts: Vec<_> = all.keys().map(ToString::to_string).collect();
            texts.sort_unstable();
            let mut wanted: Vec<_> = (0..count).map(|number| format!("f/{number}")).collect();
            wanted.sort_unstable();
            assert_eq!((texts, all.len()), (wanted, count));
            for number in (0..count).rev() {
                assert!(all.contains_key(&filter(number)));
                assert!(all.get_mut(&filter(number)).is_some());
                assert!(all.remove(&filter(number)).is_some());
                assert!(all.remove(&filter(number)).is_none());
            }
            assert!(matches!(&all, Subscriptions::Few(list) if list.capacity() == 0));
        }
    }

    #[test]
    fn a_list_has_little_room_to_spare() {
        let all: Subscriptions =
            (0..5).map(|number| (filter(number), at(QoS::AtMostOnce))).collect();
        assert!(matches!(&all, Subscriptions::Few(list) if list.capacity() <= 6));
    }

    fn filter(number: usize) -> TopicFilter {
        TopicFilter::parse(&format!("f/{number}")).unwrap()
    }

    fn at(qos: QoS) -> Subscription {
        Subscription::with_qos(qos)
    }
}

//! Subscriptions of several streams of one session.

use verge_mqtt_proto::QoS;
use verge_mqtt_proto::session::{StreamTag, Subscription};

use super::*;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

fn of(tag: u32) -> Subscriber {
    Subscriber {
        shard: ShardIndex(0),
        session: SessionNo(1),
        tag: StreamTag(tag),
        client: Some(Box::new("car".into())),
        options: Subscription::with_qos(QoS::AtLeastOnce),
        durable: false,
        online: true,
    }
}

/// The tags of those who get a message, as they are named.
fn tags(router: &Router, topic: &str) -> Vec<u32> {
    let mut found = Matches::default();
    router.matches(topic, Origin::Here, &"lamp".into(), &mut found);
    found.locals.iter().map(|found| found.tag.0).collect()
}

#[test]
fn each_stream_gets_a_message_once_however_many_of_its_filters_match() {
    let router = Router::new();
    for (text, tag) in [("a/b", 0), ("a/b", 4), ("a/+", 4), ("a/+", 8), ("#", 0)] {
        assert!(!router.subscribe(&filter(text), of(tag)).existed);
    }
    assert_eq!(tags(&router, "a/b"), [0, 4, 8]);
    assert_eq!(router.subscription_count(), 5);
    assert!(router.unsubscribe(&filter("a/b"), SessionNo(1), StreamTag(4)).existed);
    assert!(!router.unsubscribe(&filter("a/b"), SessionNo(1), StreamTag(4)).existed);
    assert_eq!(tags(&router, "a/b"), [0, 4, 8], "a/+ is left");
}

#[test]
fn a_route_lasts_while_a_subscription_goes_from_stream_to_stream() {
    let router = Router::new();
    assert!(router.subscribe(&filter("a"), of(0)).advertise.is_some());
    assert_eq!(router.retag(&filter("a"), StreamTag(0), of(4)), None);
    assert_eq!((tags(&router, "a"), router.subscription_count()), (vec![4], 1));
    assert_eq!(router.retag(&filter("a"), StreamTag(4), of(0)), None);
    let gone = router.unsubscribe(&filter("a"), SessionNo(1), StreamTag(0));
    assert_eq!(gone.withdraw, Some(filter("a")));
    // What was not there is there after it, and other nodes are told.
    assert_eq!(router.retag(&filter("a"), StreamTag(0), of(4)), Some(filter("a")));
}

#[test]
fn a_group_counts_streams_as_members_and_keeps_count_of_who_is_connected() {
    let router = Router::new();
    let group = filter("$share/g/a");
    router.subscribe(&group, of(4));
    router.subscribe(&group, of(8));
    let got = |count| {
        let mut all: Vec<u32> = (0..count).flat_map(|_| tags(&router, "a")).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(got(4), [4, 4, 8, 8]);
    router.retag(&group, StreamTag(8), Subscriber { online: false, ..of(0) });
    assert_eq!(got(2), [4, 4], "a member that is away gets nothing while another is there");
    router.set_online(SessionNo(1), [group.clone()].iter(), true);
    assert_eq!(got(2), [0, 4]);
}

#[test]
fn a_subscription_costs_no_more_for_knowing_its_stream() {
    assert_eq!(size_of::<Subscriber>(), 32);
}

//! Retained messages, as transcripts.

use bytes::Bytes;
use verge_model::{Class, MessageId};
use verge_mqtt_proto::{KeptProperties, QoS};

use super::*;

const HERE: NodeKey = NodeKey(1);
const THERE: NodeKey = NodeKey(2);

#[test]
fn the_greatest_stamp_wins_in_whatever_order_values_come() {
    let values = [
        value(10, HERE, Some("old")),
        value(20, HERE, Some("new")),
        value(20, THERE, Some("newer by node")),
        value(15, THERE, None),
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
        let retained = Retained::default();
        for place in order {
            retained.apply(&topic("t"), values[place].clone());
        }
        assert_eq!(found(&retained, "t", 100), ["newer by node"], "{order:?}");
        assert_eq!((retained.count(), retained.tombstone_count()), (1, 0));
    }
}

#[test]
fn applying_a_value_again_changes_nothing() {
    let retained = Retained::default();
    assert!(retained.apply(&topic("t"), value(10, HERE, Some("a"))));
    assert!(!retained.apply(&topic("t"), value(10, HERE, Some("a"))));
    assert!(!retained.apply(&topic("t"), value(9, THERE, None)));
    assert!(retained.apply(&topic("t"), value(11, HERE, None)));
    assert!(!retained.apply(&topic("t"), value(11, HERE, None)));
    assert_eq!(retained.get("t").unwrap().stamp, at(11));
    assert_eq!((retained.count(), retained.bytes()), (0, 0));
}

#[test]
fn a_removed_message_does_not_come_back_until_its_tombstone_has_served() {
    let limits =
        RetainedLimits { tombstone_ttl: Duration::from_millis(100), ..RetainedLimits::default() };
    let retained = Retained::new(limits);
    retained.apply(&topic("t"), value(10, HERE, Some("a")));
    retained.apply(&topic("t"), value(20, HERE, None));
    assert!(!retained.apply(&topic("t"), value(15, THERE, Some("late"))));
    assert_eq!(found(&retained, "#", 30), [""; 0]);

    assert_eq!(retained.poll_timeout(), Some(UnixMillis(120)));
    assert_eq!(retained.handle_timeout(now(119), 10), []);
    assert_eq!(retained.handle_timeout(now(120), 10), [topic("t")]);
    assert_eq!((retained.poll_timeout(), retained.tombstone_count()), (None, 0));
    assert!(retained.get("t").is_none());
}

#[test]
fn an_expired_message_is_not_sent_and_becomes_a_tombstone_of_its_stamp() {
    let limits =
        RetainedLimits { tombstone_ttl: Duration::from_millis(100), ..RetainedLimits::default() };
    let retained = Retained::new(limits);
    retained.apply(&topic("t"), expiring(10, "a", 50));
    retained.apply(&topic("u"), expiring(10, "b", 500));
    assert_eq!(found(&retained, "#", 49), ["a", "b"]);
    assert_eq!(found(&retained, "#", 50), ["b"]);
    assert_eq!(retained.poll_timeout(), Some(UnixMillis(50)));

    assert_eq!(retained.handle_timeout(now(50), 10), []);
    assert_eq!((retained.count(), retained.tombstone_count()), (1, 1));
    assert!(!retained.apply(&topic("t"), value(9, THERE, Some("older"))));
    assert_eq!(retained.handle_timeout(now(150), 10), [topic("t")]);

    // A later message takes the place of one that would expire.
    retained.apply(&topic("u"), value(11, HERE, Some("c")));
    assert_eq!(retained.poll_timeout(), None);
    assert_eq!(found(&retained, "u", 1_000), ["c"]);
}

#[test]
fn a_filter_finds_its_topics_in_order_up_to_the_limit() {
    let retained = Retained::default();
    for name in ["b", "a/2", "a/1/x", "a", "a/1", "$SYS/x"] {
        retained.apply(&topic(name), value(10, HERE, Some(name)));
    }
    retained.apply(&topic("a/3"), value(10, HERE, None));
    for (filter, names) in [
        ("#", &["a", "a/1", "a/1/x", "a/2", "b"][..]),
        ("a/#", &["a", "a/1", "a/1/x", "a/2"]),
        ("a/+", &["a/1", "a/2"]),
        ("+", &["a", "b"]),
        ("+/+/x", &["a/1/x"]),
        ("a/3", &[]),
        ("$SYS/#", &["$SYS/x"]),
        ("c/#", &[]),
    ] {
        assert_eq!(found(&retained, filter, 0), names, "{filter}");
    }
    assert_eq!(payloads(&retained.matches("#", UnixMillis(0), 2)), ["a", "a/1"]);
    assert!(retained.matches("#", UnixMillis(0), 0).is_empty());
}

#[test]
fn what_was_set_elsewhere_can_be_left_out() {
    let retained = Retained::default();
    retained.apply(&topic("a"), value(10, HERE, Some("here")));
    retained.apply(&topic("b"), value(10, THERE, Some("there")));
    assert_eq!(payloads(&retained.matches_of(HERE, "+", UnixMillis(0), 10)), ["here"]);
}

#[test]
fn bounds_refuse_new_topics_and_let_old_ones_shrink_and_go() {
    let one = message(10, HERE, "x").queue_bytes();
    let limits =
        RetainedLimits { messages_max: 2, bytes_max: 2 * one + 1, ..RetainedLimits::default() };
    let retained = Retained::new(limits);
    assert!(retained.apply(&topic("a"), value(10, HERE, Some("x"))));
    assert!(retained.apply(&topic("b"), value(10, HERE, Some("x"))));

    let more = retained.admit(&Arc::new(Message { topic: topic("c"), ..message(10, HERE, "x") }));
    assert_eq!(more, Err(RetainedFull::Messages { limit: 2 }));
    assert!(!retained.apply(&topic("c"), value(10, HERE, Some("x"))));
    let larger =
        retained.admit(&Arc::new(Message { topic: topic("a"), ..message(11, HERE, "xxx") }));
    assert_eq!(larger, Err(RetainedFull::Bytes { limit: 2 * one + 1 }));
    assert!(!retained.apply(&topic("a"), value(11, HERE, Some("xxx"))));
    assert_eq!(found(&retained, "a", 0), ["x"]);
    assert_eq!(retained.refused_count(), 4);

    assert!(retained.apply(&topic("a"), value(11, HERE, Some("xx"))));
    assert_eq!(retained.bytes(), 2 * one + 1);
    assert!(retained.apply(&topic("a"), value(12, HERE, None)));
    assert!(retained.apply(&topic("c"), value(10, HERE, Some("xx"))));
    assert_eq!((retained.count(), retained.bytes()), (2, 2 * one + 1));
}

#[test]
fn security_clients_of_several_shards_are_promised_each_place_once() {
    let limits = RetainedLimits { messages_max: 100, ..RetainedLimits::default() };
    let retained = Retained::new(limits);
    let taken = &|shard: usize| {
        let messages = (0..200).map(|number| Message {
            topic: topic(&format!("{shard}/{number}")),
            ..message(10, HERE, "x")
        });
        messages.filter(|it| retained.admit(&Arc::new(Message::clone(it))).is_ok()).count()
    };
    let promised: usize = std::thread::scope(|scope| {
        let shards = [0, 1, 2, 3].map(|shard| scope.spawn(move || taken(shard)));
        shards.into_iter().map(|shard| shard.join().unwrap()).sum()
    });
    assert_eq!((promised, retained.count(), retained.refused_count()), (100, 100, 700));
}

#[test]
fn too_many_tombstones_are_forgotten_oldest_first() {
    let limits = RetainedLimits { tombstones_max: 2, ..RetainedLimits::default() };
    let retained = Retained::new(limits);
    for (stamp, name) in [(30, "c"), (10, "a"), (20, "b")] {
        retained.apply(&topic(name), value(stamp, HERE, None));
    }
    assert_eq!(retained.poll_timeout(), Some(UnixMillis(0)));
    assert_eq!(retained.handle_timeout(now(0), 10), [topic("a")]);
    assert_eq!(retained.tombstone_count(), 2);
    assert!(retained.poll_timeout() > Some(UnixMillis(0)));
}

fn at(millis: u64) -> Hlc {
    Hlc::from_wall(UnixMillis(millis))
}

fn now(millis: u64) -> Now {
    Now { wall: UnixMillis(millis), ..Now::default() }
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

fn value(millis: u64, node: NodeKey, payload: Option<&'static str>) -> RetainedValue {
    let message = payload.map(|payload| Arc::new(message(millis, node, payload)));
    RetainedValue { stamp: at(millis), node, message }
}

fn expiring(millis: u64, payload: &'static str, expires_at: u64) -> RetainedValue {
    let expires_at = Some(UnixMillis(expires_at));
    let message = Message { expires_at, ..message(millis, HERE, payload) };
    RetainedValue { stamp: at(millis), node: HERE, message: Some(Arc::new(message)) }
}

fn message(millis: u64, node: NodeKey, payload: &'static str) -> Message {
    Message {
        id: MessageId { node, incarnation: 1, seq: millis },
        publisher: "p".into(),
        stamp: at(millis),
        expires_at: None,
        topic: topic("t"),
        qos: QoS::AtLeastOnce,
        retain: true,
        class: Class::Telemetry,
        properties: KeptProperties::default(),
        payload: Bytes::from_static(payload.as_bytes()),
        row: None,
    }
}

fn found(retained: &Retained, filter: &str, millis: u64) -> Vec<String> {
    payloads(&retained.matches(filter, UnixMillis(millis), usize::MAX))
}

fn payloads(messages: &[Arc<Message>]) -> Vec<String> {
    let text = |message: &Arc<Message>| String::from_utf8(message.payload.to_vec()).unwrap();
    messages.iter().map(text).collect()
}

//! What goes beyond the standard: exclusive filters, rewritten topics, configured subscriptions.

use verge_mqtt_proto::session::Subscription;
use verge_mqtt_proto::{QoS, ReasonCode, TopicFilter};

use super::bed::Bed;
use super::client::{post, v4, v5, want};
use crate::extension::counts::Counted;
use crate::extension::{
    AutoSubscription, DelayedBounds, EventKind, EventSettings, Extensions, RewriteAction,
    RewriteRule, Rewrites,
};
use crate::shard::api::{HubMail, Mail, NodeMessage};
use crate::shared::NodeShared;

#[test]
fn an_exclusive_filter_has_one_subscriber_until_that_leaves() {
    let mut bed = Bed::new(2);
    let first = bed.connect(&v5("first"));
    let second = bed.connect(&v5("second").persistent());
    let old = bed.connect(&v4("old"));
    for client in [first, second, old] {
        bed.got(client);
    }
    bed.send(first, first.subscribe(1, want("$exclusive/t/+", 1)));
    bed.expect(first, &["suback 1 [1]"]);
    // Again by the same is the same.
    bed.send(first, first.subscribe(2, want("$exclusive/t/+", 0)));
    bed.expect(first, &["suback 2 [0]"]);
    bed.send(second, second.subscribe(1, want("$exclusive/t/+", 1)));
    bed.expect(second, &["suback 1 [151]"]);
    bed.send(old, old.subscribe(1, want("$exclusive/t/+", 1)));
    bed.expect(old, &["suback 1 [128]"]);
    // The filter itself is everyone's, and topics have no prefix.
    bed.send(old, old.subscribe(2, want("t/+", 0)));
    bed.send(old, old.publish(post("t/a", "m")));
    bed.expect(first, &["publish t/a \"m\""]);
    bed.expect(old, &["suback 2 [0]", "publish t/a \"m\""]);

    bed.send(first, first.unsubscribe(3, "$exclusive/t/+"));
    bed.send(second, second.subscribe(2, want("$exclusive/t/+", 1)));
    bed.expect(second, &["suback 2 [1]"]);
    // A parked session holds it, over a crash; its end lets go.
    let mut bed = bed.crash();
    let first = bed.connect(&v5("first"));
    bed.send(first, first.subscribe(1, want("$exclusive/t/+", 1)));
    bed.expect(first, &["connack present=0", "suback 1 [151]"]);
    bed.connect(&v5("second"));
    bed.send(first, first.subscribe(2, want("$exclusive/t/+", 1)));
    bed.expect(first, &["suback 2 [1]"]);
    for filter in ["$exclusive/$share/g/t", "$exclusive/", "$exclusive/a/#/b"] {
        bed.send(first, first.subscribe(9, want(filter, 1)));
        bed.expect(first, &["suback 9 [143]"]);
    }
}

#[test]
fn the_same_filter_with_and_without_the_prefix_may_be_one_sessions() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("c"));
    bed.send(client, client.subscribe(1, want("t", 0)));
    bed.send(client, client.subscribe(2, want("$exclusive/t", 0)));
    bed.send(client, client.unsubscribe(3, "$exclusive/t"));
    bed.got(client);
    bed.send(client, client.publish(post("t", "m")));
    bed.expect(client, &["publish t \"m\""]);
}

fn rewriting(shared: NodeShared) -> NodeShared {
    let rule = |action, filter, regex: &str, destination: &str| RewriteRule {
        action,
        filter: TopicFilter::parse(filter).unwrap(),
        regex: regex.into(),
        destination: destination.into(),
    };
    let rules = [
        rule(RewriteAction::All, "old/#", "^old/(.+)$", "new/$1"),
        rule(RewriteAction::Publish, "later/+", "^later/(.+)$", "$delayed/5/$1"),
        rule(RewriteAction::Publish, "mine", "^mine$", "by/%c"),
    ];
    let rewrites = Rewrites::compile(&rules).unwrap();
    let delayed = DelayedBounds::new(1, 1_000);
    shared.with_extensions(Extensions { rewrites, delayed, ..Extensions::default() })
}

#[test]
fn topics_and_filters_are_rewritten_behind_their_prefixes() {
    let mut bed = Bed::configured(1, rewriting);
    let sub = bed.connect(&v5("sub"));
    let publisher = bed.connect(&v5("pub"));
    bed.send(sub, sub.subscribe(1, want("old/a", 0)));
    bed.send(publisher, publisher.subscribe(1, want("$share/g/old/b", 0)));
    bed.got(sub);
    bed.got(publisher);
    bed.send(publisher, publisher.publish(post("old/a", "one")));
    bed.send(publisher, publisher.publish(post("new/a", "two")));
    bed.expect(sub, &["publish new/a \"one\"", "publish new/a \"two\""]);
    bed.send(sub, sub.publish(post("new/b", "three")));
    bed.expect(publisher, &["publish new/b \"three\""]);
    bed.send(sub, sub.unsubscribe(2, "old/a"));
    bed.send(publisher, publisher.publish(post("old/a", "gone")));
    bed.expect(sub, &["unsuback 2"]);
    bed.send(sub, sub.subscribe(3, want("by/+", 0)));
    bed.got(sub);
    bed.send(publisher, publisher.publish(post("mine", "m")));
    bed.expect(sub, &["publish by/pub \"m\""]);
}

#[test]
fn security_a_client_id_with_a_wildcard_rewrites_nothing() {
    let mut bed = Bed::configured(1, rewriting);
    let sub = bed.connect(&v5("sub"));
    bed.send(sub, sub.subscribe(1, want("#", 0)));
    bed.got(sub);
    let odd = bed.connect(&v5("a/+"));
    bed.send(odd, odd.publish(post("mine", "m")));
    bed.expect(sub, &["publish mine \"m\""]);
    assert_eq!(bed.shared.extensions.counts.get(Counted::RewriteFailed), 1);
}

#[test]
fn a_topic_can_be_rewritten_to_be_published_later() {
    let mut bed = Bed::configured(1, rewriting);
    let client = bed.connect(&v5("c"));
    bed.send(client, client.subscribe(1, want("t", 0)));
    bed.got(client);
    bed.send(client, client.publish(post("later/t", "m")));
    bed.expect(client, &[]);
    bed.wait(std::time::Duration::from_secs(5));
    bed.expect(client, &["publish t \"m\""]);
}

#[test]
fn a_will_is_rewritten_too() {
    let mut bed = Bed::configured(1, rewriting);
    let sub = bed.connect(&v5("sub"));
    bed.send(sub, sub.subscribe(1, want("new/will", 1)));
    bed.got(sub);
    let mortal = bed.connect(&v5("mortal").will("old/will", "gone", 0));
    bed.lose(mortal);
    bed.expect(sub, &["publish new/will q1 id=16385 \"gone\""]);
}

fn subscribing(shared: NodeShared) -> NodeShared {
    let auto = |filter, qos| {
        let subscription = Subscription::with_qos(qos);
        AutoSubscription::new(filter, subscription).unwrap()
    };
    let auto_subscribe = vec![
        auto("inbox/${clientid}", QoS::AtLeastOnce),
        auto("user/${username}", QoS::AtLeastOnce),
        auto("at/${host}/${port}", QoS::AtMostOnce),
    ];
    shared.with_extensions(Extensions { auto_subscribe, ..Extensions::default() })
}

#[test]
fn every_client_is_subscribed_as_configured_and_once() {
    let mut bed = Bed::configured(2, subscribing);
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("inbox/car", "kept").q1(1).retain()));
    bed.got(publisher);
    let car = bed.connect(&v5("car").persistent());
    // Retained messages come after CONNACK, as they would after a SUBACK.
    bed.expect(car, &["connack present=0", "publish inbox/car q1 id=16385 retain \"kept\""]);
    bed.send(publisher, publisher.publish(post("at/127.0.0.1/50000", "there")));
    bed.expect(car, &["publish at/127.0.0.1/50000 \"there\""]);
    bed.send(car, car.ack(verge_mqtt_proto::AckKind::Puback, 16_385));
    bed.lose(car);
    let mut bed = bed.crash();
    let car = bed.connect(&v5("car").persistent());
    bed.expect(car, &["connack present=1"]);
    // What the client itself asks for is not undone by its next connection.
    bed.send(
        car,
        car.subscribe(
            1,
            want("inbox/car", 0).retained(verge_mqtt_proto::RetainHandling::DoNotSend),
        ),
    );
    bed.send(car, car.disconnect(ReasonCode::Success));
    let car = bed.connect(&v5("car").persistent());
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("inbox/car", "new").q1(1)));
    bed.expect(car, &["connack present=1", "publish inbox/car \"new\""]);
    // Nobody has a User Name here.
    assert!(bed.shared.extensions.counts.get(Counted::AutoSubscribeSkipped) > 0);
}

#[test]
fn security_a_client_cannot_name_itself_into_all_inboxes() {
    let mut bed = Bed::configured(1, subscribing);
    let thief = bed.connect(&v5("+"));
    bed.send(thief, thief.publish(post("inbox/car", "m").q1(1)));
    bed.expect(thief, &["connack present=0", "puback 1 No matching subscribers"]);
}

#[test]
fn security_only_the_node_publishes_to_sys() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("c"));
    bed.send(client, client.subscribe(1, want("$SYS/#", 2)));
    bed.got(client);
    bed.send(client, client.publish(post("$SYS/broker/uptime", "x")));
    bed.send(client, client.publish(post("$SYS/broker/uptime", "x").q1(1)));
    bed.send(client, client.publish(post("$SYS/broker/uptime", "x").q2(2)));
    bed.expect(client, &["puback 1 Not authorized", "pubrec 2 Not authorized"]);
    // The packet id is free again.
    bed.send(client, client.publish(post("t", "x").q2(2)));
    bed.expect(client, &["pubrec 2 No matching subscribers"]);
    // A 3.1.1 client cannot be told [MQTT-3.3.5-2].
    let old = bed.connect(&v4("old"));
    bed.send(old, old.publish(post("$SYS/a", "x").q1(1)));
    bed.send(old, old.publish(post("$SYS/a", "x").q2(2)));
    bed.expect(old, &["connack present=0", "puback 1", "pubrec 2"]);
    let mortal = bed.connect(&v5("mortal").will("$SYS/a", "gone", 0));
    bed.lose(mortal);
    bed.expect(client, &[]);
    assert_eq!(bed.shared.extensions.counts.get(Counted::SysRefused), 6);
}

fn telling(shared: NodeShared) -> NodeShared {
    let on = EventKind::ALL.map(|(kind, _)| kind).to_vec();
    let events = EventSettings { node: "n".into(), on, shard_rate_max: 6 };
    shared.with_extensions(Extensions { events, ..Extensions::default() })
}

#[test]
fn what_clients_do_is_published_to_who_asks() {
    let mut bed = Bed::configured(1, telling);
    let watcher = bed.connect(&v5("watcher"));
    bed.send(watcher, watcher.subscribe(1, want("$SYS/brokers/+/clients/car/+", 0)));
    bed.send(watcher, watcher.subscribe(2, want("#", 0)));
    bed.got(watcher);
    bed.wait(std::time::Duration::from_secs(1));
    let car = bed.connect(&v5("car").keep_alive(60).expiry(9));
    bed.send(car, car.subscribe(1, want("t", 1)));
    bed.send(car, car.unsubscribe(2, "t"));
    bed.send(car, car.disconnect(ReasonCode::Success));
    let common = r#"{"clientid":"car","#;
    let connected = r#""ipaddress":"127.0.0.1","port":50000,"listener":"tcp://127.0.0.1:1883","protocol":"MQTT","proto_ver":5,"keepalive":60,"clean_start":true,"expiry_interval":9,"connected_at":2000,"ts":2000}"#;
    let subscribed = r#""protocol":"MQTT","topic":"t","qos":1,"ts":2000}"#;
    let unsubscribed = r#""protocol":"MQTT","topic":"t","ts":2000}"#;
    let gone = r#""ipaddress":"127.0.0.1","port":50000,"protocol":"MQTT","proto_ver":5,"connected_at":2000,"disconnected_at":2000,"reason":"normal","ts":2000}"#;
    let wanted: Vec<String> = [
        ("connected", connected),
        ("subscribed", subscribed),
        ("unsubscribed", unsubscribed),
        ("disconnected", gone),
    ]
    .into_iter()
    .map(|(event, rest)| {
        let payload = format!("{common}{rest}");
        format!("publish $SYS/brokers/n/clients/car/{event} {payload:?}")
    })
    .collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    bed.expect(watcher, &wanted);
}

#[test]
fn security_a_storm_of_events_is_bounded_and_counted() {
    let mut bed = Bed::configured(1, telling);
    for _ in 0..5 {
        let client = bed.connect(&v5("c"));
        bed.lose(client);
    }
    let counts = &bed.shared.extensions.counts;
    let got = (counts.get(Counted::EventsPublished), counts.get(Counted::EventsDropped));
    assert_eq!(got, (6, 4));
}

#[test]
fn the_nodes_own_messages_are_retained_in_memory_and_go_nowhere_else() {
    let mut bed = Bed::in_mesh("n");
    bed.shared.router.set_remote(verge_model::NodeKey(9), &["$SYS/#", "$share/g/$SYS/#"], &[]);
    let all = bed.connect(&v5("all"));
    bed.send(all, all.subscribe(1, want("#", 0)));
    bed.got(all);
    let message = |text: &'static str| NodeMessage {
        topic: verge_mqtt_proto::TopicName::parse("$SYS/broker/uptime").unwrap(),
        payload: bytes::Bytes::from_static(text.as_bytes()),
        retain: true,
    };
    bed.mail(0, Mail::Publish(vec![message("1"), message("2")]));
    bed.expect(all, &[]);
    let late = bed.connect(&v5("late"));
    bed.send(late, late.subscribe(1, want("$SYS/#", 1)));
    let got = "publish $SYS/broker/uptime retain \"2\"";
    bed.expect(late, &["connack present=0", "suback 1 [1]", got]);
    bed.mail(0, Mail::Publish(vec![message("3")]));
    bed.expect(late, &["publish $SYS/broker/uptime \"3\""]);
    let sent = bed.hub.iter().filter(|(_, mail)| matches!(mail, HubMail::Transient { .. }));
    assert_eq!(sent.count(), 0);
    use verge_storage::StoreRows as _;
    assert_eq!(bed.store.retained_all().count(), 0);
}

#[test]
fn registered_topics_are_counted_in_and_out() {
    let mut bed = Bed::new(2);
    let metrics = |bed: &Bed| bed.shared.extensions.topic_metrics.view("t").unwrap();
    let topic = verge_mqtt_proto::TopicName::parse("t").unwrap();
    let at = verge_model::UnixMillis(0);
    bed.shared.extensions.topic_metrics.register(&topic, at).unwrap();
    let client = bed.connect(&v5("c"));
    bed.send(client, client.publish(post("t", "nobody").q1(1)));
    assert_eq!(metrics(&bed).messages_dropped, 1);
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 2)));
    bed.send(client, client.publish(post("t", "12")));
    bed.send(client, client.publish(post("t", "123").q1(2)));
    bed.send(client, client.publish(post("t", "1234").q2(3)));
    bed.send(client, client.publish(post("other", "1234")));
    let view = metrics(&bed);
    assert_eq!((view.messages_in, view.bytes_in), ([1, 2, 1], 15));
    assert_eq!((view.messages_out, view.bytes_out), ([1, 1, 1], 9));
    // What is sent again is not counted again.
    bed.lose(sub);
    bed.connect(&v5("sub").persistent());
    assert_eq!(metrics(&bed).messages_out, [1, 1, 1]);
}

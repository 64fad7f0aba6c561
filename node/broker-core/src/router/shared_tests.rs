//! Each strategy, as a transcript of who gets which message.

use std::collections::BTreeMap;

use verge_mqtt_proto::session::{StreamTag, Subscription};
use verge_mqtt_proto::{QoS, TopicFilter};

use super::*;
use crate::router::{ForwardTargets, Matches, Origin, Router};
use crate::shard::api::{SessionNo, ShardIndex};

/// Names for who gets a message: sessions of this node by number, other nodes by `n` and number.
fn choices(router: &Router, messages: &[(&str, &str)]) -> Vec<String> {
    let choice = |(publisher, topic): &(&str, &str)| {
        let mut found = Matches::default();
        router.matches(topic, Origin::Here, &(*publisher).into(), &mut found);
        let here = found.locals.iter().map(|found| found.session.0.to_string());
        let there = found.remotes.iter().map(|remote| format!("n{}", remote.node.0));
        here.chain(there).collect::<Vec<_>>().join(" ")
    };
    messages.iter().map(choice).collect()
}

fn same(count: usize) -> Vec<(&'static str, &'static str)> {
    vec![("p", "t/1"); count]
}

fn group() -> TopicFilter {
    TopicFilter::parse("$share/g/t/+").unwrap()
}

fn member(session: u64, online: bool) -> Subscriber {
    Subscriber {
        shard: ShardIndex(0),
        session: SessionNo(session),
        tag: StreamTag::CONTROL,
        client: Some(Box::new(format!("c{session}").into())),
        options: Subscription::with_qos(QoS::AtLeastOnce),
        durable: true,
        online,
    }
}

/// A router of node 1 with these members, and members at these other nodes.
fn router(strategy: ShareStrategy, members: &[(u64, bool)], nodes: &[u64]) -> Router {
    let settings =
        SharedSettings { node: NodeKey(1), seed: 7, strategy, ..SharedSettings::default() };
    let router = Router::with_shared(settings);
    for (session, online) in members {
        router.subscribe(&group(), member(*session, *online));
    }
    for node in nodes {
        router.set_remote(NodeKey(*node), &[group().as_str()], &[]);
    }
    router
}

#[test]
fn local_first_takes_turns_here_and_goes_elsewhere_only_without_a_connected_member() {
    let router = router(ShareStrategy::LocalFirst, &[(1, true), (2, true), (3, false)], &[8, 9]);
    assert_eq!(choices(&router, &same(4)), ["1", "2", "1", "2"]);
    for session in [1, 2] {
        router.set_online(SessionNo(session), [group()].iter(), false);
    }
    assert_eq!(choices(&router, &same(3)), ["n8", "n9", "n8"]);
    // A node out of reach comes after a member of this node that is away.
    router.set_reachable(NodeKey(8), false);
    assert_eq!(choices(&router, &same(2)), ["n9", "n9"]);
    router.set_reachable(NodeKey(9), false);
    assert_eq!(choices(&router, &same(3)), ["1", "2", "3"]);
    for session in 1..=3 {
        router.unsubscribe(&group(), SessionNo(session), StreamTag::CONTROL);
    }
    assert_eq!(choices(&router, &same(2)), ["n8", "n9"]);
}

#[test]
fn round_robin_counts_another_node_as_one_of_the_group() {
    let router = router(ShareStrategy::RoundRobin, &[(1, true), (2, false), (3, true)], &[8]);
    assert_eq!(choices(&router, &same(6)), ["1", "3", "n8", "1", "3", "n8"]);
}

#[test]
fn random_is_the_same_for_a_seed_and_even_over_time() {
    let members = [(1, true), (2, true), (3, true)];
    let one = choices(&router(ShareStrategy::Random, &members, &[8]), &same(4_000));
    assert_eq!(one, choices(&router(ShareStrategy::Random, &members, &[8]), &same(4_000)));
    let mut counts = BTreeMap::new();
    for choice in &one {
        *counts.entry(choice.as_str()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 4);
    assert!(counts.values().all(|count| (900..1_100).contains(count)), "{counts:?}");
    assert!(one.windows(2).any(|pair| pair[0] == pair[1]), "it is no turn");
}

#[test]
fn sticky_stays_with_one_for_as_long_as_it_is_connected() {
    let router = router(ShareStrategy::Sticky, &[(1, true), (2, true), (3, true)], &[]);
    let first = choices(&router, &same(20));
    assert!(first.iter().all(|choice| *choice == first[0]));
    let stuck = SessionNo(first[0].parse().unwrap());
    router.set_online(stuck, [group()].iter(), false);
    let next = choices(&router, &same(20));
    assert!(next[0] != first[0] && next.iter().all(|choice| *choice == next[0]), "{next:?}");
    // The earlier one is back, and waits.
    router.set_online(stuck, [group()].iter(), true);
    assert_eq!(choices(&router, &same(20)), next);
}

#[test]
fn hashes_keep_a_client_or_topic_at_one_member_and_move_none_but_a_leavers() {
    let members: Vec<_> = (1..=5).map(|session| (session, true)).collect();
    let names: Vec<String> = (0..200).map(|number| format!("t/{number}")).collect();
    let by_topic: Vec<_> = names.iter().map(|name| ("p", name.as_str())).collect();
    let by_client: Vec<_> = names.iter().map(|name| (name.as_str(), "t/1")).collect();
    for (strategy, keyed, other) in [
        (ShareStrategy::HashTopic, &by_topic, &by_client),
        (ShareStrategy::HashClient, &by_client, &by_topic),
    ] {
        let router = router(strategy, &members, &[]);
        let before = choices(&router, keyed);
        assert_eq!(before, choices(&router, keyed));
        let mut used = before.clone();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), 5, "{strategy}");
        let others = choices(&router, other);
        assert!(others.iter().all(|choice| *choice == others[0]), "{strategy}");
        router.unsubscribe(&group(), SessionNo(3), StreamTag::CONTROL);
        for (before, after) in before.iter().zip(choices(&router, keyed)) {
            assert!(*before == "3" || *before == after, "{strategy}");
        }
    }
}

#[test]
fn every_node_hashes_to_the_same_member() {
    let build = |node: u64, session: u64, other: u64| {
        let settings = SharedSettings {
            node: NodeKey(node),
            strategy: ShareStrategy::HashTopic,
            ..SharedSettings::default()
        };
        let router = Router::with_shared(settings);
        router.subscribe(&group(), member(session, true));
        router.set_remote(NodeKey(other), &[group().as_str()], &[]);
        router
    };
    let (one, two) = (build(1, 11, 2), build(2, 22, 1));
    for number in 0..50 {
        let topic = format!("t/{number}");
        let at_one = choices(&one, &[("p", &topic)]);
        let at_two = choices(&two, &[("q", &topic)]);
        match at_one[0].as_str() {
            "11" => assert_eq!(at_two, ["n1"]),
            "n2" => assert_eq!(at_two, ["22"]),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_forwarded_message_rather_goes_to_a_connected_member() {
    let router = router(ShareStrategy::RoundRobin, &[(1, false), (2, true)], &[8]);
    let targets =
        ForwardTargets { groups: vec![group().shared_text()], ..ForwardTargets::default() };
    for online in [true, false] {
        router.set_online(SessionNo(2), [group()].iter(), online);
        let mut chosen = Vec::new();
        for _ in 0..4 {
            let mut found = Matches::default();
            router.matches("t/1", Origin::Forwarded(&targets), &"p".into(), &mut found);
            assert_eq!((found.locals.len(), found.remotes.len()), (1, 0));
            chosen.push(found.locals[0].session.0);
        }
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen, if online { vec![2] } else { vec![1, 2] });
    }
}

//! What the router answers, as transcripts, and against the standard's definition of a match.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use proptest::prelude::*;
use verge_mqtt_proto::QoS;

use super::*;

#[test]
fn a_message_goes_once_to_each_session_that_wants_it() {
    let router = Router::new();
    subscribe(&router, "a/+", 1);
    subscribe(&router, "a/b", 2);
    subscribe(&router, "#", 2);
    subscribe(&router, "c", 3);
    assert_eq!(sessions(&router, "a/b"), [1, 2]);
    assert_eq!(sessions(&router, "a/x"), [1, 2]);
    assert_eq!(sessions(&router, "c"), [2, 3]);
    assert_eq!(sessions(&router, "$SYS/c"), [0; 0]);
    assert_eq!((router.subscription_count(), router.filter_count()), (4, 4));
}

#[test]
fn overlapping_subscriptions_give_the_greatest_qos_and_all_identifiers_mqtt_3_3_4_2() {
    let router = Router::new();
    let options = |qos, id| Subscription { id: NonZeroU32::new(id), ..Subscription::with_qos(qos) };
    router.subscribe(&filter("a/+"), subscriber(1, options(QoS::AtMostOnce, 9)));
    router.subscribe(&filter("a/b"), subscriber(1, options(QoS::ExactlyOnce, 4)));
    // "It is possible that the Client made several subscriptions that match a publication and that
    // it used the same identifier for more than one of them." (3.3.2.3.8)
    router.subscribe(&filter("a/#"), subscriber(1, options(QoS::AtLeastOnce, 4)));
    let mut wants_flag = Subscription::with_qos(QoS::AtMostOnce);
    wants_flag.retain_as_published = true;
    router.subscribe(&filter("#"), subscriber(1, wants_flag));

    let found = matches(&router, "a/b", Origin::Here, "p");
    let [only] = &found.locals[..] else { panic!("{found:?}") };
    assert_eq!(only.qos, QoS::ExactlyOnce);
    assert_eq!(only.subscription_ids[..], [4, 4, 9]);
    assert!(only.retain_as_published && only.durable);
}

#[test]
fn subscribing_again_replaces_the_options_and_is_no_new_route() {
    let router = Router::new();
    let first = router.subscribe(&filter("a"), subscriber(1, at(QoS::AtMostOnce)));
    let again = router.subscribe(&filter("a"), subscriber(1, at(QoS::AtLeastOnce)));
    assert_eq!((first.existed, again.existed), (false, true));
    assert_eq!((first.advertise, again.advertise), (Some(filter("a")), None));
    assert_eq!(matches(&router, "a", Origin::Here, "p").locals[0].qos, QoS::AtLeastOnce);
    assert_eq!(router.subscription_count(), 1);
}

#[test]
fn other_nodes_hear_of_the_first_and_the_last_subscriber_of_a_route() {
    let router = Router::new();
    for (text, advertise) in [
        ("a/+", Some("a/+")),
        ("$share/g/a/+", Some("$share/g/a/+")),
        ("$share/h/a/+", Some("$share/h/a/+")),
        ("$local/a/+", None),
        ("$share/g/$local/a/+", None),
    ] {
        for (session, advertise) in [(1, advertise), (2, None)] {
            let outcome = router.subscribe(&filter(text), subscriber(session, at(QoS::AtMostOnce)));
            assert_eq!(outcome.advertise, advertise.map(filter), "{text} {session}");
        }
    }
    let routes: Vec<_> = router.routes().iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["$share/g/a/+", "$share/h/a/+", "a/+"]);
    assert_eq!(router.filter_count(), 1);

    for (text, withdraw) in [
        ("a/+", Some("a/+")),
        ("$share/g/a/+", Some("$share/g/a/+")),
        ("$local/a/+", None),
        ("$share/g/$local/a/+", None),
        ("$share/h/a/+", Some("$share/h/a/+")),
    ] {
        for (session, withdraw) in [(1, None), (2, withdraw)] {
            let outcome = router.unsubscribe(&filter(text), SessionNo(session), StreamTag::CONTROL);
            assert_eq!((outcome.existed, outcome.withdraw), (true, withdraw.map(filter)), "{text}");
        }
        assert!(!router.unsubscribe(&filter(text), SessionNo(1), StreamTag::CONTROL).existed);
    }
    assert_eq!((router.routes().len(), router.filter_count()), (0, 0));
    assert_eq!(router.subscription_count(), 0);
}

#[test]
fn no_local_leaves_out_the_clients_own_messages_mqtt_3_8_3_3() {
    let router = Router::new();
    let no_local = Subscription { no_local: true, ..at(QoS::AtMostOnce) };
    router.subscribe(&filter("a"), subscriber(1, no_local));
    router.subscribe(&filter("a"), subscriber(2, no_local));
    let locals = |publisher| {
        let found = matches(&router, "a", Origin::Here, publisher);
        found.locals.iter().map(|found| found.session.0).collect::<Vec<_>>()
    };
    assert_eq!(locals("c1"), [2]);
    assert_eq!(locals("c2"), [1]);
    assert_eq!(locals("c3"), [1, 2]);
    // Another subscription of the same session still wants it.
    subscribe(&router, "+", 1);
    assert_eq!(locals("c1"), [1, 2]);
}

#[test]
fn local_filters_see_only_what_is_published_here() {
    let router = Router::new();
    subscribe(&router, "$local/a/#", 1);
    subscribe(&router, "a/#", 2);
    assert_eq!(sessions(&router, "a/b"), [1, 2]);
    assert_eq!(sessions(&router, "$local/a/b"), [0; 0]);
    let plain = ForwardTargets { plain: true, ..ForwardTargets::default() };
    let found = matches(&router, "a/b", Origin::Forwarded(&plain), "p");
    assert_eq!(found.locals.iter().map(|found| found.session.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn remote_nodes_get_one_copy_each_and_forwarded_messages_go_no_further() {
    let router = Router::new();
    let outcome = router.set_remote(NodeKey(7), &["a/+", "a/b", "#", "a/#b", "$local/a"], &[]);
    assert_eq!(outcome, RemoteOutcome { taken: 3, refused: 2 });
    router.set_remote(NodeKey(3), &["a/b"], &[]);
    let nodes = |topic, origin| {
        let found = matches(&router, topic, origin, "p");
        assert!(found.remotes.iter().all(|remote| remote.targets.plain));
        found.remotes.iter().map(|remote| remote.node.0).collect::<Vec<_>>()
    };
    assert_eq!(nodes("a/b", Origin::Here), [3, 7]);
    assert_eq!(nodes("x", Origin::Here), [7]);
    let plain = ForwardTargets { plain: true, ..ForwardTargets::default() };
    assert_eq!(nodes("a/b", Origin::Forwarded(&plain)), [0; 0]);

    // Once more is the same as once, and so is a removal of what is not there.
    router.set_remote(NodeKey(3), &["a/b"], &["x"]);
    let listed = router.remote_routes();
    let texts = |node: usize| listed[node].1.iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!((listed[0].0, texts(0)), (NodeKey(3), vec!["a/b"]));
    assert_eq!((listed[1].0, texts(1)), (NodeKey(7), vec!["#", "a/+", "a/b"]));

    router.set_remote(NodeKey(3), &[] as &[&str], &["a/b"]);
    router.clear_remote(NodeKey(7));
    assert_eq!((router.filter_count(), router.remote_routes().len()), (0, 0));
}

#[test]
fn a_group_gives_each_message_to_one_member_in_turn() {
    let router = Router::new();
    for session in 1..=3 {
        subscribe(&router, "$share/g/a/+", session);
    }
    subscribe(&router, "$share/h/a/b", 9);
    let mut turns = BTreeMap::new();
    for _ in 0..30 {
        let mut found = sessions(&router, "a/b");
        found.sort_unstable();
        let [member, 9] = found[..] else { panic!("{found:?}") };
        *turns.entry(member).or_insert(0) += 1;
    }
    assert_eq!(turns, BTreeMap::from([(1, 10), (2, 10), (3, 10)]));
    // A plain subscription of a member is not merged with the group's choice of it (4.8.2).
    subscribe(&router, "a/b", 9);
    let mut found = sessions(&router, "a/b");
    found.retain(|session| *session == 9);
    assert_eq!(found, [9, 9]);
}

#[test]
fn a_group_prefers_members_here_and_else_sends_to_one_node() {
    let router = Router::new();
    subscribe(&router, "$share/g/a", 1);
    router.set_remote(NodeKey(5), &["$share/g/a", "$share/h/a"], &[]);
    router.set_remote(NodeKey(6), &["$share/g/a", "$share/h/a", "+"], &[]);

    let found = matches(&router, "a", Origin::Here, "p");
    assert_eq!(found.locals.len(), 1);
    assert_eq!(remotes(&found), ["5 $share/h/a", "6 plain"]);
    let found = matches(&router, "a", Origin::Here, "p");
    assert_eq!(remotes(&found), ["6 plain $share/h/a"]);

    router.unsubscribe(&filter("$share/g/a"), SessionNo(1), StreamTag::CONTROL);
    for expected in [
        ["5 $share/g/a $share/h/a", "6 plain"].as_slice(),
        &["6 plain $share/g/a $share/h/a"],
        &["5 $share/g/a $share/h/a", "6 plain"],
    ] {
        assert_eq!(remotes(&matches(&router, "a", Origin::Here, "p")), expected);
    }

    // A node out of reach gets what is for all of its subscribers, and no group's turn.
    router.set_reachable(NodeKey(6), false);
    for _ in 0..3 {
        let found = matches(&router, "a", Origin::Here, "p");
        assert_eq!(remotes(&found), ["5 $share/g/a $share/h/a", "6 plain"]);
    }
    // Unless there is no other.
    router.clear_remote(NodeKey(5));
    let found = matches(&router, "a", Origin::Here, "p");
    assert_eq!(remotes(&found), ["6 plain $share/g/a $share/h/a"]);
}

#[test]
fn a_forwarded_message_serves_only_whom_it_was_sent_for() {
    let router = Router::new();
    subscribe(&router, "$share/g/a", 1);
    subscribe(&router, "$share/h/a", 2);
    subscribe(&router, "$share/g/$local/a", 3);
    subscribe(&router, "a", 4);
    let cases: &[(bool, &[&str], &[u64], usize)] = &[
        (true, &[], &[4], 0),
        (false, &["$share/g/a"], &[1], 0),
        (true, &["$share/g/a", "$share/h/a"], &[1, 2, 4], 0),
        (false, &[], &[], 0),
        (false, &["$share/g/$local/a"], &[], 1),
        (false, &["$share/h/a", "$share/left/a"], &[2], 1),
    ];
    for (plain, groups, served, unserved) in cases {
        let groups = groups.iter().map(|group| Arc::from(*group)).collect();
        let targets = ForwardTargets { plain: *plain, groups, hops: 0 };
        let found = matches(&router, "a", Origin::Forwarded(&targets), "p");
        let mut locals: Vec<_> = found.locals.iter().map(|found| found.session.0).collect();
        locals.sort_unstable();
        assert_eq!((&locals[..], found.groups_unserved), (*served, *unserved), "{targets:?}");
        assert!(found.remotes.is_empty());
    }
}

#[test]
fn durability_is_a_property_of_the_session_on_all_its_filters() {
    let router = Router::new();
    let filters = ["a", "$share/g/b", "$local/c"].map(filter);
    for filter in &filters {
        router.subscribe(filter, subscriber(1, at(QoS::AtLeastOnce)));
    }
    for durable in [false, true] {
        router.set_durable(SessionNo(1), &filters, durable);
        for topic in ["a", "b", "c"] {
            let found = matches(&router, topic, Origin::Here, "p");
            assert_eq!(found.locals[0].durable, durable, "{topic}");
        }
    }
    router.set_durable(SessionNo(2), &filters, false);
    assert!(matches(&router, "a", Origin::Here, "p").locals[0].durable);
}

#[test]
fn every_change_is_a_new_generation_and_nothing_else_is() {
    let router = Router::new();
    let mut last = router.generation();
    let mut changed = |what: &str, expected: bool| {
        assert_eq!(router.generation() != last, expected, "{what}");
        last = router.generation();
    };
    subscribe(&router, "a", 1);
    changed("subscribe", true);
    sessions(&router, "a");
    changed("matches", false);
    router.unsubscribe(&filter("b"), SessionNo(1), StreamTag::CONTROL);
    changed("unsubscribe what is not there", false);
    router.unsubscribe(&filter("a"), SessionNo(1), StreamTag::CONTROL);
    changed("unsubscribe", true);
    router.set_remote(NodeKey(1), &["a"], &[]);
    changed("set_remote", true);
    router.set_reachable(NodeKey(1), false);
    changed("set_reachable", true);
    router.clear_remote(NodeKey(1));
    changed("clear_remote", true);
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Subscribe { filter: String, session: u64 },
    Unsubscribe { filter: String, session: u64 },
    AddRemote { filter: String, node: u64 },
    RemoveRemote { filter: String, node: u64 },
    ClearRemote { node: u64 },
}

/// The router as a list: every subscription is compared with every topic.
#[derive(Debug, Default)]
struct Naive {
    local: BTreeSet<(String, u64)>,
    remote: BTreeSet<(u64, String)>,
}

impl Naive {
    fn apply(&mut self, step: &Step, router: &Router) {
        match step {
            Step::Subscribe { filter: text, session } => {
                let first = !self.wanted_here(text);
                let existed = !self.local.insert((text.clone(), *session));
                let outcome =
                    router.subscribe(&filter(text), subscriber(*session, at(QoS::AtMostOnce)));
                let advertise = (first && !text.starts_with("$local/")).then(|| filter(text));
                assert_eq!(outcome, SubscribeOutcome { existed, advertise });
            }
            Step::Unsubscribe { filter: text, session } => {
                let existed = self.local.remove(&(text.clone(), *session));
                let last = existed && !self.wanted_here(text);
                let outcome =
                    router.unsubscribe(&filter(text), SessionNo(*session), StreamTag::CONTROL);
                let withdraw = (last && !text.starts_with("$local/")).then(|| filter(text));
                assert_eq!(outcome, UnsubscribeOutcome { existed, withdraw });
            }
            Step::AddRemote { filter, node } => {
                router.set_remote(NodeKey(*node), &[filter], &[]);
                if !filter.starts_with("$local/") {
                    self.remote.insert((*node, filter.clone()));
                }
            }
            Step::RemoveRemote { filter, node } => {
                router.set_remote(NodeKey(*node), &[], &[filter]);
                self.remote.remove(&(*node, filter.clone()));
            }
            Step::ClearRemote { node } => {
                router.clear_remote(NodeKey(*node));
                self.remote.retain(|(known, _)| known != node);
            }
        }
    }

    fn wanted_here(&self, filter: &str) -> bool {
        self.local.iter().any(|(known, _)| known == filter)
    }

    fn check(&self, topic: &str, router: &Router) {
        let found = matches(router, topic, Origin::Here, "p");
        let wants = |text: &str| {
            let bare = text.strip_prefix("$local/").unwrap_or(text);
            verge_mqtt_proto::matches(bare, topic)
        };
        let locals = self.local.iter().filter(|(filter, _)| wants(filter) && !is_shared(filter));
        let expected: BTreeSet<u64> = locals.map(|(_, session)| *session).collect();
        let remotes = self.remote.iter().filter(|(_, filter)| wants(filter) && !is_shared(filter));
        let plain_nodes: BTreeSet<u64> = remotes.map(|(node, _)| *node).collect();
        let found_nodes = found.remotes.iter().filter(|remote| remote.targets.plain);
        assert_eq!(found_nodes.map(|remote| remote.node.0).collect::<BTreeSet<_>>(), plain_nodes);

        // Each group is served once: by one of its members here, or by one of its nodes.
        let plain = found.locals.iter().filter(|found| found.share.is_none());
        let plain: Vec<u64> = plain.map(|found| found.session.0).collect();
        assert_eq!(plain.len(), expected.len(), "a session is named once");
        assert_eq!(plain.into_iter().collect::<BTreeSet<_>>(), expected);
        let local = self.local.iter().map(|(filter, _)| filter);
        let groups: BTreeSet<&String> = local
            .chain(self.remote.iter().map(|(_, filter)| filter))
            .filter(|filter| is_shared(filter) && wants(filter))
            .collect();
        for group in groups {
            let members: BTreeSet<u64> = self
                .local
                .iter()
                .filter(|(f, _)| f == group)
                .map(|(_, session)| *session)
                .collect();
            let sent = found
                .remotes
                .iter()
                .filter(|remote| remote.targets.groups.iter().any(|name| **name == **group));
            let sent: Vec<_> = sent.map(|remote| remote.node.0).collect();
            let chosen = found.locals.iter().filter(|found| {
                found.share.as_deref().is_some_and(|share| share.as_str() == group)
            });
            let chosen: Vec<_> = chosen.map(|found| found.session.0).collect();
            if members.is_empty() {
                let [node] = sent[..] else { panic!("{group} is sent to {sent:?}") };
                assert!(self.remote.contains(&(node, group.clone())) && chosen.is_empty());
            } else {
                assert!(sent.is_empty(), "{group} has a member here");
                assert!(chosen.len() == 1 && members.contains(&chosen[0]), "{group}: {chosen:?}");
            }
        }
    }
}

fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

fn levels(choices: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(proptest::sample::select(choices), 1..4)
}

fn filters() -> impl Strategy<Value = String> {
    let prefix = proptest::sample::select(&["", "", "", "$local/", "$share/g/", "$share/h/"][..]);
    let body = levels(&["a", "b", "", "+", "$x"]);
    (prefix, body, any::<bool>()).prop_map(|(prefix, mut body, multi)| {
        if multi {
            body.push("#");
        }
        let body = body.join("/");
        // Filters without a character do not exist [MQTT-4.7.3-1].
        format!("{prefix}{}", if body.is_empty() { "a" } else { &body })
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let session = 0_u64..4;
    let node = 10_u64..13;
    prop_oneof![
        4 => (filters(), session.clone())
            .prop_map(|(filter, session)| Step::Subscribe { filter, session }),
        3 => (filters(), session)
            .prop_map(|(filter, session)| Step::Unsubscribe { filter, session }),
        3 => (filters(), node.clone()).prop_map(|(filter, node)| Step::AddRemote { filter, node }),
        2 => (filters(), node.clone())
            .prop_map(|(filter, node)| Step::RemoveRemote { filter, node }),
        1 => node.prop_map(|node| Step::ClearRemote { node }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_gives_what_the_standard_says(
        history in proptest::collection::vec(steps(), 1..80),
        topics in proptest::collection::vec(levels(&["a", "b", "", "$x"]), 1..12),
    ) {
        let router = Router::new();
        let mut naive = Naive::default();
        for (count, step) in history.iter().enumerate() {
            naive.apply(step, &router);
            let topic = topics[count % topics.len()].join("/");
            naive.check(if topic.is_empty() { "a" } else { &topic }, &router);
        }
        let routes: Vec<_> = router.routes().iter().map(ToString::to_string).collect();
        let local = naive.local.iter().map(|(filter, _)| filter.clone());
        let expected: BTreeSet<_> = local.filter(|filter| !filter.starts_with("$local/")).collect();
        prop_assert_eq!(routes, expected.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(router.subscription_count(), naive.local.len());

        // Taken down again, nothing is left.
        for (filter, session) in naive.local.clone() {
            naive.apply(&Step::Unsubscribe { filter, session }, &router);
        }
        for node in 10..13 {
            naive.apply(&Step::ClearRemote { node }, &router);
        }
        prop_assert_eq!(router.filter_count(), 0);
    }
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

fn at(qos: QoS) -> Subscription {
    Subscription::with_qos(qos)
}

/// Session `n` is of client `cn`, and durable.
fn subscriber(session: u64, options: Subscription) -> Subscriber {
    Subscriber {
        shard: ShardIndex(0),
        session: SessionNo(session),
        tag: StreamTag::CONTROL,
        client: Some(Box::new(format!("c{session}").into())),
        options,
        durable: true,
        online: true,
    }
}

fn subscribe(router: &Router, text: &str, session: u64) {
    router.subscribe(&filter(text), subscriber(session, at(QoS::AtMostOnce)));
}

fn matches(router: &Router, topic: &str, origin: Origin<'_>, publisher: &str) -> Matches {
    let mut found = Matches::default();
    router.matches(topic, origin, &publisher.into(), &mut found);
    found
}

fn sessions(router: &Router, topic: &str) -> Vec<u64> {
    let found = matches(router, topic, Origin::Here, "p");
    found.locals.iter().map(|found| found.session.0).collect()
}

fn remotes(found: &Matches) -> Vec<String> {
    let show = |remote: &RemoteMatch| {
        let mut text = remote.node.0.to_string();
        if remote.targets.plain {
            text.push_str(" plain");
        }
        for group in &remote.targets.groups {
            text.push(' ');
            text.push_str(group);
        }
        text
    };
    found.remotes.iter().map(show).collect()
}

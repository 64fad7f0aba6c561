//! Topic Names and Topic Filters (4.7).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::Wire;
use crate::wire::bytes::publish;

behaviours! {
    a_multi_level_wildcard_is_last_and_alone_in_its_level { 5: ["4.7.1-1"], 4: ["4.7.1-2"] }
    a_single_level_wildcard_is_alone_in_its_level { 5: ["4.7.1-2"], 4: ["4.7.1-3"] }
    wildcards_match_levels { 5: ["3.3.2-3", "4.7.1-1", "4.7.1-2"], 4: ["3.3.2-3"] }
    wildcards_at_the_beginning_do_not_match_dollar { 5: ["4.7.2-1"], 4: ["4.7.2-1"] }
    names_and_filters_have_a_character { 5: ["4.7.3-1"], 4: ["4.7.3-1"] }
    names_and_filters_have_no_null { 5: ["4.7.3-2"], 4: ["4.7.3-2"] }
    names_and_filters_have_up_to_65535_bytes { 5: ["4.7.3-3"], 4: ["4.7.3-3"] }
    names_are_not_normalized { 5: ["4.7.3-4"], 4: ["4.7.3-4"] }
}

/// Whether the client may subscribe to the filter.
fn is_taken(wire: &mut Wire, filter: &str) -> bool {
    match wire.subscribe(filter, 0) {
        0 => true,
        0x8F if wire.is_v5() => false,
        0x80 if !wire.is_v5() => false,
        other => panic!("{filter}: {other:#04x}"),
    }
}

fn a_multi_level_wildcard_is_last_and_alone_in_its_level(bench: &Bench) {
    let mut wire = bench.client("hash");
    for (filter, taken) in [
        ("a/#", true),
        ("a/b/#", true),
        ("a#", false),
        ("a/b#", false),
        ("a/#/b", false),
        ("##", false),
        ("#/a", false),
        ("a/#b", false),
    ] {
        assert_eq!(is_taken(&mut wire, &bench.topic(filter)), taken, "{filter}");
    }
    assert!(is_taken(&mut wire, "#"));
}

fn a_single_level_wildcard_is_alone_in_its_level(bench: &Bench) {
    let mut wire = bench.client("plus");
    for (filter, taken) in [
        ("+", true),
        ("+/a/+", true),
        ("a/+/b", true),
        ("+/#", true),
        ("a+", false),
        ("+a", false),
        ("a/+b/c", false),
        ("++", false),
    ] {
        assert_eq!(is_taken(&mut wire, &bench.topic(filter)), taken, "{filter}");
    }
}

fn wildcards_match_levels(bench: &Bench) {
    let topics = ["s", "s/", "s/a", "s/a/b", "/s", "s//b", "S/a"];
    for (filter, matched) in [
        ("s/#", &["s", "s/", "s/a", "s/a/b", "s//b"][..]),
        ("s/+", &["s/", "s/a"]),
        ("s/+/b", &["s/a/b", "s//b"]),
        ("+/a", &["s/a", "S/a"]),
        ("/+", &["/s"]),
        ("+/+", &["s/", "s/a", "/s", "S/a"]),
        ("s/a", &["s/a"]),
        ("+", &["s"]),
    ] {
        let mut wire = bench.client("match");
        wire.subscribe(&bench.topic(filter), 0);
        wire.subscribe(&bench.topic("the/very/end"), 0);
        for topic in topics.iter().chain(&["the/very/end"]) {
            wire.publish(&bench.topic(topic), topic, 0);
        }
        let got = wire.texts(matched.len() + 1);
        let wanted: Vec<&str> = matched.iter().copied().chain(["the/very/end"]).collect();
        assert_eq!(got, wanted, "{filter}");
    }
}

fn wildcards_at_the_beginning_do_not_match_dollar(bench: &Bench) {
    let mut wire = bench.client("dollar");
    let own = format!("$own{}/a", bench.number());
    wire.subscribe(&format!("+/{}", &own[5..]), 0);
    wire.subscribe("+/a", 0);
    wire.subscribe("#", 0);
    let mut exact = bench.client("exact");
    exact.subscribe(&own, 0);
    exact.subscribe(&own.replace("/a", "/#"), 0);
    exact.publish(&own, "x", 1);
    assert_eq!(exact.message().topic, own);
    // What else happens at the node is not this case's.
    let end = bench.topic("end");
    wire.publish(&end, "end", 1);
    loop {
        let message = wire.message();
        assert!(!message.topic.starts_with('$'), "{message:?}");
        if message.topic == end {
            break;
        }
    }
}

fn names_and_filters_have_a_character(bench: &Bench) {
    let mut wire = bench.client("empty");
    wire.send(&publish(bench.version, 0, "", 0, &[], "x"));
    // With an empty name and no alias 5.0 speaks of a Protocol Error.
    let words = wire.last_words();
    assert_eq!(words.len(), usize::from(bench.is_v5()), "{words:?}");
    let mut wire = bench.client("empty");
    assert!(!is_taken(&mut wire, ""));
    let shortest = ["/", "a", " "];
    for filter in shortest {
        assert!(is_taken(&mut wire, filter), "{filter}");
    }
}

fn names_and_filters_have_no_null(bench: &Bench) {
    let mut wire = bench.client("null");
    wire.send(&publish(bench.version, 0, "a\0", 0, &[], "x"));
    wire.is_disconnected(0x81);
    let mut wire = bench.client("null");
    wire.send(&crate::wire::bytes::subscribe(bench.version, 1, &[], &[("a\0", 0)]));
    wire.is_disconnected(0x81);
}

fn names_and_filters_have_up_to_65535_bytes(bench: &Bench) {
    // As long as a packet of the node under test may be; the field has room for no more.
    let mut wire = bench.client("long");
    let long = bench.topic(&"x".repeat(60_000));
    assert_eq!(wire.subscribe(&long, 0), 0);
    wire.publish(&long, "x", 0);
    assert_eq!(wire.message().topic, long);
}

fn names_are_not_normalized(bench: &Bench) {
    let mut wire = bench.client("as-is");
    // Pairs that look or mean the same, and are not.
    for (filter, other) in [
        ("\u{e9}", "e\u{301}"),
        ("A", "a"),
        ("a//b", "a/b"),
        ("a/", "a"),
        ("/a", "a"),
        ("a%20b", "a b"),
        ("a/./b", "a/b"),
        ("\u{ff21}", "A"),
    ] {
        let (filter, other) = (bench.topic(filter), bench.topic(other));
        wire.subscribe(&filter, 0);
        wire.publish(&other, "other", 0);
        wire.publish(&filter, "same", 0);
        let message = wire.message();
        assert_eq!((message.topic, message.payload), (filter.clone(), b"same".to_vec()));
        wire.send(&crate::wire::bytes::unsubscribe(bench.version, 900, &[&filter]));
        wire.unsuback(900);
    }
}

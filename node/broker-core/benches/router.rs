//! The router with a million filters: a change, and a match, exact and by wildcard.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use verge_broker_core::router::{Matches, Origin, Router, Subscriber};
use verge_broker_core::shard::api::{SessionNo, ShardIndex};
use verge_mqtt_proto::session::{StreamTag, Subscription};
use verge_mqtt_proto::{QoS, TopicFilter};

const FILTERS: u64 = 1_000_000;

fn exact(c: &mut Criterion) {
    let router = filled(|number| format!("region/v2x/cam/{number}"));
    changes(c, "router/exact_among_1m", &router, "region/v2x/cam/new");
    matching(c, "router/exact_among_1m", &router, "region/v2x/cam/777777", 1);
    matching(c, "router/exact_among_1m", &router, "region/v2x/cam/none", 0);
}

fn wildcard(c: &mut Criterion) {
    // As areas are subscribed to: a path of levels, then everything below.
    let router = filled(|number| {
        let [a, b, c] = [number % 100, number / 100 % 100, number / 10_000];
        format!("area/{a}/{b}/{c}/#")
    });
    changes(c, "router/wildcard_among_1m", &router, "area/1/1/new/#");
    matching(c, "router/wildcard_among_1m", &router, "area/77/77/77/cam/17", 1);
    matching(c, "router/wildcard_among_1m", &router, "area/77/77/none/cam/17", 0);
    let router = filled(|number| format!("region/+/cam/{number}/+/position"));
    matching(c, "router/plus_among_1m", &router, "region/v2x/cam/777777/a/position", 1);
}

fn wide(c: &mut Criterion) {
    let router = Router::new();
    for number in 0..1_000 {
        router.subscribe(&filter("all/of/them"), subscriber(number));
    }
    matching(c, "router/wide", &router, "all/of/them", 1_000);
}

fn filled(text: impl Fn(u64) -> String) -> Router {
    let router = Router::new();
    for number in 0..FILTERS {
        router.subscribe(&filter(&text(number)), subscriber(number));
    }
    assert_eq!(router.filter_count() as u64, FILTERS);
    router
}

fn changes(c: &mut Criterion, group: &str, router: &Router, text: &str) {
    let (filter, session) = (filter(text), FILTERS + 1);
    c.benchmark_group(group).bench_function("subscribe_and_unsubscribe", |b| {
        b.iter(|| {
            router.subscribe(black_box(&filter), subscriber(session));
            router.unsubscribe(black_box(&filter), SessionNo(session), StreamTag::default());
        });
    });
}

fn matching(c: &mut Criterion, group: &str, router: &Router, topic: &str, found: usize) {
    let mut matches = Matches::default();
    let publisher = "publisher".into();
    c.benchmark_group(group).bench_function(format!("match_{found}"), |b| {
        b.iter(|| {
            router.matches(black_box(topic), Origin::Here, &publisher, &mut matches);
            assert_eq!(matches.locals.len(), found);
        });
    });
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect("a valid filter")
}

fn subscriber(number: u64) -> Subscriber {
    Subscriber {
        shard: ShardIndex(0),
        session: SessionNo(number),
        client: None,
        options: Subscription::with_qos(QoS::AtMostOnce),
        durable: false,
        online: true,
        tag: StreamTag::default(),
    }
}

criterion_group!(benches, exact, wildcard, wide);
criterion_main!(benches);

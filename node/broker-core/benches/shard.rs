//! A PUBLISH through a shard: in from one client, out to others, with every acknowledgement; and what
//! subscribing costs there.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use verge_mqtt_proto::QoS;

use rig::Rig;
use rig::cases::Case;

mod rig;

const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard/publish");
    for qos in LEVELS {
        let bits = qos.bits();
        for subscribers in [1, 20] {
            let mut case = Case::fan_out(1, subscribers, qos);
            case.check();
            group.throughput(Throughput::Elements(case.deliveries));
            group.bench_function(format!("qos{bits}/to_{subscribers}"), |b| b.iter(|| case.step()));
        }
        let mut case = Case::batch(1, qos);
        case.check();
        group.throughput(Throughput::Elements(case.deliveries));
        group.bench_function(format!("qos{bits}/16_in_one_read"), |b| b.iter(|| case.step()));
        let mut case = Case::batch(2, qos);
        case.check();
        group.throughput(Throughput::Elements(case.deliveries));
        group.bench_function(format!("qos{bits}/16_in_one_read_of_2_shards"), |b| {
            b.iter(|| case.step());
        });
    }
    group.finish();
}

fn subscribe(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard/subscribe");
    let mut rig = Rig::new(1);
    let client = rig.connect("subscriber", true);
    group.bench_function("subscribe_and_unsubscribe", |b| {
        b.iter(|| {
            rig.subscribe(client, black_box("region/v2x/cam/17"), QoS::AtLeastOnce);
            rig.unsubscribe(client, black_box("region/v2x/cam/17"));
        });
    });
    group.finish();
}

fn connect(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard/connect");
    let mut rig = Rig::new(1);
    group.bench_function("clean_and_away", |b| {
        b.iter(|| {
            let client = rig.connect(black_box("vehicle-17"), true);
            rig.close(client);
        });
    });
    group.finish();
}

criterion_group!(benches, publish, subscribe, connect);
criterion_main!(benches);

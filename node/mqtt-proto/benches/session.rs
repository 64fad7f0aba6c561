//! What a session owes: a message queued, sent and acknowledged, alone and behind others.

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use smallvec::SmallVec;
use verge_model::{Class, Hlc, MessageId, NodeKey};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::{
    Entry, OrderKey, Outbound, OutboundLimits, Received, Step, Stored, StreamTag,
};
use verge_mqtt_proto::{KeptProperties, QoS, TopicName};

fn outbound(c: &mut Criterion) {
    let mut group = c.benchmark_group("session/outbound");
    for (qos, name) in [(QoS::AtLeastOnce, "qos1"), (QoS::ExactlyOnce, "qos2")] {
        for ahead in [0, 50] {
            let mut session = session();
            let message = message(qos);
            let mut seq = 0;
            let mut put = |session: &mut Outbound| {
                seq += 1;
                session.enqueue(entry(&message, seq)).expect("there is room");
            };
            for _ in 0..ahead {
                put(&mut session);
                publish(&mut session);
            }
            group.bench_function(format!("{name}/behind_{ahead}"), |b| {
                b.iter(|| {
                    put(&mut session);
                    let id = publish(&mut session);
                    if qos == QoS::ExactlyOnce {
                        let received = session.handle_pubrec(id, true);
                        assert!(matches!(received, Received::Release));
                        session.handle_pubcomp(id).expect("it was released");
                    } else {
                        session.handle_puback(id).expect("it was published");
                    }
                });
            });
            assert_eq!(session.len(), ahead);
        }
    }
    group.finish();
}

fn publish(session: &mut Outbound) -> verge_mqtt_proto::PacketId {
    let Some(Step::Publish(id)) = session.next_step() else { panic!("a message waits") };
    session.publishing(id).expect("it is due");
    id
}

fn session() -> Outbound {
    let limits = OutboundLimits { messages_max: 1_000, bytes_max: 1 << 20 };
    let mut session = Outbound::new(0, limits);
    session.connected(100);
    session
}

fn message(qos: QoS) -> Arc<Message> {
    Arc::new(Message {
        id: MessageId { node: NodeKey(1), incarnation: 1, seq: 1 },
        publisher: "publisher".into(),
        stamp: Hlc(1),
        expires_at: None,
        topic: TopicName::parse("region/v2x/cam/17").expect("a valid topic"),
        qos,
        retain: false,
        class: Class::Control,
        properties: KeptProperties::default(),
        payload: Bytes::from_static(&[0x2a; 64]),
        row: None,
    })
}

fn entry(message: &Arc<Message>, seq: u64) -> Entry {
    Entry {
        order: OrderKey { lane: 1, seq },
        message: Arc::clone(message),
        qos: message.qos,
        retain: false,
        subscription_ids: SmallVec::new(),
        stored: Stored::Nowhere,
        marked: false,
        share: None,
        tag: StreamTag::default(),
    }
}

criterion_group!(benches, outbound);
criterion_main!(benches);

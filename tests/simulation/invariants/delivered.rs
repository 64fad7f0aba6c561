//! No acknowledged message of QoS 1 or 2 is lost to a session that was subscribed, as far as every
//! node knew, before it was given to its publisher.

use verge_mqtt_proto::matches;

use crate::oracle::MessageNo;
use crate::world::World;

pub(super) fn judge(world: &mut World) {
    let oracle = &mut world.oracle;
    let mut lost = Vec::new();
    for (name, receiver) in &oracle.receivers {
        if receiver.since.is_none() {
            continue;
        }
        for (number, message) in oracle.messages.iter().enumerate() {
            let wanted = receiver.wants.iter().any(|(filter, _)| matches(filter, &message.topic));
            let acked = message.acked_at.is_some();
            if wanted && acked && !receiver.counts.contains_key(&MessageNo(number)) {
                lost.push(format!("{name} never got {number} on {}", message.topic));
            }
        }
    }
    for what in lost {
        oracle.fail("delivered", what);
    }
}

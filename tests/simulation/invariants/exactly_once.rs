//! QoS 2 messages come exactly once, through crashes of nodes that come back with their disks and
//! through cuts that end before a CONNECT has waited for too long.
//!
//! Where a session was served without the word of its owner, they come at least once: what the
//! owner delivered a moment before may be in an older log too, whose copies of late messages nobody
//! in reach knows to be over. So may a message whose publisher sent it again to a node that could
//! not ask the one it sent it to at first, or to a session that was said to be new.

use verge_mqtt_proto::QoS;

use crate::scenario::Family;
use crate::world::World;

pub(super) fn judge(world: &mut World, family: Family) {
    let unheard = world.served_without_owner() > 0;
    if unheard && !family.is_fault_free() {
        return;
    }
    let oracle = &mut world.oracle;
    let mut doubled = Vec::new();
    for (name, receiver) in &oracle.receivers {
        for (number, count) in &receiver.counts {
            let message = &oracle.messages[number.0];
            let qos = receiver
                .wants
                .iter()
                .filter(|(filter, _)| verge_mqtt_proto::matches(filter, &message.topic))
                .map(|(_, qos)| message.qos.min(*qos))
                .max();
            let unsure = message.resent_to_new_session
                || (message.resent_elsewhere && !family.is_fault_free());
            if *count > 1 && qos == Some(QoS::ExactlyOnce) && !unsure {
                doubled.push(format!("{name} got {} {count} times", number.0));
            }
        }
        if unheard {
            doubled.push("a session was served without its owner, who was well".into());
        }
        // A node may be cut off from all who know of a session for longer than its client waits.
        if receiver.lost_sessions > 0 && family != Family::Severed {
            doubled.push(format!("{name} was told that its session is gone"));
        }
    }
    for what in doubled {
        oracle.fail("exactly once", what);
    }
}

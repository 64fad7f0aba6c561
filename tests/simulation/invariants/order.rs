//! What one publisher sends to one topic at one QoS comes in order, in runs without faults.
//!
//! While a client changes nodes, a message may go to its old node, since its publisher's node does
//! not know better, and the next one to its new node; order is not promised between the two. So a
//! message sent so close to a handover is not judged by.

use std::collections::BTreeMap;

use crate::scenario::Family;
use crate::world::{MS, World};

/// How long before a client is seen to move, and after, messages may take the old way: the time a
/// message or a route takes through commits and links, with room.
const MOVING: u64 = 150 * MS;

pub(super) fn judge(world: &mut World, family: Family) {
    if !family.is_fault_free() {
        return;
    }
    let oracle = &mut world.oracle;
    let mut swapped = Vec::new();
    for (name, receiver) in &oracle.receivers {
        let mut last: BTreeMap<_, usize> = BTreeMap::new();
        for number in &receiver.deliveries {
            let message = &oracle.messages[number.0];
            let sent = message.sent_at;
            let near = |moved: &u64| sent.abs_diff(*moved) < MOVING;
            if receiver.moves.iter().any(near) {
                continue;
            }
            let line = (&message.publisher, &message.topic, message.qos);
            if let Some(before) = last.insert(line, number.0)
                && before > number.0
            {
                swapped.push(format!("{name} got {} after {before}", number.0));
            }
        }
    }
    for what in swapped {
        oracle.fail("order", what);
    }
}

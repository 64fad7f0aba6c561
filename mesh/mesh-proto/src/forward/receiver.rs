//! What was taken from each origin's logs.

use std::collections::{BTreeMap, BTreeSet};

use verge_model::{Class, NodeKey};
use verge_storage::key::LinkInKey;

use crate::effects::Effects;
use crate::limits::LOGS_PER_ORIGIN_MAX;
use crate::output::{Lane, LinkKind, Output};
use crate::wire::{Forward, ForwardAck, Frame, Received};

#[derive(Debug, Default)]
pub(crate) struct Receivers {
    origins: BTreeMap<NodeKey, Origin>,
    /// Logs whose custody grew since the last acknowledgement.
    unacked: BTreeSet<(NodeKey, Class)>,
}

#[derive(Debug, Default)]
struct Origin {
    /// The log the origin greeted with.
    current: Option<u64>,
    /// What was taken, by log id. An origin has another log after it lost its disk.
    logs: BTreeMap<u64, [Taken; Class::ALL.len()]>,
}

/// Invariant: `durable <= handed`.
#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    /// The last sequence handed on in this life.
    handed: u64,
    /// The last sequence whose effects are durable.
    durable: u64,
}

impl Receivers {
    /// Takes in a `link_in` row.
    pub(crate) fn restore(&mut self, origin: NodeKey, log_id: u64, class: Class, last: u64) {
        let log = self.origins.entry(origin).or_default().logs.entry(log_id).or_default();
        log[class as usize] = Taken { handed: last, durable: last };
    }

    /// What the origin is told in a greeting, which leaves before its own arrives.
    pub(crate) fn greeting(&self, origin: NodeKey) -> Vec<Received> {
        let Some(known) = self.origins.get(&origin) else { return Vec::new() };
        let mut said = Vec::new();
        for (log_id, taken) in &known.logs {
            let of = |class: Class| taken[class as usize].durable;
            said.extend(
                Class::ALL.into_iter().filter(|class| of(*class) > 0).map(|class| Received {
                    class,
                    log_id: *log_id,
                    last: of(class),
                }),
            );
        }
        said
    }

    /// The origin greeted; another log id is another log, from its beginning.
    pub(crate) fn peer_up(&mut self, origin: NodeKey, log_id: u64, fx: &mut Effects) {
        let known = self.origins.entry(origin).or_default();
        known.current = Some(log_id);
        known.logs.entry(log_id).or_default();
        while known.logs.len() > LOGS_PER_ORIGIN_MAX {
            let Some(old) = known.logs.keys().copied().find(|old| *old != log_id) else { break };
            known.logs.remove(&old);
            for class in Class::ALL {
                fx.batch.delete(&LinkInKey { origin, log_id: old, class });
            }
        }
    }

    pub(crate) fn handle_forward(&mut self, origin: NodeKey, forward: Forward, fx: &mut Effects) {
        let Forward { class, seq, record } = forward;
        let Some(known) = self.origins.get_mut(&origin) else { return };
        let Some(log_id) = known.current else { return };
        let taken = &mut known.logs.entry(log_id).or_default()[class as usize];
        if seq <= taken.handed {
            if seq <= taken.durable {
                // The acknowledgement was lost with a link.
                self.unacked.insert((origin, class));
            }
            return;
        }
        taken.handed = seq;
        fx.push(Output::Forwarded { origin, log_id, class, seq, record });
    }

    /// Everything up to `seq` is durable here.
    pub(crate) fn custody(&mut self, origin: NodeKey, log_id: u64, class: Class, seq: u64) {
        let Some(known) = self.origins.get_mut(&origin) else { return };
        let Some(log) = known.logs.get_mut(&log_id) else { return };
        let taken = &mut log[class as usize];
        if seq > taken.durable {
            taken.durable = seq;
            taken.handed = taken.handed.max(seq);
            self.unacked.insert((origin, class));
        }
    }

    /// Acknowledges what grew; what has no link is told in the next greeting.
    pub(crate) fn push(&mut self, fx: &mut Effects) {
        for (origin, class) in std::mem::take(&mut self.unacked) {
            let Some(known) = self.origins.get(&origin) else { continue };
            let Some(log_id) = known.current else { continue };
            let last = known.logs.get(&log_id).map_or(0, |log| log[class as usize].durable);
            let lane = if fx.established(origin, LinkKind::Fast) {
                Lane::Control
            } else {
                Lane::of(class)
            };
            fx.send(origin, lane, &Frame::ForwardAck(ForwardAck { class, log_id, last }));
        }
    }

    pub(crate) fn forget(&mut self, origin: NodeKey, fx: &mut Effects) {
        if self.origins.remove(&origin).is_some() {
            fx.batch.delete_link_in_of(origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::effects::LinkState;

    const ORIGIN: NodeKey = NodeKey(9);

    fn forward(seq: u64) -> Forward {
        Forward { class: Class::Safety, seq, record: Bytes::from_static(b"denm") }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a transcript shows whatever comes")]
    fn transcript(fx: &mut Effects) -> Vec<String> {
        std::iter::from_fn(|| fx.poll())
            .map(|output| match output {
                Output::Forwarded { log_id, seq, .. } => format!("handed {log_id}/{seq}"),
                Output::Send { frame, .. } => match Frame::decode(frame).unwrap().unwrap() {
                    Frame::ForwardAck(ack) => format!("ack {}/{}", ack.log_id, ack.last),
                    other => format!("{other:?}"),
                },
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn each_sequence_is_handed_on_once_and_acknowledged_when_durable() {
        let mut fx = Effects::default();
        fx.set_link(ORIGIN, LinkKind::Fast, LinkState::Established);
        let mut receivers = Receivers::default();
        receivers.peer_up(ORIGIN, 7, &mut fx);
        for seq in [1, 2, 2, 1, 3] {
            receivers.handle_forward(ORIGIN, forward(seq), &mut fx);
        }
        receivers.push(&mut fx);
        assert_eq!(transcript(&mut fx), ["handed 7/1", "handed 7/2", "handed 7/3"]);
        receivers.custody(ORIGIN, 7, Class::Safety, 1);
        receivers.custody(ORIGIN, 7, Class::Safety, 2);
        receivers.push(&mut fx);
        receivers.push(&mut fx);
        assert_eq!(transcript(&mut fx), ["ack 7/2"]);
        assert_eq!(
            receivers.greeting(ORIGIN),
            [Received { class: Class::Safety, log_id: 7, last: 2 }]
        );
        // What is durable and comes again is acknowledged again; what is only handed on is not.
        receivers.handle_forward(ORIGIN, forward(2), &mut fx);
        receivers.handle_forward(ORIGIN, forward(3), &mut fx);
        receivers.push(&mut fx);
        assert_eq!(transcript(&mut fx), ["ack 7/2"]);
    }

    #[test]
    fn another_log_of_the_same_origin_begins_anew() {
        let mut fx = Effects::default();
        let mut receivers = Receivers::default();
        receivers.restore(ORIGIN, 7, Class::Safety, 5);
        receivers.restore(ORIGIN, 6, Class::Safety, 2);
        receivers.peer_up(ORIGIN, 8, &mut fx);
        let said: Vec<_> =
            receivers.greeting(ORIGIN).iter().map(|said| (said.log_id, said.last)).collect();
        assert_eq!(said, [(6, 2), (7, 5)]);
        receivers.handle_forward(ORIGIN, forward(1), &mut fx);
        assert_eq!(transcript(&mut fx), ["handed 8/1"]);
        receivers.custody(ORIGIN, 7, Class::Safety, 9);
        receivers.handle_forward(ORIGIN, forward(2), &mut fx);
        assert_eq!(transcript(&mut fx), ["handed 8/2"], "custody of the old log changes nothing");
        receivers.peer_up(ORIGIN, 7, &mut fx);
        receivers.handle_forward(ORIGIN, forward(9), &mut fx);
        receivers.handle_forward(ORIGIN, forward(10), &mut fx);
        assert_eq!(transcript(&mut fx), ["handed 7/10"]);
    }
}

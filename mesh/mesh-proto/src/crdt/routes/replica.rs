//! What other nodes want.

use std::collections::BTreeMap;

use crdts::{CmRDT, Dot, VClock};
use verge_model::{Incarnation, NodeKey};
use verge_storage::record::{RouteHeadRecord, RouteRecord};

use crate::effects::Effects;
use crate::limits::ROUTES_PER_ORIGIN_MAX;
use crate::output::{Lane, Output};
use crate::wire::{
    Frame, RouteAck, RouteChange, RouteChunk, RouteChunkAck, RouteHead, RouteOps, RouteResync,
};

/// Longest filter: an MQTT string.
const FILTER_BYTES_MAX: usize = verge_model::limits::MQTT_STRING_BYTES_MAX;

/// Beyond it a sequence is not believed: no node does so much in a life.
const SEQ_MAX: u64 = 1 << 48;

#[derive(Debug, Default)]
pub(crate) struct Replicas {
    /// The last operation known of each origin, in that origin's current life.
    heads: VClock<NodeKey>,
    origins: BTreeMap<NodeKey, Replica>,
}

#[derive(Debug, Default)]
struct Replica {
    /// The life the head counts in. Kept beside the clock: as part of the actor, every restart
    /// of every node would stay in every clock.
    incarnation: Incarnation,
    /// Filters and the sequences of their additions.
    routes: BTreeMap<Box<str>, u64>,
    staged: Option<Staged>,
    /// A resync is asked for and not answered yet.
    resyncing: bool,
}

/// A snapshot that is not complete.
#[derive(Debug)]
struct Staged {
    head: RouteHead,
    next: u64,
    routes: BTreeMap<Box<str>, u64>,
}

impl Replicas {
    /// Takes in an origin's routes as they were on disk, and reports them.
    pub(crate) fn restore(
        &mut self,
        origin: NodeKey,
        head: RouteHead,
        routes: Vec<(String, u64)>,
        fx: &mut Effects,
    ) {
        let added = routes.iter().map(|(filter, _)| filter.clone()).collect();
        let routes = routes.into_iter().map(|(filter, seq)| (filter.into(), seq)).collect();
        let replica = Replica { incarnation: head.incarnation, routes, ..Replica::default() };
        self.origins.insert(origin, replica);
        self.heads.apply(Dot::new(origin, head.seq));
        report(origin, added, Vec::new(), fx);
    }

    /// A link to the origin is up: what an earlier link began is void.
    pub(crate) fn peer_up(&mut self, origin: NodeKey) {
        if let Some(replica) = self.origins.get_mut(&origin) {
            replica.staged = None;
            replica.resyncing = false;
        }
    }

    /// What is known of an origin, to tell it.
    pub(crate) fn head(&self, origin: NodeKey) -> Option<RouteHead> {
        let replica = self.origins.get(&origin)?;
        Some(RouteHead { incarnation: replica.incarnation, seq: self.heads.get(&origin) })
    }

    /// What is known of every origin, by origin.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (NodeKey, RouteHead)> {
        self.origins.iter().map(|(origin, replica)| {
            let seq = self.heads.get(origin);
            (*origin, RouteHead { incarnation: replica.incarnation, seq })
        })
    }

    /// Applies operations that follow what is known; asks again for those that do not.
    ///
    /// # Errors
    /// The peer broke the protocol.
    pub(crate) fn handle_ops(
        &mut self,
        origin: NodeKey,
        ops: RouteOps,
        fx: &mut Effects,
    ) -> Result<(), String> {
        let known = self.head(origin);
        let replica = self.origins.entry(origin).or_default();
        if replica.resyncing {
            return Ok(());
        }
        let follows = known.is_some_and(|known| known.incarnation == ops.incarnation)
            && self.heads.validate_op(&Dot::new(origin, ops.first)).is_ok();
        if !follows || replica.staged.is_some() {
            replica.resyncing = true;
            replica.staged = None;
            fx.send(origin, Lane::Control, &Frame::RouteResync(RouteResync { head: known }));
            return Ok(());
        }
        for change in &ops.changes {
            match change {
                RouteChange::Add(filter) | RouteChange::Remove { filter, .. } => {
                    check_filter(filter)?;
                }
            }
        }
        if replica.routes.len() + ops.changes.len() > 2 * ROUTES_PER_ORIGIN_MAX {
            return Err(format!("it wants more than {ROUTES_PER_ORIGIN_MAX} filters"));
        }
        let mut changed: BTreeMap<Box<str>, Option<u64>> = BTreeMap::new();
        let before = self.heads.get(&origin);
        for (seq, change) in (ops.first..).zip(ops.changes).skip_while(|(seq, _)| *seq <= before) {
            let (filter, now) = match change {
                RouteChange::Add(filter) => (filter, Some(seq)),
                RouteChange::Remove { filter, added } => {
                    let held = changed.get(filter.as_str()).copied().flatten();
                    let held = held.or_else(|| replica.routes.get(filter.as_str()).copied());
                    if held.is_some_and(|held| held > added) {
                        // It takes back an addition that a later one has replaced.
                        self.heads.apply(Dot::new(origin, seq));
                        continue;
                    }
                    (filter, None)
                }
            };
            changed.insert(filter.into(), now);
            self.heads.apply(Dot::new(origin, seq));
        }
        let head = RouteHead { incarnation: ops.incarnation, seq: self.heads.get(&origin) };
        apply(origin, head, &mut replica.routes, changed, fx);
        Ok(())
    }

    /// Stages a chunk of a snapshot, and applies the snapshot when it is complete.
    ///
    /// # Errors
    /// The peer broke the protocol.
    pub(crate) fn handle_chunk(
        &mut self,
        origin: NodeKey,
        chunk: RouteChunk,
        fx: &mut Effects,
    ) -> Result<(), String> {
        if chunk.head.seq > SEQ_MAX {
            return Err("a snapshot's head is out of range".into());
        }
        let replica = self.origins.entry(origin).or_default();
        replica.resyncing = false;
        if chunk.index == 0 {
            replica.staged = Some(Staged { head: chunk.head, next: 0, routes: BTreeMap::new() });
        }
        let Some(staged) = &mut replica.staged else {
            return Err("a snapshot chunk belongs to no snapshot".into());
        };
        if staged.head != chunk.head || staged.next != chunk.index {
            return Err("a snapshot chunk does not follow the one before".into());
        }
        staged.next += 1;
        for (filter, added) in chunk.routes {
            check_filter(&filter)?;
            staged.routes.insert(filter.into(), added);
        }
        if staged.routes.len() > ROUTES_PER_ORIGIN_MAX {
            return Err(format!("it wants more than {ROUTES_PER_ORIGIN_MAX} filters"));
        }
        let ack = RouteChunkAck { head: chunk.head, index: chunk.index };
        fx.send(origin, Lane::Control, &Frame::RouteChunkAck(ack));
        if !chunk.last {
            return Ok(());
        }
        let Some(staged) = replica.staged.take() else { return Ok(()) };
        let mut changed: BTreeMap<Box<str>, Option<u64>> = BTreeMap::new();
        for filter in replica.routes.keys().filter(|filter| !staged.routes.contains_key(*filter)) {
            changed.insert(filter.clone(), None);
        }
        for (filter, added) in staged.routes {
            if replica.incarnation != staged.head.incarnation
                || replica.routes.get(&filter) != Some(&added)
            {
                changed.insert(filter, Some(added));
            }
        }
        replica.incarnation = staged.head.incarnation;
        self.heads.dots.remove(&origin);
        self.heads.apply(Dot::new(origin, staged.head.seq));
        apply(origin, staged.head, &mut replica.routes, changed, fx);
        Ok(())
    }

    /// Removes everything of an origin.
    pub(crate) fn forget(&mut self, origin: NodeKey, fx: &mut Effects) {
        self.heads.dots.remove(&origin);
        let Some(replica) = self.origins.remove(&origin) else { return };
        fx.batch.delete_routes_of(origin);
        fx.batch.delete_route_head(origin);
        let removed = replica.routes.into_keys().map(String::from).collect();
        report(origin, Vec::new(), removed, fx);
    }

    /// Every known route, by origin and filter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeKey, &str)> {
        self.origins
            .iter()
            .flat_map(|(origin, replica)| replica.routes.keys().map(|filter| (*origin, &**filter)))
    }

    /// How many routes an origin has.
    pub(crate) fn count(&self, origin: NodeKey) -> usize {
        self.origins.get(&origin).map_or(0, |replica| replica.routes.len())
    }
}

fn check_filter(filter: &str) -> Result<(), String> {
    if filter.is_empty() || filter.len() > FILTER_BYTES_MAX {
        return Err("a route's filter is empty or longer than an MQTT string".into());
    }
    Ok(())
}

/// Makes changes real: in memory, on disk, for the router, and acknowledged when durable.
fn apply(
    origin: NodeKey,
    head: RouteHead,
    routes: &mut BTreeMap<Box<str>, u64>,
    changed: BTreeMap<Box<str>, Option<u64>>,
    fx: &mut Effects,
) {
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for (filter, now) in changed {
        match now {
            Some(seq) => {
                let record = RouteRecord { incarnation: head.incarnation, seq };
                fx.batch.put_route(origin, &filter, record);
                if routes.insert(filter.clone(), seq).is_none() {
                    added.push(filter.into());
                }
            }
            None => {
                if routes.remove(&filter).is_some() {
                    fx.batch.delete_route(origin, &filter);
                    removed.push(filter.into());
                }
            }
        }
    }
    let record = RouteHeadRecord { incarnation: head.incarnation, seq: head.seq };
    fx.batch.put_route_head(origin, record);
    fx.send_committed(origin, Lane::Control, &Frame::RouteAck(RouteAck { head }));
    report(origin, added, removed, fx);
}

fn report(origin: NodeKey, added: Vec<String>, removed: Vec<String>, fx: &mut Effects) {
    if !added.is_empty() || !removed.is_empty() {
        fx.push(Output::RemoteRoutes { origin, added, removed });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::LinkState;
    use crate::output::LinkKind;

    const ORIGIN: NodeKey = NodeKey(5);

    fn linked() -> (Replicas, Effects) {
        let mut fx = Effects::default();
        fx.set_link(ORIGIN, LinkKind::Fast, LinkState::Established);
        (Replicas::default(), fx)
    }

    fn add(filter: &str) -> RouteChange {
        RouteChange::Add(filter.into())
    }

    fn remove(filter: &str, added: u64) -> RouteChange {
        RouteChange::Remove { filter: filter.into(), added }
    }

    fn ops(incarnation: Incarnation, first: u64, changes: Vec<RouteChange>) -> RouteOps {
        RouteOps { incarnation, first, changes }
    }

    fn chunk(head: RouteHead, index: u64, last: bool, routes: &[(&str, u64)]) -> RouteChunk {
        let routes = routes.iter().map(|(filter, seq)| ((*filter).to_owned(), *seq)).collect();
        RouteChunk { head, index, last, routes }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a transcript shows whatever comes")]
    fn transcript(fx: &mut Effects) -> Vec<String> {
        fx.flush();
        let mut lines = Vec::new();
        while let Some(output) = fx.poll() {
            lines.push(match output {
                Output::Persist { batch, ticket } => {
                    fx.committed(ticket);
                    format!("persist {}", batch.len())
                }
                Output::Send { frame, .. } => match Frame::decode(frame).unwrap().unwrap() {
                    Frame::RouteAck(ack) => {
                        format!("ack {}.{}", ack.head.incarnation, ack.head.seq)
                    }
                    Frame::RouteResync(resync) => {
                        format!("resync {:?}", resync.head.map(|h| h.seq))
                    }
                    Frame::RouteChunkAck(ack) => format!("chunk ack {}", ack.index),
                    other => format!("{other:?}"),
                },
                Output::RemoteRoutes { added, removed, .. } => format!("+{added:?} -{removed:?}"),
                other => format!("{other:?}"),
            });
        }
        lines
    }

    fn head(incarnation: Incarnation, seq: u64) -> RouteHead {
        RouteHead { incarnation, seq }
    }

    #[test]
    fn operations_that_follow_are_applied_and_acknowledged_when_durable() {
        let (mut replicas, mut fx) = linked();
        replicas.restore(ORIGIN, head(1, 2), vec![("a".into(), 1), ("b".into(), 2)], &mut fx);
        assert_eq!(transcript(&mut fx), [r#"+["a", "b"] -[]"#]);
        let changes = vec![add("b"), remove("a", 1), add("c"), remove("c", 4), add("d")];
        replicas.handle_ops(ORIGIN, ops(1, 2, changes), &mut fx).unwrap();
        assert_eq!(transcript(&mut fx), [r#"+["d"] -["a"]"#, "persist 3", "ack 1.6"]);
        replicas.handle_ops(ORIGIN, ops(1, 6, vec![add("d")]), &mut fx).unwrap();
        assert_eq!(transcript(&mut fx), ["persist 1", "ack 1.6"], "what is known changes nothing");
    }

    #[test]
    fn a_gap_is_asked_for_once_and_closed_by_a_snapshot() {
        let (mut replicas, mut fx) = linked();
        replicas.restore(ORIGIN, head(1, 2), vec![("a".into(), 1)], &mut fx);
        transcript(&mut fx);
        for first in [4, 5] {
            replicas.handle_ops(ORIGIN, ops(1, first, vec![add("x")]), &mut fx).unwrap();
        }
        assert_eq!(transcript(&mut fx), ["resync Some(2)"]);
        replicas.handle_chunk(ORIGIN, chunk(head(2, 9), 0, false, &[("b", 3)]), &mut fx).unwrap();
        assert_eq!(transcript(&mut fx), ["chunk ack 0"], "nothing is applied before the last part");
        replicas.handle_chunk(ORIGIN, chunk(head(2, 9), 1, true, &[("c", 11)]), &mut fx).unwrap();
        assert_eq!(
            transcript(&mut fx),
            ["chunk ack 1", r#"+["b", "c"] -["a"]"#, "persist 4", "ack 2.9"]
        );
        // Made while the origin changed: c was removed and added again after the snapshot's head.
        let changes = vec![remove("c", 4), add("c")];
        replicas.handle_ops(ORIGIN, ops(2, 10, changes), &mut fx).unwrap();
        assert_eq!(transcript(&mut fx), ["persist 2", "ack 2.11"]);
        assert_eq!(replicas.count(ORIGIN), 2);
    }

    #[test]
    fn security_what_breaks_the_protocol_changes_nothing() {
        let (mut replicas, mut fx) = linked();
        replicas.restore(ORIGIN, head(1, 0), Vec::new(), &mut fx);
        transcript(&mut fx);
        let long = "x".repeat(FILTER_BYTES_MAX + 1);
        let changes = vec![add("fine"), add(&long)];
        assert!(replicas.handle_ops(ORIGIN, ops(1, 1, changes), &mut fx).is_err());
        let stray = chunk(head(1, 1), 3, true, &[]);
        assert!(replicas.handle_chunk(ORIGIN, stray, &mut fx).is_err());
        let absurd = chunk(head(1, u64::MAX), 0, true, &[]);
        assert!(replicas.handle_chunk(ORIGIN, absurd, &mut fx).is_err());
        let last = ops(1, u64::MAX, vec![add("a"), add("b")]);
        assert!(replicas.handle_ops(ORIGIN, last, &mut fx).is_ok());
        assert_eq!(transcript(&mut fx), ["resync Some(0)"]);
        assert_eq!(replicas.head(ORIGIN), Some(head(1, 0)));
        assert_eq!(replicas.count(ORIGIN), 0);
    }
}

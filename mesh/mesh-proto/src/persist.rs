//! What a core begins with after a restart.

use std::collections::BTreeMap;

use bytes::Bytes;
use verge_model::{Class, ClientKey, NodeKey};
use verge_storage::key::{LinkInKey, RouteHeadKey, RouteKey};
use verge_storage::record::MemberRecord;
use verge_storage::{LogKey, StoreError, StoreRows};

use crate::forward::ForwardBounds;
use crate::wire::RouteHead;

/// The mesh's part of a node's disk. `Default`: a node's first start.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Known members.
    pub members: Vec<MemberRecord>,
    /// Routes of other origins.
    pub routes: Vec<RestoredRoutes>,
    /// Registry entries, encoded.
    pub registry: Vec<(ClientKey, Bytes)>,
    /// What was taken from other nodes' logs.
    pub links: Vec<RestoredLink>,
    /// This node's logs for others.
    pub forward: Vec<ForwardBounds>,
    /// Rows that could not be read.
    pub corrupt: usize,
}

/// An origin's routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredRoutes {
    /// The origin.
    pub origin: NodeKey,
    /// How far its operations are in.
    pub head: RouteHead,
    /// Its filters and the sequences of their additions.
    pub routes: Vec<(String, u64)>,
}

/// What was taken from one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoredLink {
    /// Whose log.
    pub origin: NodeKey,
    /// Which log of that node.
    pub log_id: u64,
    /// Its class.
    pub class: Class,
    /// The last sequence taken.
    pub last: u64,
}

impl Restored {
    /// Reads it from a store. Rows that are corrupt are passed over and counted in `corrupt`; what
    /// they spoke of is learnt from peers again.
    ///
    /// # Errors
    /// The store's, when it cannot be read at all.
    pub fn load(store: &impl StoreRows) -> Result<Self, StoreError> {
        let mut this = Self::default();
        let mut routes: BTreeMap<NodeKey, RestoredRoutes> = BTreeMap::new();
        for row in store.route_heads() {
            if let Some((RouteHeadKey(origin), record)) = this.readable(row)? {
                let head = RouteHead { incarnation: record.incarnation, seq: record.seq };
                routes.entry(origin).or_insert_with(|| RestoredRoutes::of(origin)).head = head;
            }
        }
        for row in store.routes() {
            if let Err(StoreError::Corrupt { key, .. }) = &row
                && let Some(origin) = key.first_chunk()
            {
                // A head that no origin has: the whole is asked for again.
                let origin = NodeKey(u64::from_be_bytes(*origin));
                routes.entry(origin).or_insert_with(|| RestoredRoutes::of(origin)).head =
                    RouteHead::default();
            }
            if let Some((RouteKey { origin, filter }, record)) = this.readable(row)? {
                let known = routes.entry(origin).or_insert_with(|| RestoredRoutes::of(origin));
                known.routes.push((filter.to_string(), record.seq));
            }
        }
        this.routes = routes.into_values().collect();
        for row in store.links_in() {
            if let Some((LinkInKey { origin, log_id, class }, record)) = this.readable(row)? {
                this.links.push(RestoredLink { origin, log_id, class, last: record.last });
            }
        }
        for row in store.members() {
            let member = this.readable(row)?.map(|(_, member)| member);
            this.members.extend(member);
        }
        for row in store.registry_all() {
            let entry = this.readable(row)?.map(|(key, entry)| (key.0, entry.body));
            this.registry.extend(entry);
        }
        for log in store.logs()? {
            match log {
                LogKey::Forward { peer, class } => {
                    this.forward.push(ForwardBounds { peer, class, rows: store.log_bounds(log)? });
                }
                LogKey::Outbox { .. } => {}
            }
        }
        Ok(this)
    }

    fn readable<T>(&mut self, row: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match row {
            Ok(row) => Ok(Some(row)),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, "passed over");
                self.corrupt += 1;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl RestoredRoutes {
    fn of(origin: NodeKey) -> Self {
        Self { origin, head: RouteHead::default(), routes: Vec::new() }
    }
}

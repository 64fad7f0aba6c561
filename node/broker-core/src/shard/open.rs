//! The session this node owns for a client.
//!
//! A session knows its client, whose names are long: here is only a hash of them, and the session's
//! number.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;
use verge_model::ClientKey;

use super::Shard;
use super::api::SessionNo;
use super::session::Session;
use crate::spread::{Numbers, Spread};

/// Sessions by their client.
#[derive(Debug, Default)]
pub(super) struct Open(Spread<(u64, SessionNo)>);

impl Open {
    /// The client's session, of which no other is open.
    pub(super) fn insert(&mut self, client: &ClientKey, no: SessionNo) {
        self.0.insert((hash(client), no), |(hash, _)| *hash);
    }

    /// The client's session is not this node's any more.
    pub(super) fn remove(&mut self, client: &ClientKey, no: SessionNo) {
        self.0.remove(hash(client), |(_, known)| *known == no);
    }

    /// The session of a client.
    pub(super) fn get(&self, client: &ClientKey, sessions: &Numbers<Session>) -> Option<SessionNo> {
        let wanted = hash(client);
        let is = |(hash, no): &(u64, SessionNo)| {
            *hash == wanted && sessions.get(no).is_some_and(|session| session.client == *client)
        };
        self.0.get(wanted, is).map(|(_, no)| *no)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in no order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = SessionNo> {
        self.0.iter().map(|(_, no)| *no)
    }
}

impl Shard {
    /// The session this node owns for a client, if any.
    pub(super) fn open_of(&self, client: &ClientKey) -> Option<SessionNo> {
        self.open.get(client, &self.sessions)
    }
}

fn hash(client: &ClientKey) -> u64 {
    FxBuildHasher.hash_one(client)
}

//! What the operator and the applications have in common: a client that stays with one node, and
//! whose publications are sent until they are accepted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use verge_mqtt_proto::{ProtocolVersion, ReasonCode};

use super::world::{World, count};
use crate::client::net::Connection;
use crate::client::{Address, ClientSession, Publication, SessionOptions, Ticket};

/// How long a client that cannot connect waits before the next attempt.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long sessions outlive their connections: longer than any run.
pub const SESSION_EXPIRY_SECS: u32 = 4 * 3600;

/// Publications of one client that no node has accepted yet.
const PUBLICATIONS_MAX: usize = 100_000;

/// The session of a client that comes back to it.
#[must_use]
pub fn persistent(client_id: &str, version: ProtocolVersion) -> ClientSession {
    ClientSession::new(SessionOptions {
        clean_start: false,
        session_expiry_secs: SESSION_EXPIRY_SECS,
        keep_alive_secs: 30,
        publications_max: PUBLICATIONS_MAX,
        ..SessionOptions::new(client_id, version)
    })
}

/// Tries to connect; none after a pause if that fails.
pub async fn connect<'s>(
    world: &World,
    address: &Address,
    session: &'s mut ClientSession,
) -> Option<Connection<'s>> {
    match Connection::connect(address, &world.connect, session).await {
        Ok(connection) => Some(connection),
        Err(error) => {
            tracing::debug!(%address, %error, "a client of the run cannot connect");
            count(&world.counts.connects_failed);
            sleep(AGAIN_AFTER).await;
            None
        }
    }
}

/// Whether somebody listens at an address.
pub async fn probe(address: &Address) -> bool {
    let connect = tokio::net::TcpStream::connect((address.host.as_str(), address.port));
    tokio::time::timeout(Duration::from_secs(2), connect).await.is_ok_and(|stream| stream.is_ok())
}

/// Publications that are not accepted yet.
#[derive(Debug, Default)]
pub struct Unaccepted {
    sent: BTreeMap<Ticket, Publication>,
    refused: VecDeque<Publication>,
}

impl Unaccepted {
    /// Publishes a message; one the session has no room for is kept for later.
    pub fn publish(&mut self, connection: &mut Connection<'_>, publication: Publication) {
        match connection.publish(publication.clone()) {
            Ok(ticket) => {
                self.sent.insert(ticket, publication);
            }
            Err(_) => self.refused.push_back(publication),
        }
    }

    /// Publishes again what was refused.
    pub fn publish_again(&mut self, connection: &mut Connection<'_>) {
        for publication in std::mem::take(&mut self.refused) {
            self.publish(connection, publication);
        }
    }

    /// The outcome of a publication; true if it was accepted.
    pub fn handle(&mut self, ticket: Ticket, reason: ReasonCode) -> bool {
        let publication = self.sent.remove(&ticket);
        if reason.is_error() {
            self.refused.extend(publication);
        }
        !reason.is_error()
    }

    /// Shows how many are not accepted.
    pub fn show(&self, counter: &AtomicU64, before: &mut u64) {
        let now = (self.sent.len() + self.refused.len()) as u64;
        if now >= *before {
            counter.fetch_add(now - *before, Ordering::Relaxed);
        } else {
            counter.fetch_sub(*before - now, Ordering::Relaxed);
        }
        *before = now;
    }
}

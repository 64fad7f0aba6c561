//! How two nodes meet: dialling, accepting, and the greeting that both send first.
//!
//! A greeting is the first stream of a side. It begins with [`GREETING_BYTES`] bytes: a fixed first
//! byte, the sender's process and the dialler's count of dials (0 from the side that was dialled),
//! both `u64` little endian. They are sent after the sender verified the receiver's certificate, so
//! who reads them knows that it was let in. What follows on the stream, once the link is up, is the
//! hello: one frame that the node's protocol wants read before any lane.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Incoming, ReadExactError, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use verge_model::NodeId;

use super::Shared;
use super::link::{self, Link};
use super::table::Admission;
use crate::close::{self, CloseCode};
use crate::config::HANDSHAKES_MAX;
use crate::election::Claim;
use crate::event::LinkEvent;
use crate::lanes::kind_name;
use crate::peer::{self, CertifiedNode, PeerCertError};
use crate::pki::MESH_NAME;
use crate::{LinkKind, socket, tls};

const GREETING_BYTES: usize = 17;
/// Differs from every lane's number.
const GREETING_FIRST: u8 = 0xf0;

/// The greeting's stream is more urgent than any lane.
const GREETING_PRIORITY: i32 = 4;

/// What is left of both sides' greetings: the streams for their hellos.
pub(super) struct Greeting {
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
}

/// A dial that gave a link, or found one.
pub(super) enum Met {
    /// This connection is the link.
    Linked,
    /// Another connection to this node is the link.
    Answered(NodeId),
}

/// A dial that gave no link.
pub(super) struct DialFailure {
    kind: LinkKind,
    node: Option<NodeId>,
    reason: String,
}

impl DialFailure {
    pub(super) fn event(self, addr: SocketAddr) -> LinkEvent {
        LinkEvent::DialFailed { addr, kind: self.kind, node: self.node, reason: self.reason }
    }
}

/// Why two nodes did not get as far as a link.
#[derive(Debug, thiserror::Error)]
enum MeetError {
    #[error("{}", close::explain(.0))]
    Connection(#[from] ConnectionError),
    #[error("{0}")]
    Peer(#[from] PeerCertError),
    #[error("the peer greeted wrongly")]
    Greeting,
    #[error("{0}")]
    WrongNode(String),
    #[error("node '{0}' has the same key; rename one of the two")]
    KeyTaken(NodeId),
    #[error("there are too many peers")]
    TooMany,
    #[error("this node shuts down")]
    Stopped,
    #[error("{0}")]
    Connect(#[from] quinn::ConnectError),
}

/// Dials a fast link and tells the outcome if it is none.
pub(super) async fn dial(shared: Arc<Shared>, addr: SocketAddr, expect: Option<NodeId>) {
    let mut stop = shared.stop.subscribe();
    let outcome = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(Met::Linked),
        outcome = connect(&shared, addr, LinkKind::Fast, expect.as_ref()) => outcome,
    };
    // Before the event, so that the node may dial again when it takes it.
    shared.table.lock().end_dial(addr);
    match outcome {
        Ok(Met::Linked) => {}
        Ok(Met::Answered(peer)) => shared.tell(LinkEvent::DialAnswered { peer, addr }).await,
        Err(failure) => shared.tell(failure.event(addr)).await,
    }
}

/// Makes a connection and admits it.
pub(super) async fn connect(
    shared: &Arc<Shared>,
    addr: SocketAddr,
    kind: LinkKind,
    expect: Option<&NodeId>,
) -> Result<Met, DialFailure> {
    shared.counters.dials.add(1);
    let mut node = expect.cloned();
    let limit = shared.config.timing.handshake;
    let reason = match timeout(limit, meet_dialled(shared, addr, kind, expect, &mut node)).await {
        Ok(Ok(met)) => return Ok(met),
        Ok(Err(MeetError::Connection(error))) if close::is_duplicate(&error) => {
            // The peer keeps another connection. It is about to be admitted here too, unless the
            // peer has not noticed yet that it is lost.
            if let Some(node) = &node
                && linked_within(shared, node, kind, limit).await
            {
                return Ok(Met::Answered(node.clone()));
            }
            "the peer still keeps an older connection".to_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} ms", limit.as_millis()),
    };
    shared.counters.dials_failed.add(1);
    tracing::debug!(%addr, kind = kind_name(kind), reason, "mesh dial failed");
    Err(DialFailure { kind, node, reason })
}

async fn linked_within(shared: &Shared, node: &NodeId, kind: LinkKind, limit: Duration) -> bool {
    let mut admissions = shared.admissions.subscribe();
    let linked = admissions.wait_for(|()| shared.table.lock().get_live(node.key(), kind).is_some());
    timeout(limit, linked).await.is_ok()
}

async fn meet_dialled(
    shared: &Arc<Shared>,
    addr: SocketAddr,
    kind: LinkKind,
    expect: Option<&NodeId>,
    found: &mut Option<NodeId>,
) -> Result<Met, MeetError> {
    if shared.config.dev && !addr.ip().is_loopback() {
        let text = "with mesh.dev=true only loopback addresses are dialled";
        return Err(MeetError::WrongNode(text.to_owned()));
    }
    let config = shared.client_config(kind);
    let conn = shared.endpoint.connect_with(config, addr, MESH_NAME)?.await?;
    let peer = certified(&conn)?;
    *found = Some(peer.node.clone());
    if let Some(expect) = expect
        && *expect != peer.node
    {
        let text = format!("node '{expect}' was expected there, node '{}' answers", peer.node);
        conn.close(CloseCode::WrongNode.varint(), text.as_bytes());
        return Err(MeetError::WrongNode(text));
    }
    let dial_no = shared.table.lock().next_dial_no();
    let (greeting, instance, _) = greet(&conn, shared.instance, dial_no).await?;
    refuse_self(shared, &conn, &peer.node, instance)?;
    let claim = Claim { instance, dialled: true, dial_no };
    admit(shared, conn, greeting, kind, peer, claim)
}

/// Accepts connections until the endpoint is closed.
pub(super) async fn accept_all(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = shared.endpoint.accept().await {
        let from = socket::canonical(incoming.remote_address());
        if *shared.stop.borrow() || (shared.config.dev && !from.ip().is_loopback()) {
            shared.counters.refused.add(1);
            incoming.refuse();
            continue;
        }
        let crowded = handshakes.available_permits() < HANDSHAKES_MAX / 2;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            // `may_retry` was asked, so this does not fail.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            shared.counters.refused.add(1);
            incoming.refuse();
            continue;
        };
        let task = Arc::clone(&shared);
        shared.runtime.spawn(async move {
            let _permit = permit;
            accept(&task, incoming, from).await;
        });
    }
}

async fn accept(shared: &Arc<Shared>, incoming: Incoming, from: SocketAddr) {
    let limit = shared.config.timing.handshake;
    let reason = match timeout(limit, meet_accepted(shared, incoming)).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("not done within {} ms", limit.as_millis()),
    };
    shared.counters.refused.add(1);
    tracing::info!(%from, reason, "mesh connection refused");
}

async fn meet_accepted(shared: &Arc<Shared>, incoming: Incoming) -> Result<Met, MeetError> {
    let conn = incoming.accept()?.await?;
    let peer = certified(&conn)?;
    let kind = kind_of(&conn).ok_or(MeetError::Greeting)?;
    let (greeting, instance, dial_no) = greet(&conn, shared.instance, 0).await?;
    if peer.node == *shared.own_id() {
        // The dialling side tells the node why, so it is the one to close.
        conn.closed().await;
        return Err(MeetError::WrongNode("it presents this node's own id".to_owned()));
    }
    let claim = Claim { instance, dialled: false, dial_no };
    admit(shared, conn, greeting, kind, peer, claim)
}

fn certified(conn: &Connection) -> Result<CertifiedNode, PeerCertError> {
    let chain = conn.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
    let peer = chain.ok_or(PeerCertError::Unreadable).and_then(|chain| peer::node_of(&chain));
    if let Err(error) = &peer {
        conn.close(CloseCode::WrongNode.varint(), error.to_string().as_bytes());
    }
    peer
}

fn kind_of(conn: &Connection) -> Option<LinkKind> {
    let data = conn.handshake_data()?.downcast::<HandshakeData>().ok()?;
    tls::kind_of_alpn(&data.protocol?)
}

/// Sends this side's process and count of dials, and takes the peer's.
async fn greet(
    conn: &Connection,
    instance: u64,
    dial_no: u64,
) -> Result<(Greeting, u64, u64), MeetError> {
    let mut own = [GREETING_FIRST; GREETING_BYTES];
    own[1..9].copy_from_slice(&instance.to_le_bytes());
    own[9..].copy_from_slice(&dial_no.to_le_bytes());
    let mut send = conn.open_uni().await?;
    let lost = || MeetError::from(conn.close_reason().unwrap_or(ConnectionError::LocallyClosed));
    send.set_priority(GREETING_PRIORITY).map_err(|_| lost())?;
    send.write_all(&own).await.map_err(|_| lost())?;

    let mut receive = conn.accept_uni().await?;
    let mut theirs = [0; GREETING_BYTES];
    match receive.read_exact(&mut theirs).await {
        Ok(()) => {}
        Err(ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error))) => {
            return Err(error.into());
        }
        Err(ReadExactError::FinishedEarly(_) | ReadExactError::ReadError(_)) => {
            return Err(misgreeted(conn));
        }
    }
    let [first, i0, i1, i2, i3, i4, i5, i6, i7, dial @ ..] = theirs;
    if first != GREETING_FIRST {
        return Err(misgreeted(conn));
    }
    let instance = u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
    Ok((Greeting { send, receive }, instance, u64::from_le_bytes(dial)))
}

fn misgreeted(conn: &Connection) -> MeetError {
    conn.close(CloseCode::Protocol.varint(), b"wrong greeting");
    MeetError::Greeting
}

fn refuse_self(
    shared: &Shared,
    conn: &Connection,
    peer: &NodeId,
    instance: u64,
) -> Result<(), MeetError> {
    if peer != shared.own_id() {
        return Ok(());
    }
    let text = if instance == shared.instance {
        "this address is this node itself".to_owned()
    } else {
        format!("another process there is node '{peer}' too; give each node an id of its own")
    };
    conn.close(CloseCode::WrongNode.varint(), text.as_bytes());
    Err(MeetError::WrongNode(text))
}

/// Makes a connection the link of its pair and kind, unless the present one stays.
fn admit(
    shared: &Arc<Shared>,
    conn: Connection,
    greeting: Greeting,
    kind: LinkKind,
    peer: CertifiedNode,
    claim: Claim,
) -> Result<Met, MeetError> {
    let not_after = peer.not_after.min(shared.config.identity.not_after);
    let lane_bytes = shared.config.queues.lane_bytes(kind);
    let link = Arc::new(Link::new(conn, kind, peer.node, claim, not_after, lane_bytes));
    let refused = |code, error: MeetError| {
        link.close(code, &error.to_string());
        Err(error)
    };
    let admission = {
        let mut table = shared.table.lock();
        // Under the table's lock, so that a shutdown sees every link that was admitted.
        if *shared.stop.borrow() {
            return refused(CloseCode::Shutdown, MeetError::Stopped);
        }
        let admission = table.admit(shared.own_id(), &link);
        if let Admission::Admitted { before } = &admission {
            link::spawn(shared, Arc::clone(&link), greeting, before.clone());
        }
        admission
    };
    match admission {
        Admission::Admitted { .. } => {
            shared.admissions.send_replace(());
            Ok(Met::Linked)
        }
        Admission::Duplicate => {
            link.close(CloseCode::Duplicate, "another connection of this pair stays");
            Ok(Met::Answered(link.node.clone()))
        }
        Admission::KeyTaken(other) => refused(CloseCode::WrongNode, MeetError::KeyTaken(other)),
        Admission::TooMany => refused(CloseCode::WrongNode, MeetError::TooMany),
    }
}

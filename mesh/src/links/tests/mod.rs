//! Links over real sockets on loopback. Time limits here only turn a hang into a failure.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the events it expects; any other fails it"
)]

mod bounds;
mod ends;
mod exchange;
mod trust;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::timeout;
use verge_model::{NodeId, NodeKey};

use super::{LinkEvents, Links};
use crate::config::LinksConfig;
use crate::event::LinkEvent;
use crate::identity::{IdentityFiles, MeshIdentity};
use crate::pki::{self, Validity};
use crate::{Lane, LinkKind};

const HANG: Duration = Duration::from_secs(60);
const LANES: [Lane; 4] = [Lane::Safety, Lane::Control, Lane::Telemetry, Lane::Bulk];
const KINDS: [LinkKind; 2] = [LinkKind::Fast, LinkKind::Bulk];

/// An authority and what it issued.
struct Authority {
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        pki::init_ca(&dir.path().join("ca")).unwrap();
        Self { dir }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca")
    }

    fn files(&self, name: &str) -> IdentityFiles {
        let out = self.dir.path().join("nodes");
        let cert = out.join(format!("{name}.pem"));
        if !cert.exists() {
            pki::issue_node(&self.ca(), &node(name), Validity::default(), &out).unwrap();
        }
        let key = out.join(format!("{name}.key"));
        IdentityFiles { cert, key, ca: out.join("ca.pem"), crl: Some(self.ca().join("crl.pem")) }
    }

    fn config(&self, name: &str) -> LinksConfig {
        let identity = MeshIdentity::load(&node(name), &self.files(name)).unwrap();
        LinksConfig::new(loopback(), identity)
    }

    fn node(&self, name: &str) -> Node {
        Node::bind(self.config(name))
    }
}

/// A node's links, and the test's place in their events.
struct Node {
    links: Links,
    events: LinkEvents,
}

impl Node {
    fn bind(config: LinksConfig) -> Self {
        let (links, events) = Links::bind(config).unwrap();
        Self { links, events }
    }

    fn addr(&self) -> SocketAddr {
        self.links.local_addr()
    }

    async fn next(&mut self) -> LinkEvent {
        timeout(HANG, self.events.recv()).await.expect("an event comes").unwrap()
    }

    /// Takes `Up` of both links of a peer, says hello on them and takes the peer's.
    async fn linked(&mut self, peer: &str) {
        let mut steps = BTreeMap::from(KINDS.map(|kind| (kind, 0)));
        while steps.values().any(|step| *step < 2) {
            match self.next().await {
                LinkEvent::Up { peer: who, kind, .. } if who.as_str() == peer => {
                    assert_eq!(steps.insert(kind, 1), Some(0));
                    self.links.hello(key(peer), kind, said(kind)).unwrap();
                }
                LinkEvent::Hello { peer: who, kind, bytes } if who.as_str() == peer => {
                    assert_eq!((steps.insert(kind, 2), bytes), (Some(1), said(kind)));
                }
                other => panic!("both links of {peer} were expected, not {other:?}"),
            }
        }
    }

    /// Takes `Down` of both links of a peer; gives the reasons.
    async fn unlinked(&mut self, peer: &str) -> Vec<String> {
        let mut reasons = Vec::new();
        while reasons.len() < KINDS.len() {
            match self.next().await {
                LinkEvent::Down { peer: who, reason, .. } if who.as_str() == peer => {
                    reasons.push(reason);
                }
                other => panic!("both links of {peer} were expected to end, not {other:?}"),
            }
        }
        reasons
    }

    async fn dial_failure(&mut self) -> (Option<NodeId>, String) {
        match self.next().await {
            LinkEvent::DialFailed { node, reason, .. } => (node, reason),
            other => panic!("a failed dial was expected, not {other:?}"),
        }
    }

    /// Takes the next frame of any lane.
    async fn frame(&mut self) -> (NodeKey, Lane, Bytes) {
        match self.next().await {
            LinkEvent::Frame { peer, lane, bytes } => (peer, lane, bytes),
            other => panic!("a frame was expected, not {other:?}"),
        }
    }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn key(name: &str) -> NodeKey {
    node(name).key()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn said(kind: LinkKind) -> Bytes {
    Bytes::from(format!("hello on {kind:?}"))
}

fn numbered(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// Two nodes with both links.
async fn pair(authority: &Authority) -> (Node, Node) {
    link(authority.node("a"), authority.node("b")).await
}

async fn link(mut a: Node, mut b: Node) -> (Node, Node) {
    assert!(a.links.dial(b.addr(), Some(node("b"))));
    tokio::join!(a.linked("b"), b.linked("a"));
    (a, b)
}

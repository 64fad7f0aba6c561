//! One core, greeted by hand.

use bytes::Bytes;
use verge_model::{Millis, NodeId, Now, Role, UnixMillis};

use crate::wire::{Frame, Hello};
use crate::{
    Lane, LinkKind, MeshConfig, MeshCore, NodeInfo, Output, Restored, RouteHead, WIRE_VERSION,
};

const NOW: Now = Now { mono: Millis(1_000), wall: UnixMillis(1_000) };

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn config(name: &str) -> MeshConfig {
    MeshConfig {
        node_id: id(name),
        role: Role::Rsu,
        region: "north".into(),
        advertise: "10.0.0.1:14600".parse().unwrap(),
        position: None,
        listeners: Vec::new(),
        admin: None,
        incarnation: 3,
        log_id: 7,
        dials_only: false,
        join: Vec::new(),
        lookup_timeout: MeshConfig::LOOKUP_TIMEOUT,
    }
}

fn core() -> MeshCore {
    MeshCore::new(config("own"), Restored::default(), NOW, 1)
}

fn hello(name: &str) -> Hello {
    let info = NodeInfo { mesh_addr: "10.0.0.2:14600".parse().unwrap(), ..config(name).info() };
    Hello { version: WIRE_VERSION, info, routes: None, received: Vec::new(), known_incarnation: 0 }
}

fn greet(core: &mut MeshCore, kind: LinkKind, hello: Hello) -> Vec<String> {
    let peer = hello.info.node_id.clone();
    greet_as(core, &peer, kind, hello)
}

fn greet_as(core: &mut MeshCore, peer: &NodeId, kind: LinkKind, hello: Hello) -> Vec<String> {
    core.handle_link_up(peer, kind, hello.info.mesh_addr, NOW);
    core.handle_hello(peer, kind, Frame::Hello(hello).encode(), NOW);
    transcript(core)
}

/// Refusals, closes and what else an operator would hear; frames by their kind byte.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not named is not of interest here")]
fn transcript(core: &mut MeshCore) -> Vec<String> {
    std::iter::from_fn(|| core.poll_output())
        .filter_map(|output| match output {
            Output::Refused { peer, kind, reason } => {
                Some(format!("refused {peer} {kind:?}: {reason}"))
            }
            Output::Close { reason, .. } => Some(format!("closed: {reason}")),
            Output::DiskBehind { incarnation, .. } => Some(format!("disk behind {incarnation}")),
            Output::Send { frame, .. } => Some(format!("frame {}", frame[0])),
            _ => None,
        })
        .collect()
}

#[test]
fn who_may_not_be_talked_to_is_told_why() {
    let own_name = greet(&mut core(), LinkKind::Fast, hello("own"));
    assert_eq!(
        own_name,
        ["refused own Fast: the address leads back here, or another node has this node's name"]
    );

    let version = Hello { version: 9, ..hello("b") };
    assert_eq!(
        greet(&mut core(), LinkKind::Fast, version),
        ["refused b Fast: it speaks mesh version 9, this node speaks 1"]
    );

    assert_eq!(
        greet_as(&mut core(), &id("c"), LinkKind::Bulk, hello("b")),
        ["refused c Bulk: its certificate names 'c', but it calls itself 'b'"]
    );

    let absurd = Hello { known_incarnation: u32::MAX, ..hello("b") };
    assert_eq!(
        greet(&mut core(), LinkKind::Fast, absurd),
        ["refused b Fast: it speaks of life 4294967295 of this node, whose life 3 this is"]
    );
}

#[test]
fn both_links_of_a_pair_lead_to_one_life_of_the_peer() {
    let mut core = core();
    let life = |incarnation| {
        let mut hello = hello("b");
        hello.info.incarnation = incarnation;
        hello
    };
    assert_eq!(
        greet(&mut core, LinkKind::Fast, life(2)),
        ["frame 12", "frame 3"],
        "digests, and a snapshot of no routes"
    );
    assert_eq!(
        greet(&mut core, LinkKind::Bulk, life(1)),
        ["refused b Bulk: it greets as an earlier life of a linked node"]
    );
    assert_eq!(
        greet(&mut core, LinkKind::Bulk, life(3)),
        ["refused b Fast: the node began another life"]
    );
    assert!(!core.is_linked(id("b").key(), LinkKind::Fast));
    assert!(core.is_linked(id("b").key(), LinkKind::Bulk));
}

#[test]
fn security_nothing_is_taken_before_the_greeting_and_nothing_twice() {
    let mut core = core();
    let (peer, key) = (id("b"), id("b").key());
    let handover = Frame::Handover(Bytes::from_static(b"takeover")).encode();
    core.handle_frame(key, Lane::Control, handover.clone(), NOW);
    core.handle_link_up(&peer, LinkKind::Fast, "10.0.0.2:14600".parse().unwrap(), NOW);
    core.handle_frame(key, Lane::Control, handover.clone(), NOW);
    core.handle_datagram(key, b"packet", NOW);
    assert_eq!(transcript(&mut core), [""; 0]);
    assert_eq!(core.counters().frames_stray, 3);

    core.handle_hello(&peer, LinkKind::Fast, handover, NOW);
    assert_eq!(transcript(&mut core), ["closed: its first frame is no greeting"]);
    assert_eq!(
        greet(&mut core, LinkKind::Fast, hello("b")),
        ["closed: it broke the protocol a short while ago"]
    );
}

#[test]
fn a_later_life_that_peers_know_is_reported() {
    let behind = Hello {
        known_incarnation: 8,
        routes: Some(RouteHead { incarnation: 8, seq: 40 }),
        ..hello("b")
    };
    assert_eq!(
        greet(&mut core(), LinkKind::Fast, behind),
        ["disk behind 8", "frame 12", "frame 3"]
    );
}

#[test]
fn nodes_of_other_regions_and_the_cloud_get_no_routes_and_may_not_send_any() {
    for (region, role) in [("south", Role::Rsu), ("north", Role::Cloud)] {
        let mut core = core();
        core.add_route("cam/#");
        let mut other = hello("b");
        other.info.region = region.into();
        other.info.role = role;
        assert_eq!(greet(&mut core, LinkKind::Fast, other), [""; 0], "{region}");
        let chunk = crate::wire::RouteChunk {
            head: RouteHead::default(),
            index: 0,
            last: true,
            routes: vec![("#".into(), 1)],
        };
        let frame = Frame::RouteChunk(chunk).encode();
        core.handle_frame(id("b").key(), Lane::Control, frame, NOW);
        assert_eq!(
            transcript(&mut core),
            ["closed: it speaks of sessions, which this node does not share with it"]
        );
        assert_eq!(core.remote_routes().count(), 0);
    }
}

//! What is sent arrives, in order, on one link per kind.

use std::collections::BTreeSet;

use super::*;

/// Sends numbered frames on all lanes and datagrams; the receiver must see each lane in order.
async fn exchange(from: &Node, from_id: &str, to: &mut Node, to_id: &str) {
    const FRAMES: u32 = 300;
    for n in 0..FRAMES {
        for lane in LANES {
            from.links.send(key(to_id), lane, numbered(n)).unwrap();
        }
    }
    let mut next = BTreeMap::new();
    for _ in 0..FRAMES * 4 {
        let (peer, lane, bytes) = to.frame().await;
        assert_eq!(peer, key(from_id));
        let wanted = next.entry(lane).or_insert(0);
        assert_eq!(bytes, numbered(*wanted), "{lane:?}");
        *wanted += 1;
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), [FRAMES; 4]);
}

async fn exchange_datagram(from: &Node, from_id: &str, to: &mut Node, to_id: &str) {
    // A membership packet fits the smallest path.
    let bytes = Bytes::from(vec![7; 1100]);
    from.links.datagram(key(to_id), bytes.clone()).unwrap();
    assert_eq!(to.next().await, LinkEvent::Datagram { peer: key(from_id), bytes });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_exchange_on_all_lanes_in_order_both_ways() {
    let authority = Authority::new();
    let (mut a, mut b) = pair(&authority).await;
    exchange(&a, "a", &mut b, "b").await;
    exchange(&b, "b", &mut a, "a").await;
    exchange_datagram(&a, "a", &mut b, "b").await;
    exchange_datagram(&b, "b", &mut a, "a").await;
    assert!(a.links.rtt(key("b")).is_some());
    let stats = b.links.stats();
    assert_eq!((stats.ups, stats.frames_received, stats.datagrams_received), (2, 1200, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_exchange_pairwise() {
    let authority = Authority::new();
    let (mut a, mut b) = pair(&authority).await;
    let mut c = authority.node("c");
    for (other, id) in [(&mut a, "a"), (&mut b, "b")] {
        c.links.dial(other.addr(), None);
        tokio::join!(c.linked(id), other.linked("c"));
    }
    exchange(&a, "a", &mut b, "b").await;
    exchange(&b, "b", &mut c, "c").await;
    exchange(&c, "c", &mut a, "a").await;
    let peers: Vec<_> = c.links.links().into_iter().map(|link| link.peer).collect();
    assert_eq!(peers.len(), 4, "{peers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_frames_arrive_whole() {
    let authority = Authority::new();
    let (a, mut b) = pair(&authority).await;
    let frame: Bytes = (0..4 << 20).map(|n: u32| (n % 251) as u8).collect();
    for lane in LANES {
        a.links.send(key("b"), lane, frame.clone()).unwrap();
    }
    let mut lanes = Vec::new();
    for _ in LANES {
        let (_, lane, bytes) = b.frame().await;
        assert!(bytes == frame, "{lane:?}");
        lanes.push(lane);
    }
    lanes.sort();
    assert_eq!(lanes, LANES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_each_other_at_once_gives_one_link_per_kind() {
    let authority = Authority::new();
    for round in 0..6 {
        let (mut a, mut b) = (authority.node("a"), authority.node("b"));
        let (first, second) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        for (from, to) in [(first, second), (second, first)] {
            // Past the check for a link that is there already, as if both looked at one moment.
            let shared = std::sync::Arc::clone(&from.links.shared);
            tokio::spawn(crate::links::greeting::dial(shared, to.addr(), None));
        }
        // The fast link that stays was dialled by the smaller id; bulk links follow it.
        let (mut at_a, mut at_b) = (Settling::default(), Settling::default());
        while !settled(&a, &b, &at_a, &at_b) {
            tokio::select! {
                event = a.next() => at_a.handle(&a.links, "b", event),
                event = b.next() => at_b.handle(&b.links, "a", event),
            }
        }
        exchange_fast(&a, "a", &mut b, "b").await;
        exchange_fast(&b, "b", &mut a, "a").await;
        a.links.shutdown().await;
        b.links.shutdown().await;
    }
}

/// As [`exchange`] on one lane of the fast link. The two bulk dials may still be deciding which of
/// them stays.
async fn exchange_fast(from: &Node, from_id: &str, to: &mut Node, to_id: &str) {
    const FRAMES: u32 = 100;
    for n in 0..FRAMES {
        from.links.send(key(to_id), Lane::Control, numbered(n)).unwrap();
    }
    let mut next = 0;
    while next < FRAMES {
        match to.next().await {
            LinkEvent::Frame { peer, lane: Lane::Control, bytes } => {
                assert_eq!((peer, bytes), (key(from_id), numbered(next)));
                next += 1;
            }
            LinkEvent::DialAnswered { .. }
            | LinkEvent::Up { kind: LinkKind::Bulk, .. }
            | LinkEvent::Hello { kind: LinkKind::Bulk, .. }
            | LinkEvent::Down { kind: LinkKind::Bulk, .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// Checks that `Up` and `Down` of a kind alternate.
#[derive(Default)]
struct Settling {
    up: BTreeMap<LinkKind, bool>,
    greeted: BTreeSet<LinkKind>,
}

impl Settling {
    fn handle(&mut self, links: &Links, peer: &str, event: LinkEvent) {
        match event {
            LinkEvent::Up { kind, dialled, .. } => {
                // It may have been replaced since.
                let _ = links.hello(key(peer), kind, said(kind));
                assert_eq!(self.up.insert(kind, dialled), None, "{kind:?} came up twice");
            }
            LinkEvent::Down { kind, .. } => {
                assert!(self.up.remove(&kind).is_some(), "{kind:?} went down twice");
                self.greeted.remove(&kind);
            }
            LinkEvent::DialAnswered { peer: who, .. } => assert_eq!(who.as_str(), peer),
            LinkEvent::Hello { kind, .. } => {
                assert!(self.up.contains_key(&kind) && self.greeted.insert(kind), "{kind:?}");
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn settled(a: &Node, b: &Node, at_a: &Settling, at_b: &Settling) -> bool {
    let of = |node: &Node| -> BTreeMap<LinkKind, bool> {
        node.links.links().into_iter().map(|link| (link.kind, link.dialled)).collect()
    };
    let mirrored: BTreeMap<_, _> = of(b).into_iter().map(|(k, dialled)| (k, !dialled)).collect();
    of(a) == mirrored
        && of(a) == at_a.up
        && of(b) == at_b.up
        && at_a.greeted.len() + at_b.greeted.len() == 2 * KINDS.len()
        && at_a.up.get(&LinkKind::Fast) == Some(&true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_not_dialled_twice() {
    let authority = Authority::new();
    let (mut a, mut b) = (authority.node("a"), authority.node("b"));
    assert!(a.links.dial(b.addr(), None));
    assert!(!a.links.dial(b.addr(), None), "a dial is under way");
    tokio::join!(a.linked("b"), b.linked("a"));
    assert!(!a.links.dial(b.addr(), None), "there is a link");
    assert!(!b.links.dial(a.addr(), None), "there is a link, whoever dialled it");
    assert_eq!(a.links.stats().dials, 2, "fast and bulk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linked_node_found_behind_another_address_is_told_and_its_link_stays() {
    let authority = Authority::new();
    let (mut a, mut b) = pair(&authority).await;
    // "a" dialled and has the smaller id, so what "b" dials loses.
    let shared = std::sync::Arc::clone(&b.links.shared);
    tokio::spawn(crate::links::greeting::dial(shared, a.addr(), None));
    let answered = LinkEvent::DialAnswered { peer: node("a"), addr: a.addr() };
    assert_eq!(b.next().await, answered);
    exchange(&a, "a", &mut b, "b").await;
    exchange(&b, "b", &mut a, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_bulk_link_comes_back_while_the_fast_one_stands() {
    let authority = Authority::new();
    let (mut a, mut b) = pair(&authority).await;
    let bulk = b.links.shared.table.lock().get(key("a"), LinkKind::Bulk).unwrap();
    bulk.close(crate::close::CloseCode::Asked, "test");
    for (node, peer) in [(&mut a, "b"), (&mut b, "a")] {
        let down = node.next().await;
        assert!(matches!(down, LinkEvent::Down { kind: LinkKind::Bulk, .. }), "{down:?}");
        let up = node.next().await;
        assert!(matches!(up, LinkEvent::Up { kind: LinkKind::Bulk, .. }), "{up:?}");
        node.links.hello(key(peer), LinkKind::Bulk, said(LinkKind::Bulk)).unwrap();
    }
    for node in [&mut a, &mut b] {
        let hello = node.next().await;
        assert!(matches!(hello, LinkEvent::Hello { kind: LinkKind::Bulk, .. }), "{hello:?}");
    }
    exchange(&a, "a", &mut b, "b").await;
}

//! How links end: closed, killed, shut down, restarted, expired.

use tokio::runtime::Runtime;

use super::*;
use crate::event::SendError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_tells_both_sides_why() {
    let authority = Authority::new();
    let (mut a, mut b) = pair(&authority).await;
    a.links.close(key("b"), "left the region");
    assert_eq!(a.unlinked("b").await, ["left the region"; 2]);
    assert_eq!(b.unlinked("a").await, ["closed by the peer: left the region"; 2]);
    assert_eq!(a.links.send(key("b"), Lane::Safety, numbered(1)), Err(SendError::NoLink));
    assert!(a.links.links().is_empty() && b.links.links().is_empty());
    // And the pair can be linked again.
    assert!(b.links.dial(a.addr(), Some(node("a"))));
    tokio::join!(a.linked("b"), b.linked("a"));
}

#[test]
fn a_killed_peer_is_noticed_by_silence() {
    let authority = Authority::new();
    let (ours, theirs) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let mut config = authority.config("a");
    config.timing.idle = Duration::from_secs(2);
    config.timing.keep_alive = Duration::from_millis(500);
    let a = {
        let _guard = ours.enter();
        Node::bind(config)
    };
    let b = {
        let _guard = theirs.enter();
        authority.node("b")
    };
    let (mut a, b) = ours.block_on(link(a, b));
    // Ends the tasks and closes the socket without a word, as SIGKILL does.
    theirs.shutdown_background();
    assert_eq!(ours.block_on(a.unlinked("b")), ["no answer"; 2]);
    drop(b);
}

#[test]
fn a_restarted_peer_replaces_its_former_self_at_once() {
    let authority = Authority::new();
    let (ours, theirs) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let mut config = authority.config("a");
    // Silence will not be what ends the old link.
    config.timing.idle = Duration::from_secs(3600);
    let a = {
        let _guard = ours.enter();
        Node::bind(config.clone())
    };
    let mut config = authority.config("b");
    config.timing.idle = Duration::from_secs(3600);
    let b = {
        let _guard = theirs.enter();
        Node::bind(config.clone())
    };
    let (mut a, old) = ours.block_on(link(a, b));
    theirs.shutdown_background();
    drop(old);

    // "a" dialled the old link and has the smaller id, and still the newcomer wins.
    ours.block_on(async {
        let mut b = Node::bind(config);
        assert!(b.links.dial(a.addr(), None));
        let survivor = async {
            let mut stages = BTreeMap::from(KINDS.map(|kind| (kind, 0)));
            while stages.values().any(|stage| *stage < 3) {
                let (kind, stage) = match a.next().await {
                    LinkEvent::Down { kind, .. } => (kind, 1),
                    LinkEvent::Up { kind, .. } => {
                        a.links.hello(key("b"), kind, said(kind)).unwrap();
                        (kind, 2)
                    }
                    LinkEvent::Hello { kind, .. } => (kind, 3),
                    other => panic!("unexpected {other:?}"),
                };
                assert_eq!(stages.insert(kind, stage), Some(stage - 1), "Down, Up, Hello");
            }
        };
        tokio::join!(survivor, b.linked("a"));
        a.links.send(key("b"), Lane::Control, numbered(5)).unwrap();
        assert_eq!(b.frame().await, (key("a"), Lane::Control, numbered(5)));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_hands_over_what_is_queued() {
    const FRAMES: u32 = 2000;
    let authority = Authority::new();
    let (mut a, mut b) = pair(&authority).await;
    for n in 0..FRAMES {
        a.links.send(key("b"), Lane::Control, numbered(n)).unwrap();
        a.links.send(key("b"), Lane::Bulk, numbered(n)).unwrap();
    }
    let links = a.links.clone();
    let closing = tokio::spawn(async move { links.shutdown().await });
    let (mut control, mut bulk) = (0, 0);
    while control + bulk < 2 * FRAMES {
        let next = match b.next().await {
            LinkEvent::Frame { lane: Lane::Control, bytes, .. } => (&mut control, bytes),
            LinkEvent::Frame { lane: Lane::Bulk, bytes, .. } => (&mut bulk, bytes),
            // The lane that is handed over first may close its link first.
            LinkEvent::Down { .. } => continue,
            other => panic!("unexpected {other:?}"),
        };
        assert_eq!(next.1, numbered(*next.0));
        *next.0 += 1;
    }
    closing.await.unwrap();
    assert!(!a.links.dial(b.addr(), None), "nothing is dialled after a shutdown");
    let told = a.unlinked("b").await;
    assert_eq!(told, ["this node shuts down"; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_closes_its_links() {
    let authority = Authority::new();
    let mut config = authority.config("a");
    config.identity.not_after = crate::clock::now().unix_timestamp() + 1;
    let (mut a, mut b) = (Node::bind(config), authority.node("b"));
    // The bulk link may or may not be made in that second.
    assert!(a.links.dial(b.addr(), None));
    loop {
        if let LinkEvent::Down { reason, kind: LinkKind::Fast, .. } = a.next().await {
            assert_eq!(reason, "a certificate of this link has expired");
            break;
        }
    }
    // On a slow machine the second may be over before "b" has a link.
    while b.links.stats().refused == 0 {
        match b.events.try_recv() {
            Some(LinkEvent::Down { reason, kind: LinkKind::Fast, .. }) => {
                assert!(reason.ends_with("a certificate of this link has expired"), "{reason}");
                break;
            }
            _ => tokio::task::yield_now().await,
        }
    }
}

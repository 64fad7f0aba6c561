//! Nothing grows without a bound, and a peer that breaks the rules is cut off.

use super::*;
use crate::close::CloseCode;
use crate::config::FRAME_BYTES_MAX;
use crate::event::{DatagramError, SendError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_faster_than_its_receiver_is_stopped_and_nothing_is_lost() {
    const LANE_BYTES: usize = 256 << 10;
    let authority = Authority::new();
    let mut config = authority.config("a");
    config.queues.fast_lane_bytes = LANE_BYTES;
    let a = Node::bind(config);
    let mut config = authority.config("b");
    config.queues.events = 8;
    config.windows.fast_lane_bytes = 128 << 10;
    config.windows.bulk_lane_bytes = 128 << 10;
    let (a, mut b) = link(a, Node::bind(config)).await;

    // "b" takes no event, so its window, then quinn, then the queue fill up.
    let frame = |n: u32| Bytes::from([&n.to_be_bytes()[..], &[0; 10_000]].concat());
    let (mut sent, mut refusals) = (0, 0);
    while refusals < 100 {
        match a.links.send(key("b"), Lane::Control, frame(sent)) {
            Ok(()) => sent += 1,
            Err(SendError::Full) => {
                refusals += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(a.links.queued_bytes(key("b"), Lane::Control) <= LANE_BYTES);
    }
    assert!(sent > 0 && a.links.stats().frames_full == 100);
    for n in 0..sent {
        assert_eq!(b.frame().await.2, frame(n));
    }
    a.links.send(key("b"), Lane::Control, frame(sent)).unwrap();
    assert_eq!(b.frame().await.2, frame(sent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_refused() {
    let authority = Authority::new();
    let (a, _b) = pair(&authority).await;
    let send = |peer, len| a.links.send(key(peer), Lane::Bulk, Bytes::from(vec![0; len]));
    assert_eq!(send("c", 1), Err(SendError::NoLink));
    assert_eq!(send("b", FRAME_BYTES_MAX + 1), Err(SendError::TooLarge(FRAME_BYTES_MAX + 1)));
    assert_eq!(send("b", 0), Ok(()));
    let datagram = |peer, len| a.links.datagram(key(peer), Bytes::from(vec![0; len]));
    assert_eq!(datagram("c", 1), Err(DatagramError::NoLink));
    assert!(matches!(datagram("b", 60_000), Err(DatagramError::TooLarge(1100..))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_on_a_link_whose_up_was_not_taken() {
    let authority = Authority::new();
    let (mut a, mut b) = (authority.node("a"), authority.node("b"));
    assert!(a.links.dial(b.addr(), None));
    while b.links.links().len() < KINDS.len() {
        tokio::task::yield_now().await;
    }
    let send = |links: &Links| links.send(key("a"), Lane::Control, numbered(1));
    assert_eq!(send(&b.links), Err(SendError::NoLink));
    let hello = b.links.hello(key("a"), LinkKind::Fast, Bytes::new());
    assert_eq!(hello, Err(SendError::NoLink));
    tokio::join!(a.linked("b"), b.linked("a"));
    assert_eq!(send(&b.links), Ok(()));
    assert_eq!(a.frame().await, (key("b"), Lane::Control, numbered(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_before_the_hello() {
    let authority = Authority::new();
    let (mut a, mut b) = (authority.node("a"), authority.node("b"));
    assert!(a.links.dial(b.addr(), None));
    for node in [&mut a, &mut b] {
        for _ in KINDS {
            let up = node.next().await;
            assert!(matches!(up, LinkEvent::Up { .. }), "{up:?}");
        }
    }
    a.links.send(key("b"), Lane::Safety, numbered(1)).unwrap();
    a.links.datagram(key("b"), numbered(2)).unwrap();
    assert_eq!(b.events.try_recv(), None);
    let hello = |links: &Links| links.hello(key("b"), LinkKind::Fast, said(LinkKind::Fast));
    assert_eq!(hello(&a.links), Ok(()));
    assert_eq!(hello(&a.links), Err(SendError::Full));
    let first = b.next().await;
    assert!(matches!(first, LinkEvent::Hello { kind: LinkKind::Fast, .. }), "{first:?}");
    let mut rest = [b.next().await, b.next().await];
    rest.sort_by_key(|event| matches!(event, LinkEvent::Datagram { .. }));
    assert_eq!(
        rest,
        [
            LinkEvent::Frame { peer: key("a"), lane: Lane::Safety, bytes: numbered(1) },
            LinkEvent::Datagram { peer: key("a"), bytes: numbered(2) },
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_a_peer_that_breaks_the_rules_of_lanes_is_cut_off() {
    let too_long = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    let cases: [(&str, &[&[u8]]); 5] = [
        ("lane 9 is not of a fast link", &[&[9]]),
        ("lane 2 is not of a fast link", &[&[2]]),
        ("frame of 8388609 bytes", &[&[0, too_long[0], too_long[1], too_long[2], too_long[3]]]),
        ("ended before its lane was named or within a frame", &[&[0, 5, 0, 0, 0, 1]]),
        ("a second stream of lane 1", &[&[1], &[1]]),
    ];
    let authority = Authority::new();
    for (wanted, streams) in cases {
        let (mut a, mut b) = pair(&authority).await;
        let fast = a.links.shared.table.lock().get(key("b"), LinkKind::Fast).unwrap();
        for bytes in streams {
            let mut stream = fast.conn().open_uni().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.finish().unwrap();
        }
        let down = b.next().await;
        assert!(
            matches!(&down, LinkEvent::Down { kind: LinkKind::Fast, reason, .. } if reason.contains(wanted)),
            "{wanted}: {down:?}"
        );
        let down = a.next().await;
        assert!(
            matches!(&down, LinkEvent::Down { reason, .. } if reason.contains(wanted)),
            "{down:?}"
        );
        assert_eq!(b.links.stats().frames_received, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_a_dialler_that_does_not_greet_gets_no_link() {
    let authority = Authority::new();
    let mut config = authority.config("b");
    config.timing.handshake = Duration::from_millis(500);
    let (a, mut b) = (authority.node("a"), Node::bind(config));
    let shared = &a.links.shared;
    let connect = || {
        let config = shared.client_config(LinkKind::Fast);
        shared.endpoint.connect_with(config, b.addr(), pki::MESH_NAME).unwrap()
    };
    let silent = connect().await.unwrap();
    silent.closed().await;

    let rude = connect().await.unwrap();
    let mut stream = rude.open_uni().await.unwrap();
    stream.write_all(&[0; 17]).await.unwrap();
    let closed = rude.closed().await;
    assert!(
        matches!(&closed, quinn::ConnectionError::ApplicationClosed(close)
            if close.error_code == CloseCode::Protocol.varint()),
        "{closed}"
    );
    assert_eq!(b.events.try_recv(), None);
    assert!(b.links.stats().refused <= 2);
}

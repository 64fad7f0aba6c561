//! Who is let in: certificates, node ids, development.

use super::*;
use crate::event::BindError;

/// Dials `b` from `a`, which must fail; `b` must not see a link.
async fn refused(a: &mut Node, b: &mut Node, expect: Option<&str>) -> (Option<NodeId>, String) {
    assert!(a.links.dial(b.addr(), expect.map(node)));
    let failure = a.dial_failure().await;
    assert!(a.links.links().is_empty() && b.links.links().is_empty());
    assert_eq!(b.events.try_recv(), None);
    failure
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_a_certificate_of_another_authority_is_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (mut a, mut b) = (ours.node("a"), other.node("b"));
    let (_, reason) = refused(&mut a, &mut b, None).await;
    assert!(reason.contains("invalid peer certificate"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_a_dialler_of_another_authority_is_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    // It believes our authority, and still has nothing of ours to show.
    let believer = IdentityFiles { ca: ours.files("b").ca, crl: None, ..other.files("a") };
    let mut identity = MeshIdentity::load(&node("a"), &other.files("a")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(crate::pem::read_certs(&believer.ca).unwrap().remove(0)).unwrap();
    identity.roots = std::sync::Arc::new(roots);
    identity.crls.clear();
    let (mut a, mut b) = (Node::bind(LinksConfig::new(loopback(), identity)), ours.node("b"));
    let (found, reason) = refused(&mut a, &mut b, None).await;
    assert_eq!(found, Some(node("b")));
    assert!(reason.starts_with("refused by the peer"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_than_expected_is_refused() {
    let authority = Authority::new();
    let (mut a, mut b) = (authority.node("a"), authority.node("b"));
    let (found, reason) = refused(&mut a, &mut b, Some("c")).await;
    assert_eq!(found, Some(node("b")));
    assert_eq!(reason, "node 'c' was expected there, node 'b' answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_a_revoked_node_is_refused_from_either_side() {
    let authority = Authority::new();
    let mut revoked = authority.node("a");
    pki::revoke(&authority.ca(), &authority.files("a").cert).unwrap();
    let mut b = authority.node("b");
    let (_, reason) = refused(&mut revoked, &mut b, None).await;
    assert!(reason.starts_with("refused by the peer"), "{reason}");
    let (_, reason) = refused(&mut b, &mut revoked, None).await;
    assert!(reason.contains("Revoked"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_a_vehicles_certificate_opens_no_link() {
    let authority = Authority::new();
    let mut b = authority.node("b");
    let mut config = authority.config("a");
    let out = authority.dir.path().join("vehicles");
    let vehicle = pki::issue_client(&authority.ca(), "a", Validity::default(), &out).unwrap();
    config.identity.chain = crate::pem::read_certs(&vehicle.cert).unwrap();
    config.identity.key = crate::pem::read_key(&vehicle.key).unwrap();
    let mut a = Node::bind(config);
    let (_, reason) = refused(&mut a, &mut b, None).await;
    assert!(reason.contains("not a node's certificate"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_link_to_itself() {
    let authority = Authority::new();
    let mut a = authority.node("a");
    assert!(a.links.dial(a.addr(), None));
    let (found, reason) = a.dial_failure().await;
    assert_eq!((found, &*reason), (Some(node("a")), "this address is this node itself"));

    let mut twin = authority.node("a");
    let (_, reason) = refused(&mut twin, &mut a, None).await;
    assert!(reason.contains("another process there is node 'a' too"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_told() {
    let authority = Authority::new();
    let mut config = authority.config("a");
    config.timing.handshake = Duration::from_millis(300);
    let mut a = Node::bind(config);
    // A socket that never answers.
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    assert!(a.links.dial(silent.local_addr().unwrap(), Some(node("b"))));
    assert_eq!(a.dial_failure().await, (Some(node("b")), "no answer within 300 ms".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_development_stays_on_loopback() {
    let home = tempfile::tempdir().unwrap();
    let config = |name: &str, listen: &str| LinksConfig {
        dev: true,
        ..LinksConfig::new(
            listen.parse().unwrap(),
            pki::dev_identity(home.path(), &node(name)).unwrap(),
        )
    };
    let refused = Links::bind(config("a", "0.0.0.0:0")).err().unwrap();
    assert!(matches!(refused, BindError::NotLoopback { .. }), "{refused}");

    let (mut a, mut b) =
        (Node::bind(config("a", "127.0.0.1:0")), Node::bind(config("b", "127.0.0.1:0")));
    assert!(a.links.dial("192.0.2.1:7".parse().unwrap(), None));
    let (_, reason) = a.dial_failure().await;
    assert!(reason.contains("only loopback"), "{reason}");
    assert!(a.links.dial(b.addr(), None));
    tokio::join!(a.linked("b"), b.linked("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_address_is_told_with_what_to_do() {
    let authority = Authority::new();
    let a = authority.node("a");
    let mut config = authority.config("b");
    config.listen = a.addr();
    let refused = Links::bind(config).err().unwrap().to_string();
    assert!(
        refused.contains(&a.addr().to_string()) && refused.contains("--mesh-listen"),
        "{refused}"
    );
}

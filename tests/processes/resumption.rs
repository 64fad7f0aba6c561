//! TLS sessions that are resumed: the second connection costs both sides less, and is of whom the
//! first one was.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use verge_mqtt_proto::ProtocolVersion;

use crate::certificates::Certificates;
use crate::client::{bytes_of, connect};
use crate::node::Node;
use crate::ports;
use crate::programs::output_of;
use crate::site::Site;
use crate::time::SOON;

/// A socket that knows how much came.
struct Counted {
    stream: TcpStream,
    came: usize,
}

impl Read for Counted {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(bytes)?;
        self.came += count;
        Ok(count)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A connection that was accepted.
struct Visit {
    tls: StreamOwned<ClientConnection, Counted>,
    kind: HandshakeKind,
    /// What the server sent until then.
    came: usize,
}

/// A TLS client, which remembers the server, with a certificate or without.
fn client(
    version: &'static SupportedProtocolVersion,
    authority: &str,
    certificate: Option<&Certificates>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(authority).expect("a file of certificates") {
        roots.add(cert.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("ring has both")
        .with_root_certificates(roots);
    Arc::new(match certificate {
        None => config.with_no_client_auth(),
        Some(files) => {
            let chain = CertificateDer::pem_file_iter(&files.cert)
                .expect("a file")
                .map(|cert| cert.expect("a certificate"));
            let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
            config.with_client_auth_cert(chain.collect(), key).expect("they belong together")
        }
    })
}

/// Connects, and waits for CONNACK with 0.
fn visit(config: &Arc<ClientConfig>, addr: SocketAddr, id: &str) -> io::Result<Visit> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(SOON))?;
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, Counted { stream, came: 0 });
    tls.write_all(&bytes_of(&connect(id, ProtocolVersion::V4, true), ProtocolVersion::V4))?;
    let mut connack = [0; 4];
    tls.read_exact(&mut connack)?;
    assert_eq!(connack, [0x20, 2, 0, 0]);
    let kind = tls.conn.handshake_kind().expect("the handshake is complete");
    let came = tls.sock.came;
    Ok(Visit { tls, kind, came })
}

impl Visit {
    /// Ends it in order.
    fn leave(mut self) {
        self.tls.write_all(&[0xe0, 0]).expect("the node reads");
        let mut rest = Vec::new();
        // The end of the stream, with or without a farewell.
        let _ = self.tls.read_to_end(&mut rest);
    }
}

/// Who the node says is connected.
fn clients(node: &Node) -> Vec<String> {
    let clients = node.list("clients");
    clients.iter().map(|client| client["client"].as_str().expect("a name").to_owned()).collect()
}

/// A site with a node that asks clients for certificates.
fn node(site: &Site, mode: &str) -> (Node, SocketAddr, Certificates) {
    let server = Certificates::of(site, &["localhost"]);
    let tls = ports::free();
    let ca = site.path("ca");
    let node = server.given_to(site.node("resuming")).with([
        &format!("tls.client_ca={}", ca.join("ca.pem").display()),
        &format!("tls.client_crl={}", ca.join("crl.pem").display()),
        &format!("tls.client_certificate={mode}"),
    ]);
    let mut node = node;
    node.args(["--listen", &format!("tls://{tls}")]);
    (node, tls, server)
}

/// Revokes a certificate, so that there is a list of revocations.
fn revoke(site: &Site, cert: &str) {
    let ca = site.path("ca").display().to_string();
    output_of(&mut site.verge(["pki", "revoke", cert, "--ca", &ca]));
}

#[test]
fn a_second_connection_is_resumed_and_costs_less_in_both_versions_of_tls() {
    let site = Site::new();
    let (node, addr, server) = node(&site, "optional");
    revoke(&site, &Certificates::of_client(&site, "thief").cert);
    let node = node.started();
    for version in [&TLS12, &TLS13] {
        let config = client(version, &server.authority, None);
        let first = visit(&config, addr, "car").expect("it is let in");
        assert_eq!(first.kind, HandshakeKind::Full);
        let full = first.came;
        first.leave();
        for _ in 0..3 {
            let again = visit(&config, addr, "car").expect("it is let in");
            assert_eq!(again.kind, HandshakeKind::Resumed, "{version:?}");
            // No certificate was sent, nor a signature made.
            assert!(again.came + 300 < full, "{} bytes after {full}, {version:?}", again.came);
            again.leave();
        }
        // Another client of the same server has a handshake of its own.
        let other = visit(&client(version, &server.authority, None), addr, "other");
        assert_eq!(other.expect("it is let in").kind, HandshakeKind::Full);
    }
    assert_eq!(node.closed_for("tls_handshake"), 0);
}

#[test]
fn a_resumed_client_is_whom_its_certificate_named_until_that_is_revoked_security() {
    for mode in ["optional", "required"] {
        let site = Site::new();
        let (node, addr, server) = node(&site, mode);
        let [car, van, thief] =
            ["car-7", "van-9", "thief"].map(|name| Certificates::of_client(&site, name));
        revoke(&site, &thief.cert);
        let node = node.started();
        for version in [&TLS12, &TLS13] {
            let [car, van] =
                [&car, &van].map(|files| client(version, &server.authority, Some(files)));
            let full = visit(&car, addr, "a").expect("it is let in");
            assert_eq!((full.kind, clients(&node)), (HandshakeKind::Full, vec!["car-7/a".into()]));
            let first = full.came;
            full.leave();
            let resumed = visit(&car, addr, "a").expect("it is let in");
            assert_eq!(resumed.kind, HandshakeKind::Resumed, "{version:?}");
            assert!(resumed.came < first);
            // The same name in MQTT, and somebody else.
            let other = visit(&van, addr, "a").expect("it is let in");
            assert_eq!(other.kind, HandshakeKind::Full);
            let mut both = clients(&node);
            both.sort();
            assert_eq!(both, ["car-7/a", "van-9/a"], "{version:?}");
            resumed.leave();
            other.leave();
            let stranger = client(version, &server.authority, None);
            let stranger = visit(&stranger, addr, "a").map(|visit| {
                assert!(clients(&node).iter().all(|client| !client.starts_with("car-7")));
                visit.leave();
            });
            assert_eq!(stranger.is_ok(), mode == "optional", "{stranger:?}");
        }

        // What was given out before counts for nothing when revocations are read again.
        let remembering = [&TLS12, &TLS13].map(|version| {
            [&car, &van].map(|files| client(version, &server.authority, Some(files)))
        });
        for client in remembering.iter().flatten() {
            visit(client, addr, "b").expect("it is let in").leave();
            let resumed = visit(client, addr, "b").expect("it is let in");
            assert_eq!(resumed.kind, HandshakeKind::Resumed);
            resumed.leave();
        }
        revoke(&site, &car.cert);
        node.ctl(["reload"]);
        for [car, van] in &remembering {
            assert!(visit(car, addr, "b").is_err(), "{mode}");
            let honest = visit(van, addr, "b").expect("it is let in");
            assert_eq!(honest.kind, HandshakeKind::Full, "its ticket was of before");
            honest.leave();
            let honest = visit(van, addr, "b").expect("it is let in");
            assert_eq!(honest.kind, HandshakeKind::Resumed);
            honest.leave();
        }
        assert!(node.closed_for("tls_handshake") >= 2);
    }
}

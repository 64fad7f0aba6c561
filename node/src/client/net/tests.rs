//! The driver against a server that reads from a script.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use verge_mesh::pki;
use verge_mqtt_proto::packet::suback::{ReasonCodes, Suback};
use verge_mqtt_proto::{
    Ack, AckKind, Connack, ConnackProperties, Packet, PacketId, PacketType, ProtocolVersion,
};

use super::*;
use crate::client::event::SessionOptions;
use crate::client::tls::TlsOptions;

const OPTIONS: ConnectOptions = ConnectOptions { timeout: Duration::from_secs(5), tls: None };

#[tokio::test(flavor = "current_thread")]
async fn a_publication_is_acknowledged_and_a_message_comes_before_the_suback() {
    let (address, listener) = listen().await;
    let mut session = session();
    let client = async {
        let mut connection = Connection::connect(&address, &OPTIONS, &mut session).await.unwrap();
        assert!(!connection.session_present());
        let granted = connection.subscribe(&[("t", QoS::AtLeastOnce)]).await.unwrap();
        assert_eq!(granted, [ReasonCode::GrantedQos1]);
        let ticket = connection.publish(publication()).unwrap();
        assert!(
            matches!(connection.next().await.unwrap(), Event::Message(m) if m.topic == "early")
        );
        assert_eq!(connection.wait(ticket).await.unwrap(), [ReasonCode::Success]);
        connection.disconnect().await.unwrap();
    };
    let server = async {
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.read().await, PacketType::Connect);
        peer.write(&Packet::Connack(Connack::accepted(false, ConnackProperties::default()))).await;
        assert_eq!(peer.read().await, PacketType::Subscribe);
        peer.write_raw(b"\x30\x08\x00\x05early\x00").await;
        peer.write(&Packet::Suback(Suback {
            packet_id: PacketId::new(65_535).unwrap(),
            reasons: ReasonCodes::from_slice(&[ReasonCode::GrantedQos1]),
            properties: Default::default(),
        }))
        .await;
        assert_eq!(peer.read().await, PacketType::Publish);
        let puback = Ack::new(AckKind::Puback, PacketId::new(1).unwrap(), ReasonCode::Success);
        peer.write(&Packet::Ack(puback)).await;
        assert_eq!(peer.read().await, PacketType::Disconnect);
    };
    tokio::join!(client, server);
}

#[tokio::test(flavor = "current_thread")]
async fn the_session_goes_on_at_another_server() {
    let ((first, at_first), (second, at_second)) = (listen().await, listen().await);
    let mut session = session();
    let client = async {
        let mut connection = Connection::connect(&first, &OPTIONS, &mut session).await.unwrap();
        connection.publish(publication()).unwrap();
        assert!(matches!(connection.next().await, Err(NetError::Closed | NetError::Io(_))));
        drop(connection);
        let mut connection = Connection::connect(&second, &OPTIONS, &mut session).await.unwrap();
        assert!(connection.session_present());
        assert!(matches!(
            connection.next().await.unwrap(),
            Event::Published(_, ReasonCode::Success)
        ));
    };
    let server = async {
        let mut peer = Peer::accept(&at_first).await;
        peer.read().await;
        peer.write(&Packet::Connack(Connack::accepted(false, ConnackProperties::default()))).await;
        assert_eq!(peer.read().await, PacketType::Publish);
        drop(peer);
        let mut peer = Peer::accept(&at_second).await;
        peer.read().await;
        peer.write(&Packet::Connack(Connack::accepted(true, ConnackProperties::default()))).await;
        assert_eq!(peer.read().await, PacketType::Publish);
        let puback = Ack::new(AckKind::Puback, PacketId::new(1).unwrap(), ReasonCode::Success);
        peer.write(&Packet::Ack(puback)).await;
        peer
    };
    tokio::join!(client, server);
}

#[tokio::test(flavor = "current_thread")]
async fn refusals_closes_and_nonsense_are_told_apart() {
    let refused = Connack::refused(ReasonCode::NotAuthorized);
    let mut refusal = BytesMut::new();
    Packet::Connack(refused).encode(ProtocolVersion::V5, &mut refusal).unwrap();
    let cases: [(&[u8], &str); 3] = [
        (&refusal, "refused: Not authorized"),
        (b"", "the server closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not MQTT"),
    ];
    for (answer, wanted) in cases {
        let (address, listener) = listen().await;
        let mut session = session();
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            peer.read().await;
            peer.write_raw(answer).await;
        };
        let (outcome, ()) =
            tokio::join!(Connection::connect(&address, &OPTIONS, &mut session), server);
        let error = outcome.err().expect("no connection").to_string();
        assert!(error.contains(wanted), "{error:?}, not {wanted:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let (address, listener) = listen().await;
    let mut session = session();
    let options = ConnectOptions { timeout: Duration::from_millis(50), tls: None };
    let outcome = Connection::connect(&address, &options, &mut session).await;
    assert!(matches!(outcome, Err(NetError::Timeout(_))));
    drop(listener);
}

#[tokio::test(flavor = "current_thread")]
async fn over_tls_the_server_is_who_its_authority_says_or_there_is_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (dir.path().join("ours"), dir.path().join("other"));
    pki::init_ca(&ours).unwrap();
    pki::init_ca(&other).unwrap();
    let names = ["127.0.0.1".to_owned()];
    let issued = pki::issue_server(&ours, &names, pki::Validity::default(), dir.path()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certs = CertificateDer::pem_file_iter(&issued.cert).unwrap().map(Result::unwrap).collect();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certs, PrivateKeyDer::from_pem_file(&issued.key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));

    let trusting = TlsOptions { ca: Some(ours.join("ca.pem")), ..TlsOptions::default() };
    let wary = TlsOptions { ca: Some(other.join("ca.pem")), ..TlsOptions::default() };
    let careless = TlsOptions { insecure: true, ..TlsOptions::default() };
    for (options, wanted) in [(trusting, true), (wary, false), (careless, true)] {
        let (mut address, listener) = listen().await;
        address.scheme = Scheme::Tls;
        let tls = Some(options.client_config().unwrap());
        let options = ConnectOptions { timeout: Duration::from_secs(5), tls };
        let mut session = session();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut connect = [0; 64];
            assert!(stream.read(&mut connect).await.unwrap() > 0);
            let mut bytes = BytesMut::new();
            let connack = Connack::accepted(false, ConnackProperties::default());
            Packet::Connack(connack).encode(ProtocolVersion::V5, &mut bytes).unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
        };
        let (outcome, ()) =
            tokio::join!(Connection::connect(&address, &options, &mut session), server);
        assert_eq!(outcome.is_ok(), wanted, "{:?}", outcome.err());
    }
}

struct Peer {
    stream: TcpStream,
    received: BytesMut,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        Self { stream, received: BytesMut::new() }
    }

    async fn read(&mut self) -> PacketType {
        loop {
            let limits = DecodeLimits::default();
            let packet = decode(&self.received, ProtocolVersion::V5, &limits).unwrap();
            if let Some((packet, size)) = packet {
                let packet_type = packet.packet_type();
                self.received.advance(size);
                return packet_type;
            }
            assert!(self.stream.read_buf(&mut self.received).await.unwrap() > 0);
        }
    }

    async fn write(&mut self, packet: &Packet<'_>) {
        let mut bytes = BytesMut::new();
        packet.encode(ProtocolVersion::V5, &mut bytes).unwrap();
        self.write_raw(&bytes).await;
    }

    async fn write_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
}

async fn listen() -> (Address, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (Address { scheme: Scheme::Tcp, host: "127.0.0.1".into(), port, path: String::new() }, listener)
}

fn session() -> ClientSession {
    let options = SessionOptions::new("c", ProtocolVersion::V5);
    ClientSession::new(SessionOptions { clean_start: false, ..options })
}

fn publication() -> Publication {
    let (topic, payload) = ("t".to_owned(), Bytes::from_static(b"x"));
    Publication { topic, payload, qos: QoS::AtLeastOnce, retain: false }
}

//! The server's end against rustls's usual client, through pipes of any size.

use std::sync::Arc;

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::provider;
use super::stream::{TlsStream, accept};
use crate::client::tls::TlsOptions;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn server(version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into());
    Arc::new(config.unwrap())
}

/// A client that trusts anybody, and writes records of at most this size.
fn client(record_bytes: Option<usize>) -> TlsConnector {
    let options = TlsOptions { insecure: true, ..TlsOptions::default() };
    let mut config = ClientConfig::clone(&options.client_config().unwrap());
    config.max_fragment_size = record_bytes;
    TlsConnector::from(Arc::new(config))
}

/// Both ends after their handshake.
async fn pair(
    version: &'static SupportedProtocolVersion,
    pipe_bytes: usize,
    record_bytes: Option<usize>,
) -> (TlsStream<DuplexStream>, ClientStream<DuplexStream>) {
    let (near, far) = duplex(pipe_bytes);
    let (config, client) = (server(version), client(record_bytes));
    let name = ServerName::try_from("localhost").unwrap();
    let serving = async {
        let mut server = accept(&config, near).await.unwrap();
        if *version == TLS12 {
            // The last flight is the server's; in TLS 1.3 only tickets wait.
            server.flush().await.unwrap();
        }
        server
    };
    let (server, client) = tokio::join!(serving, client.connect(name, far));
    (server, client.unwrap())
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

fn numbers(count: usize) -> Vec<u8> {
    (0..count).map(|number| (number % 251) as u8).collect()
}

#[test]
fn bytes_pass_both_ways_however_small_pipe_and_records_are() {
    run(async {
        for version in VERSIONS {
            for (pipe_bytes, record_bytes) in
                [(1, None), (7, Some(48)), (1_000, Some(64)), (1 << 20, None)]
            {
                let (mut server, mut client) = pair(version, pipe_bytes, record_bytes).await;
                for size in [1, 100, 16_384, 16_385, 200_000] {
                    let size = if pipe_bytes < 100 { size.min(20_000) } else { size };
                    let (mut there, mut back) = (vec![0; size], vec![0; size]);
                    let serving = async {
                        server.read_exact(&mut there).await.unwrap();
                        server.write_all(&there).await.unwrap();
                        server.flush().await.unwrap();
                    };
                    let asking = async {
                        client.write_all(&numbers(size)).await.unwrap();
                        client.flush().await.unwrap();
                        client.read_exact(&mut back).await.unwrap();
                    };
                    tokio::join!(serving, asking);
                    assert!(back == numbers(size), "{size} bytes, {pipe_bytes}, {record_bytes:?}");
                    assert_eq!(server.buffered(), 0, "an idle connection owns no buffer");
                }
                let mut rest = Vec::new();
                let (read, shut) = tokio::join!(server.read_to_end(&mut rest), client.shutdown());
                assert_eq!((read.unwrap(), shut.unwrap()), (0, ()), "close_notify is the end");
                let (shut, read) = tokio::join!(server.shutdown(), client.read_to_end(&mut rest));
                assert_eq!((shut.unwrap(), read.unwrap()), ((), 0));
            }
        }
    });
}

#[test]
fn pieces_that_are_written_together_are_one_record() {
    run(async {
        let (mut server, mut client) = pair(&TLS13, 1 << 20, None).await;
        let (head, body) = (numbers(4), numbers(500));
        let slices = [std::io::IoSlice::new(&head), std::io::IoSlice::new(&body)];
        assert_eq!(server.write_vectored(&slices).await.unwrap(), 504);
        server.flush().await.unwrap();
        let mut all = [0; 600];
        assert_eq!(client.read(&mut all).await.unwrap(), 504);
        assert!(all[..4] == head && all[4..504] == body);
    });
}

#[test]
fn a_client_may_change_its_keys() {
    run(async {
        let (mut server, mut client) = pair(&TLS13, 1 << 20, None).await;
        for round in 0..3_u8 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(&[round]).await.unwrap();
            client.flush().await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), round);
            server.write_all(&[round]).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), round);
        }
        assert_eq!(server.buffered(), 0);
    });
}

#[test]
fn what_is_no_handshake_is_answered_with_an_alert_security() {
    run(async {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 3, 0, 4, 99, 0, 0, 0]] {
            let (near, mut far) = duplex(4_096);
            far.write_all(garbage).await.unwrap();
            let refused = accept(&server(&TLS13), near).await.err().expect("it is no handshake");
            assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
            let mut alert = Vec::new();
            far.read_to_end(&mut alert).await.unwrap();
            // Content type 21, fatal. (RFC 8446, section 6)
            assert_eq!((alert.len(), alert[0], alert[5]), (7, 21, 2), "{garbage:?}");
        }
    });
}

#[test]
fn an_end_without_close_notify_is_an_error_security() {
    run(async {
        for version in VERSIONS {
            let (mut server, client) = pair(version, 4_096, None).await;
            drop(client);
            let error = server.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        }
        let (near, far) = duplex(64);
        drop(far);
        let error = accept(&server(&TLS13), near).await.err().expect("nobody was there");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn records_that_were_changed_on_the_way_end_the_connection_security() {
    run(async {
        let (mut server, mut client) = pair(&TLS13, 4_096, None).await;
        // An application data record that nobody sealed.
        let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
        client.get_mut().0.write_all(&forged).await.unwrap();
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        let told = client.read_u8().await.unwrap_err().to_string();
        assert!(told.contains("BadRecordMac"), "{told}");
    });
}

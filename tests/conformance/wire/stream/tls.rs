//! TLS over TCP.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A connection that trusts this authority, a PEM file, and nobody else.
pub(crate) fn open(stream: TcpStream, authority: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "localhost".try_into().expect("a name");
    let client = ClientConnection::new(Arc::new(config(authority)), name);
    StreamOwned::new(client.expect("a right configuration"), stream)
}

/// What a client of this authority is configured with.
pub(crate) fn config(authority: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).expect("the authority is there") {
        roots.add(certificate.expect("a certificate")).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("ring has the default versions");
    builder.with_root_certificates(roots).with_no_client_auth()
}

//! TLS between nodes: version 1.3, certificates on both sides, the protocol's version as ALPN.

use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;

use crate::LinkKind;
use crate::identity::MeshIdentity;

/// ALPN of the fast link. Nodes of another mesh version fail in the handshake.
pub const ALPN_FAST: &[u8] = b"verge-mesh/1";
/// ALPN of the bulk link.
pub const ALPN_BULK: &[u8] = b"verge-mesh/1+bulk";

/// The cryptography of all mesh links, whatever the process's default is.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The ALPN that asks for a kind of link.
pub(crate) fn alpn_of(kind: LinkKind) -> &'static [u8] {
    match kind {
        LinkKind::Fast => ALPN_FAST,
        LinkKind::Bulk => ALPN_BULK,
    }
}

/// The kind of link that an ALPN asks for.
pub(crate) fn kind_of_alpn(alpn: &[u8]) -> Option<LinkKind> {
    [LinkKind::Fast, LinkKind::Bulk].into_iter().find(|kind| alpn_of(*kind) == alpn)
}

/// For the side that is dialled.
///
/// No session is ever resumed: a resumed session would not be checked against the revocation list.
pub(crate) fn server_config(
    identity: &MeshIdentity,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&identity.roots), provider())
            .with_crls(identity.crls.iter().cloned())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = vec![ALPN_FAST.to_vec(), ALPN_BULK.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For the side that dials.
pub(crate) fn client_config(
    identity: &MeshIdentity,
    kind: LinkKind,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&identity.roots), provider())
            .with_crls(identity.crls.iter().cloned())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = vec![alpn_of(kind).to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

//! TLS of client listeners: certificates from PEM files, client certificates if asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio_rustls::TlsAcceptor;
use verge_mesh::pem::{self, PemError};

use crate::config::sections::{ClientCertificate, TlsSection};

/// Why the listeners' TLS cannot be set up: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key that is needed is not set.
    #[error("{key} is not set: a tls:// or quic:// listener needs it")]
    NotSet {
        /// The key.
        key: &'static str,
    },
    /// A file cannot be used.
    #[error("{key}: {source}")]
    Pem {
        /// The key that names it.
        key: &'static str,
        /// What is wrong with it.
        source: PemError,
    },
    /// The files do not go together.
    #[error("tls.cert = {}: {source}: check that tls.key belongs to it", cert.display())]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The authorities or revocations of clients cannot be used.
    #[error("tls.client_ca = {}: {detail}", ca.display())]
    Clients {
        /// The file.
        ca: PathBuf,
        /// What rustls said.
        detail: String,
    },
}

/// The acceptor of all `tls://` listeners.
///
/// # Errors
/// A file is missing or wrong.
pub fn acceptor(section: &TlsSection) -> Result<TlsAcceptor, TlsError> {
    server_config(section).map(|(config, _)| TlsAcceptor::from(Arc::new(config)))
}

/// TLS of the listeners, and who judges clients' certificates if they are asked for.
pub(super) fn server_config(
    section: &TlsSection,
) -> Result<(ServerConfig, Option<Arc<dyn ClientCertVerifier>>), TlsError> {
    let cert = needed(section.cert.as_deref(), "tls.cert")?;
    let key = needed(section.key.as_deref(), "tls.key")?;
    let chain = pem::read_certs(cert).map_err(|source| pem_error("tls.cert", source))?;
    let key = pem::read_key(key).map_err(|source| pem_error("tls.key", source))?;
    let mismatch = |source| TlsError::Mismatch { cert: cert.to_owned(), source };

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?;
    let verifier = match section.client_certificate {
        ClientCertificate::None => None,
        ClientCertificate::Optional | ClientCertificate::Required => {
            Some(client_verifier(section, provider)?)
        }
    };
    let builder = match &verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
    };
    let config = builder.with_single_cert(chain, key).map_err(mismatch)?;
    Ok((config, verifier))
}

fn client_verifier(
    section: &TlsSection,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let ca = needed(section.client_ca.as_deref(), "tls.client_ca")?;
    let wrong = |detail: String| TlsError::Clients { ca: ca.to_owned(), detail };
    let mut roots = RootCertStore::empty();
    for cert in pem::read_certs(ca).map_err(|source| pem_error("tls.client_ca", source))? {
        roots.add(cert).map_err(|error| wrong(error.to_string()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(crl) = &section.client_crl {
        let crls = pem::read_crls(crl).map_err(|source| pem_error("tls.client_crl", source))?;
        builder = builder.with_crls(crls);
    }
    if section.client_certificate == ClientCertificate::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| wrong(error.to_string()))
}

fn needed<'a>(path: Option<&'a Path>, key: &'static str) -> Result<&'a Path, TlsError> {
    path.ok_or(TlsError::NotSet { key })
}

fn pem_error(key: &'static str, source: PemError) -> TlsError {
    TlsError::Pem { key, source }
}

/// The common name of the certificate a client proved to have.
pub(super) fn subject(session: &ServerConnection) -> Option<Arc<str>> {
    common_name(session.peer_certificates()?.first()?)
}

/// The subject's common name, if there is exactly one.
pub(super) fn common_name(cert: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).ok()?;
    let mut names = cert.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else { return None };
    name.as_str().ok().map(Arc::from)
}

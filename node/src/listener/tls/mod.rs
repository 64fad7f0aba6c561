//! TLS of client listeners: certificates from PEM files, client certificates if asked for.

pub mod live;
pub(super) mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CommonState, RootCertStore};
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
    #[error("{} = {}: {source}: check that {} belongs to it", keys.0, cert.display(), keys.1)]
    Mismatch {
        /// The keys that name certificate and private key.
        keys: (&'static str, &'static str),
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
    /// The cryptography lacks what TLS needs.
    #[error("TLS cannot be set up: {0}")]
    Crypto(rustls::Error),
}

/// The certificate chain and key of two files, which `keys` name.
fn certified(
    cert: Option<&Path>,
    key: Option<&Path>,
    keys: (&'static str, &'static str),
) -> Result<Arc<CertifiedKey>, TlsError> {
    let cert = needed(cert, keys.0)?;
    let chain = pem::read_certs(cert).map_err(|source| pem_error(keys.0, source))?;
    let key = pem::read_key(needed(key, keys.1)?).map_err(|source| pem_error(keys.1, source))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map(Arc::new)
        .map_err(|source| TlsError::Mismatch { keys, cert: cert.to_owned(), source })
}

/// The cryptography of all listeners.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
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
pub(super) fn subject(session: &CommonState) -> Option<Arc<str>> {
    common_name(session.peer_certificates()?.first()?)
}

/// The subject's common name, if there is exactly one.
pub(super) fn common_name(cert: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).ok()?;
    let mut names = cert.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else { return None };
    name.as_str().ok().map(Arc::from)
}

#[cfg(test)]
mod tests;

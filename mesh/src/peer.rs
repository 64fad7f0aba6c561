//! What a certificate says about the node that presents it.

use rustls::pki_types::CertificateDer;
use verge_model::NodeId;
use verge_model::node_id::NodeIdError;
use x509_parser::extensions::GeneralName;

use crate::pki::MESH_NAME;

/// A node as its verified certificate names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertifiedNode {
    pub(crate) node: NodeId,
    /// End of validity, seconds since 1970.
    pub(crate) not_after: i64,
}

/// Why a certificate names no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerCertError {
    /// No certificate was presented, or it cannot be parsed.
    #[error("the certificate cannot be parsed")]
    Unreadable,
    /// The certificate lacks the name that node certificates carry.
    #[error("it is not a node's certificate: the DNS name '{MESH_NAME}' is missing")]
    NoMeshName,
    /// There is not exactly one common name.
    #[error("the certificate's subject has not exactly one common name")]
    CommonName,
    /// The common name is no node id.
    #[error("the certificate's common name is no node id: {0}")]
    NodeId(#[from] NodeIdError),
}

/// The node named by a chain's first certificate. It does not verify the chain.
pub(crate) fn node_of(chain: &[CertificateDer<'_>]) -> Result<CertifiedNode, PeerCertError> {
    let leaf = chain.first().ok_or(PeerCertError::Unreadable)?;
    let (_, cert) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_| PeerCertError::Unreadable)?;
    let names = cert
        .subject_alternative_name()
        .map_err(|_| PeerCertError::Unreadable)?
        .ok_or(PeerCertError::NoMeshName)?;
    let is_mesh = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(MESH_NAME));
    if !names.value.general_names.iter().any(is_mesh) {
        return Err(PeerCertError::NoMeshName);
    }
    let mut common_names = cert.subject().iter_common_name();
    let (Some(name), None) = (common_names.next(), common_names.next()) else {
        return Err(PeerCertError::CommonName);
    };
    let node = name.as_str().map_err(|_| PeerCertError::CommonName)?.parse()?;
    Ok(CertifiedNode { node, not_after: cert.validity().not_after.timestamp() })
}

//! Who this node is to other nodes: its certificate, its key, and whom it believes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::{CertificateError, RootCertStore};
use verge_model::NodeId;

use crate::peer::{self, PeerCertError};
use crate::pem::{self, PemError};
use crate::pki::MESH_NAME;
use crate::tls;

/// The files of a node's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The node's certificate, followed by intermediates if there are any.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The mesh authority's certificates.
    pub ca: PathBuf,
    /// Revocation lists. If there is one there must be one of every issuing authority.
    pub crl: Option<PathBuf>,
}

/// A node's certificate that was checked: it is of the node's own id, of the mesh's authority, in
/// its validity, and of its key.
pub struct MeshIdentity {
    /// The node.
    pub node_id: NodeId,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) crls: Vec<CertificateRevocationListDer<'static>>,
    /// End of the certificate's validity, seconds since 1970.
    pub not_after: i64,
}

/// Why a node has no identity. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The node's certificate or key is not there.
    #[error(
        "mesh certificate of node '{node}': {source}; make one with `verge pki issue node {node}`, \
         or set mesh.dev=true for a mesh on loopback"
    )]
    Absent {
        /// The node.
        node: NodeId,
        /// Which file.
        source: PemError,
    },
    /// A file is there and cannot be used.
    #[error("mesh certificate of node '{node}': {source}")]
    Unusable {
        /// The node.
        node: NodeId,
        /// Which file and why.
        source: PemError,
    },
    /// The certificate is another node's.
    #[error(
        "mesh certificate is of node '{subject}' but this node is '{node}'; set the node id to \
         '{subject}' or make a certificate with `verge pki issue node {node}`"
    )]
    Subject {
        /// The node.
        node: NodeId,
        /// The node that the certificate names.
        subject: NodeId,
    },
    /// The certificate is no node's.
    #[error(
        "mesh certificate of node '{node}': {source}; make one with `verge pki issue node {node}`"
    )]
    NotANode {
        /// The node.
        node: NodeId,
        /// What it lacks.
        source: PeerCertError,
    },
    /// The authority, the validity or the revocation list speaks against the certificate.
    #[error("mesh certificate of node '{node}' is refused: {detail}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Why, and what to do.
        detail: String,
    },
    /// A file spoken of by one of the other errors.
    #[error("{}: {source}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// The error about its content.
        source: Box<IdentityError>,
    },
}

impl MeshIdentity {
    /// Reads and checks the identity of a node.
    ///
    /// # Errors
    /// A file is missing or unusable, or the certificate is not one of this node in this mesh.
    pub fn load(node_id: &NodeId, files: &IdentityFiles) -> Result<Self, IdentityError> {
        let named = |source: PemError| {
            let node = node_id.clone();
            if source.is_not_found() {
                IdentityError::Absent { node, source }
            } else {
                IdentityError::Unusable { node, source }
            }
        };
        let chain = pem::read_certs(&files.cert).map_err(named)?;
        let key = pem::read_key(&files.key).map_err(named)?;
        let roots = pem::read_certs(&files.ca).map_err(named)?;
        let crls = match &files.crl {
            Some(path) => pem::read_crls(path).map_err(named)?,
            None => Vec::new(),
        };
        Self::new(node_id.clone(), chain, key, roots, crls)
            .map_err(|source| in_file(&files.cert, source))
    }

    /// Checks parts that are in memory already.
    ///
    /// # Errors
    /// The certificate is not one of this node in this mesh.
    pub fn new(
        node_id: NodeId,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, IdentityError> {
        let refused = |detail: String| IdentityError::Refused { node: node_id.clone(), detail };
        let subject = peer::node_of(&chain)
            .map_err(|source| IdentityError::NotANode { node: node_id.clone(), source })?;
        if subject.node != node_id {
            return Err(IdentityError::Subject { node: node_id, subject: subject.node });
        }
        let mut store = RootCertStore::empty();
        for root in roots {
            let failed = |error| refused(format!("the authority's certificate: {error}"));
            store.add(root).map_err(failed)?;
        }
        let roots = Arc::new(store);
        check_chain(&chain, &roots, &crls).map_err(|error| refused(explain(&error, &node_id)))?;
        let identity = Self { node_id, chain, key, roots, crls, not_after: subject.not_after };
        // Building a configuration compares certificate and key.
        match tls::server_config(&identity) {
            Ok(_) => Ok(identity),
            Err(error) => Err(IdentityError::Refused {
                detail: explain(&error, &identity.node_id),
                node: identity.node_id,
            }),
        }
    }
}

impl Clone for MeshIdentity {
    fn clone(&self) -> Self {
        Self {
            node_id: self.node_id.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            roots: Arc::clone(&self.roots),
            crls: self.crls.clone(),
            not_after: self.not_after,
        }
    }
}

impl fmt::Debug for MeshIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("MeshIdentity")
            .field("node_id", &self.node_id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn check_chain(
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    crls: &[CertificateRevocationListDer<'static>],
) -> Result<(), rustls::Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), tls::provider())
        .with_crls(crls.iter().cloned())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let name = ServerName::try_from(MESH_NAME).expect("the mesh name is a DNS name");
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(rustls::Error::NoCertificatesPresented);
    };
    verifier.verify_server_cert(leaf, intermediates, &name, &[], UnixTime::now()).map(|_| ())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors; its text serves for them"
)]
fn explain(error: &rustls::Error, node: &NodeId) -> String {
    use CertificateError::{BadSignature, Expired, ExpiredContext, Revoked, UnknownIssuer};
    let again = format!("make one with `verge pki issue node {node}`");
    match error {
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            format!("it has expired; {again}")
        }
        rustls::Error::InvalidCertificate(Revoked) => format!("it is revoked; {again}"),
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "it was not issued by the configured mesh authority; configure the authority that \
             issued it"
                .to_owned()
        }
        rustls::Error::InconsistentKeys(_) => {
            "the configured private key is not the certificate's; configure the key issued with it"
                .to_owned()
        }
        other => other.to_string(),
    }
}

fn in_file(path: &Path, source: IdentityError) -> IdentityError {
    IdentityError::In { path: path.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{self, Validity};

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn issued(dir: &Path, name: &str) -> IdentityFiles {
        let ca = dir.join("ca");
        if !ca.exists() {
            pki::init_ca(&ca).unwrap();
        }
        let out = pki::issue_node(&ca, &node(name), Validity::default(), &dir.join("out")).unwrap();
        IdentityFiles { cert: out.cert, key: out.key, ca: out.ca, crl: Some(ca.join("crl.pem")) }
    }

    fn error(name: &str, files: &IdentityFiles) -> String {
        MeshIdentity::load(&node(name), files).unwrap_err().to_string()
    }

    #[test]
    fn an_issued_certificate_loads_whatever_the_node_is_called() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["rsu-1", "7", "edge.bavaria_2", "a..b", "ca", "X."] {
            let identity = MeshIdentity::load(&node(name), &issued(dir.path(), name)).unwrap();
            assert_eq!(identity.node_id.as_str(), name);
        }
    }

    #[test]
    fn another_nodes_certificate_is_an_error_that_names_both() {
        let dir = tempfile::tempdir().unwrap();
        let text = error("rsu-2", &issued(dir.path(), "rsu-1"));
        assert!(text.contains("'rsu-1'") && text.contains("'rsu-2'"), "{text}");
        assert!(text.contains("verge pki issue node rsu-2") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = issued(dir.path(), "rsu-1");
        files.key = dir.path().join("nowhere.key");
        let text = error("rsu-1", &files);
        assert!(
            text.contains("nowhere.key") && text.contains("verge pki issue node rsu-1"),
            "{text}"
        );
    }

    #[test]
    fn an_authority_key_or_list_that_does_not_fit_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let good = issued(dir.path(), "rsu-1");
        let foreign = issued(other.path(), "rsu-1");

        let wrong_ca = IdentityFiles { ca: foreign.ca, crl: None, ..good.clone() };
        assert!(error("rsu-1", &wrong_ca).contains("not issued by the configured mesh authority"));
        let wrong_key = IdentityFiles { key: foreign.key, ..good.clone() };
        assert!(error("rsu-1", &wrong_key).contains("private key is not the certificate's"));

        pki::revoke(&dir.path().join("ca"), &good.cert).unwrap();
        assert!(error("rsu-1", &good).contains("it is revoked"));
    }

    #[test]
    fn security_a_vehicles_certificate_is_no_node() {
        let dir = tempfile::tempdir().unwrap();
        let good = issued(dir.path(), "rsu-1");
        let out = dir.path().join("vehicles");
        let vehicle =
            pki::issue_client(&dir.path().join("ca"), "rsu-1", Validity::default(), &out).unwrap();
        let files = IdentityFiles { cert: vehicle.cert, key: vehicle.key, ..good };
        assert!(error("rsu-1", &files).contains("not a node's certificate"));
    }
}

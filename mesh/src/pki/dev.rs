//! The development authority: every node that one user starts on loopback trusts it.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use verge_model::NodeId;

use super::{Authority, Paths, PkiError, Validity, files, init_ca, node_params, sign};
use crate::identity::MeshIdentity;

/// Longer than any development node runs; a restart makes a new certificate.
const DEV_VALIDITY_DAYS: u32 = 90;

/// The folder `<home>/.verge/dev-ca`, made on first use.
///
/// Processes that start at once may all make one; the first to give its folder the final name wins
/// and the others use that.
///
/// # Errors
/// The folder cannot be made, or its key is readable by others.
pub fn dev_ca(home: &Path) -> Result<PathBuf, PkiError> {
    let parent = home.join(".verge");
    let dir = parent.join("dev-ca");
    let paths = Paths::of(&dir);
    if !paths.crl.exists() {
        files::ensure_private_dir(&parent)?;
        let fresh = files::with_suffix(&dir, &format!(".{}", files::unique()));
        init_ca(&fresh)?;
        if let Err(error) = fs::rename(&fresh, &dir) {
            // A folder that is not empty is never replaced, so a winner's stays whole.
            let _ = fs::remove_dir_all(&fresh);
            if !paths.crl.exists() {
                return Err(files::failed(&dir, error));
            }
        }
    }
    files::refuse_shared(&paths.key)?;
    Ok(dir)
}

/// A new certificate of the development authority for one start of a node; nothing is written but
/// the authority itself on first use.
///
/// # Errors
/// As [`dev_ca`].
pub fn dev_identity(home: &Path, node: &NodeId) -> Result<MeshIdentity, PkiError> {
    let dir = dev_ca(home)?;
    let authority = Authority::open(&dir)?;
    let mut params = node_params(node)?;
    let validity = Validity::days(DEV_VALIDITY_DAYS);
    let (cert, key, _) = sign(&authority, "node", node.as_str().to_owned(), &mut params, validity)?;
    let unusable =
        |what: &str| PkiError::NoAuthority { path: dir.clone(), detail: format!("bad {what}") };
    let chain = CertificateDer::from_pem_slice(cert.as_bytes()).map_err(|_| unusable("leaf"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| unusable("leaf key"))?;
    let root = CertificateDer::from_pem_slice(authority.cert_pem.as_bytes())
        .map_err(|_| unusable("ca.pem"))?;
    MeshIdentity::new(node.clone(), vec![chain], key, vec![root], Vec::new())
        .map_err(|error| PkiError::NoAuthority { path: dir.clone(), detail: error.to_string() })
}

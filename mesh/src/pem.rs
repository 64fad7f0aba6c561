//! PEM files, read into the types rustls takes, with errors that name the file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// Largest PEM file that is read: a chain or a list of revocations far beyond any real one.
pub const PEM_FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a PEM file gave nothing. The caller's operation did not start.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than [`PEM_FILE_BYTES_MAX`].
    #[error("{}: larger than {PEM_FILE_BYTES_MAX} bytes, so it is not a PEM file of ours", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not PEM text.
    #[error("{}: not a PEM file: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        detail: String,
    },
    /// The file is PEM text without the section that is wanted.
    #[error("{}: holds no {wanted}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The PEM section that is missing.
        wanted: &'static str,
    },
}

impl PemError {
    /// Whether the file does not exist, which another command can mend.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// All certificates of a file, in its order: at least one.
///
/// # Errors
/// The file cannot be read, is not PEM, or holds no certificate.
pub fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let text = read(path)?;
    let certs = rustls_pemfile::certs(&mut &*text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(path, &error))?;
    if certs.is_empty() { Err(missing(path, "CERTIFICATE")) } else { Ok(certs) }
}

/// The first private key of a file (PKCS #8, PKCS #1 or SEC 1).
///
/// # Errors
/// The file cannot be read, is not PEM, or holds no key.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let text = read(path)?;
    rustls_pemfile::private_key(&mut &*text)
        .map_err(|error| malformed(path, &error))?
        .ok_or_else(|| missing(path, "PRIVATE KEY"))
}

/// All revocation lists of a file: at least one.
///
/// # Errors
/// The file cannot be read, is not PEM, or holds no list.
pub fn read_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let text = read(path)?;
    let crls = rustls_pemfile::crls(&mut &*text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(path, &error))?;
    if crls.is_empty() { Err(missing(path, "X509 CRL")) } else { Ok(crls) }
}

fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let failed = |source| PemError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > PEM_FILE_BYTES_MAX {
        return Err(PemError::TooLarge { path: path.to_owned() });
    }
    fs::read(path).map_err(failed)
}

fn malformed(path: &Path, error: &io::Error) -> PemError {
    PemError::Malformed { path: path.to_owned(), detail: error.to_string() }
}

fn missing(path: &Path, wanted: &'static str) -> PemError {
    PemError::Missing { path: path.to_owned(), wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        let absent = read_certs(&path).unwrap_err();
        assert!(absent.is_not_found() && absent.to_string().contains("x.pem"), "{absent}");

        fs::write(&path, "no pem at all").unwrap();
        let empty = read_key(&path).unwrap_err();
        assert!(empty.to_string().ends_with("x.pem: holds no PRIVATE KEY"), "{empty}");

        fs::write(&path, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
        let bad = read_certs(&path).unwrap_err();
        assert!(bad.to_string().contains("x.pem: not a PEM file"), "{bad}");
    }
}

//! A small certificate authority: for development on one machine and for trials.
//!
//! An authority is a folder: `ca.pem`, `ca.key`, an index of everything issued, and `crl.pem`, which
//! is there (and empty) from the start so that a node can be configured with it once.
//! Production meshes may use their own PKI; what a node's certificate must hold is stated at
//! [`issue_node`].

mod dev;
mod files;
mod index;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;
use verge_model::NodeId;

pub use dev::{dev_ca, dev_identity};

use crate::clock;
use crate::pem::{self, PemError};

/// The name every node certificate carries beside its own. It tells a node's certificate from a
/// vehicle's or a listener's of the same authority, and is the server name when dialling.
pub const MESH_NAME: &str = "verge-mesh";

/// Longest common name. (RFC 5280, `ub-common-name`)
pub const COMMON_NAME_CHARS_MAX: usize = 64;

/// Clocks of roadside units are off before their first fix, so certificates begin in the past.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// How long the authority's own certificate is valid.
const CA_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// When the next list of revocations is promised. A list older than this is still applied.
const CRL_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a certificate is valid from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity(pub Duration);

impl Validity {
    /// Validity in days.
    #[must_use]
    pub fn days(days: u32) -> Self {
        Self(Duration::from_secs(u64::from(days) * 24 * 3600))
    }
}

impl Default for Validity {
    /// A year and a month, so that a yearly renewal is never late.
    fn default() -> Self {
        Self::days(397)
    }
}

/// Where the parts of an issued certificate are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key, readable by its owner only.
    pub key: PathBuf,
    /// A copy of the authority's certificate.
    pub ca: PathBuf,
}

/// Why the authority did not do what was asked. Nothing was issued or revoked.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file or folder is there already.
    #[error("{}: exists and is not overwritten; move it away or choose another folder", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// A private key is readable by others.
    #[error("{}: others may read this key; run `chmod 600` on it, or remove its folder to start anew", path.display())]
    Shared {
        /// The key file.
        path: PathBuf,
    },
    /// The system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of the index cannot be understood.
    #[error("{}: line {line} is not an index entry; restore the file from a copy", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// The name cannot be written into a certificate of this kind.
    #[error("'{name}' cannot be named in a certificate: {detail}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The certificate was not issued by this authority.
    #[error("{}: was not issued by the authority in {}", cert.display(), ca.display())]
    NotIssued {
        /// The certificate.
        cert: PathBuf,
        /// The authority's folder.
        ca: PathBuf,
    },
    /// A PEM file cannot be used.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The folder holds no usable authority.
    #[error("{}: no certificate authority here ({detail}); make one with `verge pki init`", path.display())]
    NoAuthority {
        /// The authority's folder.
        path: PathBuf,
        /// What is missing or wrong.
        detail: String,
    },
    /// The certificate library failed.
    #[error("making a certificate failed: {0}")]
    Library(#[from] rcgen::Error),
}

/// Makes a certificate authority in a folder that holds none.
///
/// # Errors
/// The folder holds an authority already, or cannot be written.
pub fn init_ca(dir: &Path) -> Result<(), PkiError> {
    files::ensure_private_dir(dir)?;
    let paths = Paths::of(dir);
    for path in [&paths.cert, &paths.key, &paths.index, &paths.crl] {
        files::refuse_existing(path)?;
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Two authorities with one name would turn "unknown authority" into "bad signature".
    let name = format!("verge mesh CA {:08x}", rand::random::<u32>());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.serial_number = Some(new_serial());
    (params.not_before, params.not_after) = valid_for(Validity(CA_VALIDITY));
    let cert = params.self_signed(&key)?;
    files::write_new(&paths.key, files::KEY_MODE, &key.serialize_pem())?;
    files::write_new(&paths.cert, files::PUBLIC_MODE, &cert.pem())?;
    files::write_new(&paths.index, files::KEY_MODE, "")?;
    let authority = Authority::open(dir)?;
    files::write_new(&paths.crl, files::PUBLIC_MODE, &authority.crl(&[])?)
}

/// Issues a node's mesh certificate: common name and DNS name the node id, DNS name [`MESH_NAME`],
/// usable as client and server.
///
/// # Errors
/// No authority in `ca_dir`, or files of that name in `out_dir`.
pub fn issue_node(
    ca_dir: &Path,
    node: &NodeId,
    validity: Validity,
    out_dir: &Path,
) -> Result<Issued, PkiError> {
    issue(ca_dir, "node", node_params(node)?, validity, out_dir)
}

/// Issues a certificate for TLS listeners, valid for DNS names and IP addresses; the first is its
/// common name.
///
/// # Errors
/// As [`issue_node`]; a name that is neither a DNS name nor an address.
pub fn issue_server(
    ca_dir: &Path,
    names: &[String],
    validity: Validity,
    out_dir: &Path,
) -> Result<Issued, PkiError> {
    let refused = |name: &str, detail| Err(PkiError::Name { name: name.to_owned(), detail });
    let Some(first) = names.first() else { return refused("", "a server needs at least one name") };
    let mut params = named(first, &[ExtendedKeyUsagePurpose::ServerAuth])?;
    for name in names {
        if name.eq_ignore_ascii_case(MESH_NAME) {
            return refused(name, "this name is for nodes");
        }
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => match rustls::pki_types::DnsName::try_from(name.as_str()) {
                Ok(_) => SanType::DnsName(ia5(name)?),
                Err(_) => return refused(name, "it is neither a DNS name nor an IP address"),
            },
        });
    }
    issue(ca_dir, "server", params, validity, out_dir)
}

/// Issues a client's certificate, for vehicles and applications. It is no node: it lacks
/// [`MESH_NAME`].
///
/// # Errors
/// As [`issue_node`]; a common name that is empty, too long, or has control characters.
pub fn issue_client(
    ca_dir: &Path,
    common_name: &str,
    validity: Validity,
    out_dir: &Path,
) -> Result<Issued, PkiError> {
    let params = named(common_name, &[ExtendedKeyUsagePurpose::ClientAuth])?;
    issue(ca_dir, "client", params, validity, out_dir)
}

/// Revokes a certificate of this authority and writes `crl.pem` anew; returns the list's path.
/// Revoking twice is once.
///
/// # Errors
/// The certificate is not of this authority, or a file cannot be read or written.
pub fn revoke(ca_dir: &Path, cert_pem: &Path) -> Result<PathBuf, PkiError> {
    let authority = Authority::open(ca_dir)?;
    let _lock = files::lock(&authority.paths.lock)?;
    let not_ours = || PkiError::NotIssued { cert: cert_pem.to_owned(), ca: ca_dir.to_owned() };
    let chain = pem::read_certs(cert_pem)?;
    let (_, cert) = chain
        .first()
        .and_then(|der| x509_parser::parse_x509_certificate(der).ok())
        .ok_or_else(not_ours)?;
    let serial = hex(cert.raw_serial());
    let mut entries = index::load(&authority.paths.index)?;
    let entry = entries.iter_mut().find(|entry| entry.serial == serial).ok_or_else(not_ours)?;
    entry.revoked_at.get_or_insert(clock::now().unix_timestamp());
    // The list first: a crash between the two leaves the certificate refused, not forgotten.
    files::replace(&authority.paths.crl, files::PUBLIC_MODE, &authority.crl(&entries)?)?;
    index::store(&authority.paths.index, &entries)?;
    Ok(authority.paths.crl)
}

struct Paths {
    cert: PathBuf,
    key: PathBuf,
    index: PathBuf,
    crl: PathBuf,
    lock: PathBuf,
}

impl Paths {
    fn of(dir: &Path) -> Self {
        Self {
            cert: dir.join("ca.pem"),
            key: dir.join("ca.key"),
            index: dir.join("index.tsv"),
            crl: dir.join("crl.pem"),
            lock: dir.join("lock"),
        }
    }
}

struct Authority {
    paths: Paths,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn open(dir: &Path) -> Result<Self, PkiError> {
        let none = |detail: String| PkiError::NoAuthority { path: dir.to_owned(), detail };
        let paths = Paths::of(dir);
        let cert_pem = files::read(&paths.cert).map_err(|error| none(error.to_string()))?;
        let key_pem = files::read(&paths.key).map_err(|error| none(error.to_string()))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|error| none(format!("ca.key: {error}")))?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key)
            .map_err(|error| none(format!("ca.pem: {error}")))?;
        Ok(Self { paths, cert_pem, issuer })
    }

    fn crl(&self, entries: &[index::Entry]) -> Result<String, PkiError> {
        let now = clock::now();
        let revoked = entries.iter().filter_map(|entry| Some((entry, entry.revoked_at?)));
        let revoked_certs: Vec<_> = revoked
            .map(|(entry, at)| RevokedCertParams {
                serial_number: SerialNumber::from(unhex(&entry.serial)),
                revocation_time: OffsetDateTime::from_unix_timestamp(at).unwrap_or(now),
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let params = CertificateRevocationListParams {
            this_update: now - BACKDATE,
            next_update: now + CRL_VALIDITY,
            crl_number: SerialNumber::from(revoked_certs.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}

fn issue(
    ca_dir: &Path,
    kind: &str,
    mut params: CertificateParams,
    validity: Validity,
    out_dir: &Path,
) -> Result<Issued, PkiError> {
    let authority = Authority::open(ca_dir)?;
    let _lock = files::lock(&authority.paths.lock)?;
    let name = common_name_of(&params);
    files::ensure_private_dir(out_dir)?;
    let stem = file_stem(&name);
    let issued = Issued {
        cert: out_dir.join(format!("{stem}.pem")),
        key: out_dir.join(format!("{stem}.key")),
        ca: out_dir.join("ca.pem"),
    };
    files::refuse_existing(&issued.cert)?;
    files::refuse_existing(&issued.key)?;
    match files::write_new(&issued.ca, files::PUBLIC_MODE, &authority.cert_pem) {
        Err(PkiError::Exists { .. }) if files::read(&issued.ca)? == authority.cert_pem => {}
        other => other?,
    }

    let (cert, key, entry) = sign(&authority, kind, name, &mut params, validity)?;
    let mut entries = index::load(&authority.paths.index)?;
    entries.push(entry);
    // The index first: a certificate that is not in it could never be revoked.
    index::store(&authority.paths.index, &entries)?;
    files::write_new(&issued.key, files::KEY_MODE, &key)?;
    files::write_new(&issued.cert, files::PUBLIC_MODE, &cert)?;
    Ok(issued)
}

fn sign(
    authority: &Authority,
    kind: &str,
    name: String,
    params: &mut CertificateParams,
    validity: Validity,
) -> Result<(String, String, index::Entry), PkiError> {
    let key = KeyPair::generate()?;
    let serial = new_serial();
    (params.not_before, params.not_after) = valid_for(validity);
    params.serial_number = Some(serial.clone());
    let cert = params.signed_by(&key, &authority.issuer)?;
    let entry = index::Entry {
        serial: hex(&serial.to_bytes()),
        kind: kind.to_owned(),
        not_after: params.not_after.unix_timestamp(),
        revoked_at: None,
        name,
    };
    Ok((cert.pem(), key.serialize_pem(), entry))
}

fn node_params(node: &NodeId) -> Result<CertificateParams, PkiError> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let mut params = named(node.as_str(), &[ClientAuth, ServerAuth])?;
    for name in [MESH_NAME, node.as_str()] {
        params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
    }
    Ok(params)
}

fn named(
    common_name: &str,
    usages: &[ExtendedKeyUsagePurpose],
) -> Result<CertificateParams, PkiError> {
    let refused = |detail| Err(PkiError::Name { name: common_name.to_owned(), detail });
    if common_name.is_empty() || common_name.chars().count() > COMMON_NAME_CHARS_MAX {
        return refused("a common name has 1 to 64 characters");
    }
    if common_name.chars().any(char::is_control) {
        return refused("it has control characters");
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name_of(params: &CertificateParams) -> String {
    match params.distinguished_name.get(&DnType::CommonName) {
        Some(rcgen::DnValue::Utf8String(name)) => name.clone(),
        _ => String::new(),
    }
}

fn ia5(name: &str) -> Result<Ia5String, PkiError> {
    Ia5String::try_from(name).map_err(PkiError::from)
}

fn valid_for(validity: Validity) -> (OffsetDateTime, OffsetDateTime) {
    let now = clock::now();
    let last =
        now.saturating_add(time::Duration::try_from(validity.0).unwrap_or(time::Duration::MAX));
    (now - BACKDATE, last)
}

/// Random, positive, and never with a leading zero byte, so that its bytes are its DER content.
fn new_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// A common name may hold what a file name may not.
fn file_stem(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let stem: String = name.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if stem.starts_with('.') || stem == "ca" { format!("_{stem}") } else { stem }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests;

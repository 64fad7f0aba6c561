//! The node's QUIC secrets, kept in its data directory.
//!
//! The *reset key* makes stateless reset tokens (RFC 9000 section 10.3): with the same key after a
//! restart, clients of connections the node has forgotten learn so from its first answer, instead
//! of waiting out their idle timeout. It must be another one on every node, else a node that
//! receives a stray packet would end a healthy connection of a neighbour (section 21.11); so the
//! node's name goes into it, and a data directory that was copied does no harm.
//!
//! The *token key* seals address validation tokens, with which a returning client is not limited to
//! three bytes for one.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::{hkdf, hmac};

/// The file in the data directory.
const FILE: &str = "quic.key";

/// Bytes of the secret that all keys are made from.
const SECRET_BYTES: usize = 32;

/// The secrets of a node.
pub struct QuicKeys {
    secret: [u8; SECRET_BYTES],
    node: String,
}

/// The file cannot be read or written: one line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}: {hint}", path.display())]
pub struct KeyError {
    path: PathBuf,
    source: io::Error,
    hint: &'static str,
}

impl QuicKeys {
    /// Reads the secrets of a node, or makes them at its first start.
    ///
    /// # Errors
    /// The file is not ours to read or write, or holds something else.
    pub fn open(data_dir: &Path, node: &str) -> Result<Self, KeyError> {
        let path = data_dir.join(FILE);
        let failed = |hint| move |source| KeyError { path: data_dir.join(FILE), source, hint };
        let secret = match fs::read(&path) {
            Ok(bytes) => {
                let mode = fs::metadata(&path).map_err(failed("check the data directory"))?;
                if mode.permissions().mode() & 0o077 != 0 {
                    tracing::warn!(path = %path.display(), "others may read this secret; chmod 600");
                }
                bytes.try_into().map_err(|_| {
                    failed("remove it to have a new one made")(io::ErrorKind::InvalidData.into())
                })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret: [u8; SECRET_BYTES] = rand::random();
                write(&path, &secret).map_err(failed("check the data directory"))?;
                secret
            }
            Err(error) => return Err(failed("check the data directory")(error)),
        };
        Ok(Self { secret, node: node.to_owned() })
    }

    /// The key of stateless resets.
    #[must_use]
    pub fn reset(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.derived("stateless reset"))
    }

    /// The key of address validation tokens.
    #[must_use]
    pub fn token(&self) -> hkdf::Prk {
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.derived("address token"))
    }

    fn derived(&self, purpose: &str) -> [u8; SECRET_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let mut context = hmac::Context::with_key(&key);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(self.node.as_bytes());
        let mut out = [0; SECRET_BYTES];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

/// Writes the file whole or not at all, for its owner only.
fn write(path: &Path, secret: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("key.new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(secret)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_of(keys: &QuicKeys) -> Vec<u8> {
        hmac::sign(&keys.reset(), b"a connection id").as_ref().to_vec()
    }

    #[test]
    fn keys_outlive_a_restart_and_differ_by_node_even_in_a_copied_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = QuicKeys::open(dir.path(), "rsu-1").unwrap();
        let again = QuicKeys::open(dir.path(), "rsu-1").unwrap();
        let copied = QuicKeys::open(dir.path(), "rsu-2").unwrap();
        assert_eq!(token_of(&first), token_of(&again));
        assert_ne!(token_of(&first), token_of(&copied));
        assert_ne!(first.derived("stateless reset"), first.derived("address token"));
    }

    #[test]
    fn the_secret_is_its_owners_and_a_broken_one_is_named_security() {
        let dir = tempfile::tempdir().unwrap();
        QuicKeys::open(dir.path(), "rsu-1").unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"short").unwrap();
        let said = QuicKeys::open(dir.path(), "rsu-1").map(drop).unwrap_err().to_string();
        assert!(
            said.contains(FILE) && said.contains("remove it") && !said.contains('\n'),
            "{said}"
        );
    }
}

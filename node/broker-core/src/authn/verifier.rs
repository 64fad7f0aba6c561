//! What is kept of a password: salted, and of no use to log in with (RFC 5802, 3).

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use thiserror::Error;

use super::name::prepare_password;

/// Bytes of a key: SHA-256's.
pub const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// Fewest iterations: "the minimum iteration-count is 4096" (RFC 7677, 4).
pub const ITERATIONS_MIN: u32 = 4_096;

/// Most iterations: a second of work for a check, which is more than anybody waits.
pub const ITERATIONS_MAX: u32 = 2_000_000;

/// Iterations of new verifiers: some milliseconds of a server's core.
pub const ITERATIONS_DEFAULT: u32 = 20_000;

/// Bytes of a new salt.
pub const SALT_BYTES: usize = 16;

/// Longest salt that is read, in bytes.
const SALT_BYTES_MAX: usize = 256;

/// What begins a verifier's text, as RFC 5803 and PostgreSQL write it.
pub(super) const SCHEME: &str = "SCRAM-SHA-256$";

/// Keys derived from a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// How often the hash was taken.
    pub iterations: NonZeroU32,
    /// What makes equal passwords differ.
    pub salt: Box<[u8]>,
    /// What the client's proof is checked with.
    pub stored_key: [u8; KEY_BYTES],
    /// What the server proves itself with.
    pub server_key: [u8; KEY_BYTES],
}

/// A text that is no verifier, or numbers that make none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VerifierError {
    /// Its form.
    #[error("not SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY")]
    Form,
    /// Its iterations.
    #[error("iterations are {ITERATIONS_MIN} to {ITERATIONS_MAX}")]
    Iterations,
}

impl Verifier {
    /// Derives the keys of a password; takes a moment for every ten thousand iterations.
    ///
    /// # Errors
    /// Too few or too many iterations.
    pub fn of_password(
        password: &[u8],
        salt: &[u8],
        iterations: u32,
    ) -> Result<Self, VerifierError> {
        Self::with_client_key(password, salt, iterations).map(|(verifier, _)| verifier)
    }

    /// The same, with the key that only who knows the password has.
    pub(super) fn with_client_key(
        password: &[u8],
        salt: &[u8],
        iterations: u32,
    ) -> Result<(Self, [u8; KEY_BYTES]), VerifierError> {
        let iterations = checked(iterations)?;
        let salted = salted(password, salt, iterations);
        let client_key = hmac::sign(&salted, b"Client Key");
        let mut stored_key = [0; KEY_BYTES];
        stored_key.copy_from_slice(digest::digest(&digest::SHA256, client_key.as_ref()).as_ref());
        let mut server_key = [0; KEY_BYTES];
        server_key.copy_from_slice(hmac::sign(&salted, b"Server Key").as_ref());
        let mut own_key = [0; KEY_BYTES];
        own_key.copy_from_slice(client_key.as_ref());
        Ok((Self { iterations, salt: salt.into(), stored_key, server_key }, own_key))
    }

    /// Whether this is the password; takes as long as deriving its keys.
    #[must_use]
    pub fn is_password(&self, password: &[u8]) -> bool {
        let salted = salted(password, &self.salt, self.iterations);
        let client_key = hmac::sign(&salted, b"Client Key");
        self.is_stored_key(digest::digest(&digest::SHA256, client_key.as_ref()).as_ref())
    }

    /// Compares in a time that does not depend on where the keys differ.
    #[must_use]
    pub(super) fn is_stored_key(&self, key: &[u8]) -> bool {
        let blind = hmac::Key::new(hmac::HMAC_SHA256, &self.server_key);
        hmac::verify(&blind, &self.stored_key, hmac::sign(&blind, key).as_ref()).is_ok()
    }
}

fn checked(iterations: u32) -> Result<NonZeroU32, VerifierError> {
    NonZeroU32::new(iterations)
        .filter(|count| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&count.get()))
        .ok_or(VerifierError::Iterations)
}

/// HMAC with SaltedPassword.
fn salted(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> hmac::Key {
    let mut out = [0; KEY_BYTES];
    let password = prepare_password(password);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &password, &mut out);
    hmac::Key::new(hmac::HMAC_SHA256, &out)
}

impl fmt::Debug for Verifier {
    /// Without its keys, which a log does not need.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&*self.salt, &self.stored_key, &self.server_key].map(|bytes| BASE64.encode(bytes));
        write!(f, "{SCHEME}{}:{salt}${stored}:{server}", self.iterations)
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let rest = text.strip_prefix(SCHEME).ok_or(VerifierError::Form)?;
        let (salting, keys) = rest.split_once('$').ok_or(VerifierError::Form)?;
        let (iterations, salt) = salting.split_once(':').ok_or(VerifierError::Form)?;
        let (stored, server) = keys.split_once(':').ok_or(VerifierError::Form)?;
        let bytes = |text: &str| BASE64.decode(text).map_err(|_| VerifierError::Form);
        let key = |text: &str| -> Result<[u8; KEY_BYTES], VerifierError> {
            bytes(text)?.try_into().map_err(|_| VerifierError::Form)
        };
        let iterations = iterations.parse().map_err(|_| VerifierError::Form)?;
        let salt = bytes(salt)?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(VerifierError::Form);
        }
        Ok(Self {
            iterations: checked(iterations)?,
            salt: salt.into(),
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_knows_its_password_and_reads_back_as_written() {
        let verifier = Verifier::of_password(b"pencil", b"salt", ITERATIONS_MIN).unwrap();
        assert!(verifier.is_password(b"pencil") && !verifier.is_password(b"Pencil"));
        assert!(!verifier.is_password(b""));
        let text = verifier.to_string();
        assert_eq!(text.parse(), Ok(verifier.clone()));
        assert!(!format!("{verifier:?}").contains("stored"), "a log shows no keys");
        for broken in [&text[1..], &text[..text.len() - 4], "", "SCRAM-SHA-256$4096:$:"] {
            assert_eq!(broken.parse::<Verifier>(), Err(VerifierError::Form), "{broken}");
        }
        let weak = text.replace("$4096:", "$4095:");
        assert_eq!(weak.parse::<Verifier>(), Err(VerifierError::Iterations));
        assert_eq!(Verifier::of_password(b"", b"", 1), Err(VerifierError::Iterations));
    }
}

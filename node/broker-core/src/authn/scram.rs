//! SCRAM-SHA-256 (RFC 5802, RFC 7677): the server's side of one exchange.
//!
//! ```text
//!  client                                          server
//!    │ n,,n=user,r=cnonce              (CONNECT)     │
//!    ├──────────────────────────────────────────────▶│  Exchange::begin
//!    │ r=cnonce+snonce,s=salt,i=iterations  (AUTH)   │
//!    │◀──────────────────────────────────────────────┤
//!    │ c=biws,r=cnonce+snonce,p=proof       (AUTH)   │
//!    ├──────────────────────────────────────────────▶│  Exchange::finish
//!    │ v=signature                       (CONNACK)   │
//!    │◀──────────────────────────────────────────────┤
//! ```
//!
//! The server never learns the password, and what it stores does not let anybody log in elsewhere.
//! Channel binding is not offered; a client that insists on it is refused.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac};
use thiserror::Error;

use super::name::{self, UserName};
use super::verifier::Verifier;

/// The name of the method in MQTT's Authentication Method.
pub const METHOD: &str = "SCRAM-SHA-256";

/// Longest message of a client, in bytes: a name and a nonce of a kilobyte each, with room.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// Why an exchange fails. A client is told that it is not authorized, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScramError {
    /// A message that the RFC's grammar does not have.
    #[error("the message is not one of SCRAM (RFC 5802, 7)")]
    Syntax,
    /// The client insists on what was not offered.
    #[error("channel binding is not offered (RFC 5802, 6)")]
    ChannelBinding,
    /// The client wants to act as somebody else.
    #[error("the authorization identity is not the user (RFC 5802, 5.1)")]
    OtherIdentity,
    /// An extension that must be understood.
    #[error("an extension is not known (RFC 5802, 5.1, m=)")]
    Extension,
    /// The client answers something else than was asked.
    #[error("nonce or channel binding changed (RFC 5802, 5.1)")]
    OtherExchange,
    /// The user does not exist, or the proof does not fit.
    #[error("no such user, or not its password")]
    Proof,
}

/// The client's first message.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientFirst<'a> {
    /// Who the client says it is.
    pub name: UserName,
    /// Whether channel binding is possible, and for whom the client acts.
    gs2_header: &'a str,
    /// What follows.
    bare: &'a str,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    /// Reads the message.
    ///
    /// # Errors
    /// It cannot be read, or asks for what is not offered.
    pub fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let text = text(message)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(ScramError::Syntax);
        };
        match flag {
            "n" | "y" => {}
            flag if flag.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Syntax),
        }
        let mut attributes = bare.split(',');
        let first = attributes.next().unwrap_or_default();
        if first.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let name = user_name(first.strip_prefix("n=").ok_or(ScramError::Syntax)?)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| is_nonce(nonce)).ok_or(ScramError::Syntax)?;
        if !identity.is_empty() {
            let identity = identity.strip_prefix("a=").ok_or(ScramError::Syntax)?;
            if user_name(identity)? != name {
                return Err(ScramError::OtherIdentity);
            }
        }
        let gs2_header = &text[..text.len() - bare.len()];
        Ok(Self { name, gs2_header, bare, nonce })
    }
}

/// An exchange that waits for the client's last message.
#[derive(Debug)]
pub struct Exchange {
    name: UserName,
    verifier: Arc<Verifier>,
    /// Whether the user exists. If not, the exchange goes on with a verifier that nothing fits.
    known: bool,
    gs2_header: Box<str>,
    /// The client's nonce, then ours.
    nonce: Box<str>,
    /// The client's first message and ours, as both sign them.
    signed: String,
}

impl Exchange {
    /// Begins an exchange and writes the server's first message. `nonce` is never given twice.
    pub(super) fn begin(
        first: ClientFirst<'_>,
        verifier: Arc<Verifier>,
        known: bool,
        nonce: &str,
    ) -> (Self, String) {
        let nonce = format!("{}{nonce}", first.nonce);
        let mut message = format!("r={nonce},s=");
        BASE64.encode_string(&verifier.salt, &mut message);
        let _ = write!(message, ",i={}", verifier.iterations);
        let exchange = Self {
            name: first.name,
            verifier,
            known,
            gs2_header: first.gs2_header.into(),
            nonce: nonce.into(),
            signed: format!("{},{message},", first.bare),
        };
        (exchange, message)
    }

    /// Who the client says it is.
    #[must_use]
    pub fn name(&self) -> &UserName {
        &self.name
    }

    /// Takes the client's proof and writes the server's.
    ///
    /// # Errors
    /// The client is not the user.
    pub fn finish(&self, message: &[u8]) -> Result<String, ScramError> {
        let text = text(message)?;
        let (unproved, proof) = text.rsplit_once(",p=").ok_or(ScramError::Syntax)?;
        let mut attributes = unproved.split(',');
        let binding = attributes.next().and_then(|text| text.strip_prefix("c="));
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r="));
        let (Some(binding), Some(nonce)) = (binding, nonce) else {
            return Err(ScramError::Syntax);
        };
        let binding = BASE64.decode(binding).map_err(|_| ScramError::Syntax)?;
        if binding != self.gs2_header.as_bytes() || nonce != &*self.nonce {
            return Err(ScramError::OtherExchange);
        }
        let mut key = BASE64.decode(proof).map_err(|_| ScramError::Syntax)?;
        let signed = format!("{}{unproved}", self.signed);
        let signature = sign(&self.verifier.stored_key, signed.as_bytes());
        if key.len() != signature.as_ref().len() {
            return Err(ScramError::Syntax);
        }
        // ClientKey = ClientProof XOR HMAC(StoredKey, AuthMessage), and StoredKey = H(ClientKey).
        for (byte, mask) in key.iter_mut().zip(signature.as_ref()) {
            *byte ^= mask;
        }
        let stored = digest::digest(&digest::SHA256, &key);
        let fits = self.verifier.is_stored_key(stored.as_ref());
        let answer = sign(&self.verifier.server_key, signed.as_bytes());
        if !fits || !self.known {
            return Err(ScramError::Proof);
        }
        let mut message = String::from("v=");
        BASE64.encode_string(answer, &mut message);
        Ok(message)
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Syntax)?;
    if text.len() > MESSAGE_BYTES_MAX || text.contains('\0') {
        return Err(ScramError::Syntax);
    }
    Ok(text)
}

/// `saslname`: a name in which comma and equals sign are written `=2C` and `=3D`.
fn user_name(text: &str) -> Result<UserName, ScramError> {
    let mut plain = String::with_capacity(text.len());
    let mut pieces = text.split('=');
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (None, Some(rest)) => ('=', rest),
            (None, None) => return Err(ScramError::Syntax),
        };
        plain.push(sign);
        plain.push_str(rest);
    }
    name::prepare(&plain).ok_or(ScramError::Syntax)
}

/// Printable ASCII without a comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn sign(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, 3.
    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                  p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn exchange(known: bool) -> Exchange {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::of_password(b"pencil", &salt, 4_096).unwrap();
        let first = ClientFirst::parse(CLIENT_FIRST).unwrap();
        assert_eq!(first.name.as_str(), "user");
        let (exchange, message) = Exchange::begin(first, Arc::new(verifier), known, SERVER_NONCE);
        assert_eq!(message, SERVER_FIRST);
        exchange
    }

    #[test]
    fn the_example_of_rfc_7677() {
        assert_eq!(exchange(true).finish(CLIENT_FINAL).as_deref(), Ok(SERVER_FINAL));
    }

    #[test]
    fn security_a_proof_of_something_else_is_refused() {
        let changed = |from: &str, to: &str| {
            let message = std::str::from_utf8(CLIENT_FINAL).unwrap().replace(from, to);
            exchange(true).finish(message.as_bytes())
        };
        assert_eq!(changed("p=dH", "p=dG"), Err(ScramError::Proof));
        assert_eq!(changed("r=rO", "r=rP"), Err(ScramError::OtherExchange));
        assert_eq!(changed("c=biws", "c=eSws"), Err(ScramError::OtherExchange));
        assert_eq!(changed("p=dHzb", "p="), Err(ScramError::Syntax));
        assert_eq!(changed(",p=", ",q="), Err(ScramError::Syntax));
        assert_eq!(changed("c=", "d="), Err(ScramError::Syntax));
        assert_eq!(exchange(false).finish(CLIENT_FINAL), Err(ScramError::Proof));
        assert_eq!(exchange(true).finish(b"\xff"), Err(ScramError::Syntax));
    }

    #[test]
    fn first_messages() {
        let name = |message: &str| {
            ClientFirst::parse(message.as_bytes()).map(|first| first.name.as_str().to_owned())
        };
        let long = format!("n,,n={},r=x", "a".repeat(MESSAGE_BYTES_MAX));
        let rows: &[(&str, Result<&str, ScramError>)] = &[
            ("n,,n=user,r=x", Ok("user")),
            ("y,,n=user,r=x", Ok("user")),
            ("n,a=user,n=user,r=x", Ok("user")),
            ("n,,n=a=2Cb=3Dc,r=x", Ok("a,b=c")),
            ("n,,n=user,r=x,ext=1", Ok("user")),
            ("n,a=root,n=user,r=x", Err(ScramError::OtherIdentity)),
            ("p=tls-unique,,n=user,r=x", Err(ScramError::ChannelBinding)),
            ("n,,m=1,n=user,r=x", Err(ScramError::Extension)),
            ("n,,n=a=2Db,r=x", Err(ScramError::Syntax)),
            ("n,,n=,r=x", Err(ScramError::Syntax)),
            ("n,,n=user,r=", Err(ScramError::Syntax)),
            ("n,,n=user,r=a b", Err(ScramError::Syntax)),
            ("n,,n=user", Err(ScramError::Syntax)),
            ("z,,n=user,r=x", Err(ScramError::Syntax)),
            ("", Err(ScramError::Syntax)),
            (&long, Err(ScramError::Syntax)),
        ];
        for (message, expected) in rows {
            assert_eq!(name(message), expected.map(str::to_owned), "{message}");
        }
    }
}

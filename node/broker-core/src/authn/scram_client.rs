//! SCRAM-SHA-256: the client's side of an exchange, for our own client.
//!
//! The picture is at [`scram`](super::scram). The client does not say its password, and learns that
//! the server knows it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use thiserror::Error;

use super::name::prepare;
use super::verifier::{KEY_BYTES, Verifier};

/// "no channel binding, and nobody else's name": what a client's messages begin with.
const GS2_HEADER: &str = "n,,";

/// Why a server is not believed, or not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ServerFault {
    /// Its message is none of SCRAM, or asks for too much work.
    #[error("the server's message is not one of SCRAM-SHA-256")]
    Syntax,
    /// It does not know the password either.
    #[error("the server does not prove that it knows the password")]
    Proof,
}

/// An exchange of a client.
#[derive(Debug)]
pub struct ClientExchange {
    /// The first message without its header, which both sign.
    bare: String,
    password: Box<[u8]>,
    nonce: String,
    /// What the server will prove itself with.
    proof: Option<hmac::Tag>,
}

impl ClientExchange {
    /// Begins an exchange; none if nobody can have such a name. `nonce` is printable ASCII without
    /// commas, and never used twice.
    #[must_use]
    pub fn begin(user: &str, password: &[u8], nonce: &str) -> Option<Self> {
        let name = prepare(user)?.as_str().replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={name},r={nonce}");
        Some(Self { bare, password: password.into(), nonce: nonce.to_owned(), proof: None })
    }

    /// The first message, for CONNECT.
    #[must_use]
    pub fn first(&self) -> String {
        format!("{GS2_HEADER}{}", self.bare)
    }

    /// Takes the server's first message and gives the answer to it.
    ///
    /// # Errors
    /// It is none, or comes a second time.
    pub fn answer(&mut self, message: &[u8]) -> Result<String, ServerFault> {
        let text = std::str::from_utf8(message).map_err(|_| ServerFault::Syntax)?;
        let mut attributes = text.split(',');
        let mut next = |name| attributes.next().and_then(|text| text.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(iterations)) = (next("r="), next("s="), next("i="))
        else {
            return Err(ServerFault::Syntax);
        };
        let is_ours = nonce.len() > self.nonce.len() && nonce.starts_with(&self.nonce);
        let salt = BASE64.decode(salt).map_err(|_| ServerFault::Syntax)?;
        let iterations = iterations.parse().map_err(|_| ServerFault::Syntax)?;
        if !is_ours || self.proof.is_some() {
            return Err(ServerFault::Syntax);
        }
        let keys = Verifier::with_client_key(&self.password, &salt, iterations);
        let (verifier, mut proof) = keys.map_err(|_| ServerFault::Syntax)?;
        let unproved = format!("c={},r={nonce}", BASE64.encode(GS2_HEADER));
        let signed = format!("{},{text},{unproved}", self.bare);
        // ClientProof = ClientKey XOR HMAC(StoredKey, AuthMessage)
        for (byte, mask) in proof.iter_mut().zip(sign(&verifier.stored_key, &signed).as_ref()) {
            *byte ^= mask;
        }
        self.proof = Some(sign(&verifier.server_key, &signed));
        Ok(format!("{unproved},p={}", BASE64.encode(proof)))
    }

    /// Takes the server's proof, which comes with its acceptance.
    ///
    /// # Errors
    /// It is none.
    pub fn verify(&self, message: Option<&[u8]>) -> Result<(), ServerFault> {
        let proof = message.and_then(|text| text.strip_prefix(b"v="));
        let proof = proof.and_then(|text| BASE64.decode(text).ok()).ok_or(ServerFault::Proof)?;
        let expected = self.proof.as_ref().ok_or(ServerFault::Proof)?;
        // A client has no secret in this comparison.
        if proof == expected.as_ref() { Ok(()) } else { Err(ServerFault::Proof) }
    }
}

fn sign(key: &[u8; KEY_BYTES], message: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, 3.
    const SERVER_FIRST: &[u8] = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                  s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn begun() -> ClientExchange {
        ClientExchange::begin("user", b"pencil", "rOprNGfwEbeRWgbNEkqO").unwrap()
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let mut exchange = begun();
        assert_eq!(exchange.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(exchange.verify(Some(SERVER_FINAL)), Err(ServerFault::Proof), "not yet");
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.answer(SERVER_FIRST).as_deref(), Ok(last));
        assert_eq!(exchange.verify(Some(SERVER_FINAL)), Ok(()));
        assert_eq!(exchange.answer(SERVER_FIRST), Err(ServerFault::Syntax), "once only");
    }

    #[test]
    fn security_a_server_that_knows_nothing_is_not_believed() {
        for message in [
            &b"r=another%hvYDpWU,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"[..],
            b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=*,i=4096",
            b"e=unknown-user",
            b"\xff",
            b"",
        ] {
            assert_eq!(begun().answer(message), Err(ServerFault::Syntax), "{message:?}");
        }
        let mut exchange = begun();
        exchange.answer(SERVER_FIRST).unwrap();
        for proof in [None, Some(&b"v="[..]), Some(b"v=AAAA"), Some(b"e=other-error")] {
            assert_eq!(exchange.verify(proof), Err(ServerFault::Proof));
        }
    }

    #[test]
    fn a_name_is_written_so_that_it_can_be_read() {
        let exchange = ClientExchange::begin("a,b=c", b"", "x").unwrap();
        assert_eq!(exchange.first(), "n,,n=a=2Cb=3Dc,r=x");
        assert!(ClientExchange::begin("", b"", "x").is_none());
    }
}

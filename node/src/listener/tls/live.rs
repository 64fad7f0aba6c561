//! What the handshakes of all TLS listeners use, replaceable while they serve: certificates by
//! name, who judges clients, and the key of session tickets.
//!
//! A listener is given one rustls configuration for its life; what that asks at each handshake is
//! here. Replacing it takes effect with the next handshake and leaves connections alone. Tickets of
//! before are worth nothing then, since whom they let in may have been revoked.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::{TlsError, certified, client_verifier, provider};
use crate::config::sections::{ClientCertificate, TlsSection};

/// Tickets given with each handshake: a client opens one connection at a time.
const TICKETS: usize = 1;

/// What was read from the files of a `[tls]` section.
#[derive(Debug)]
pub struct Material {
    certificates: ByName<Arc<CertifiedKey>>,
    /// Who judges clients' certificates, if they are asked for.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// Seals tickets, with a key that is made anew every few hours.
    tickets: Arc<dyn ProducesTickets>,
}

impl Material {
    /// Reads the files.
    ///
    /// # Errors
    /// One is missing or wrong.
    pub fn load(section: &TlsSection) -> Result<Self, TlsError> {
        let certificates = ByName::load(section)?;
        let clients = match section.client_certificate {
            ClientCertificate::None => None,
            ClientCertificate::Optional | ClientCertificate::Required => {
                Some(client_verifier(section, provider())?)
            }
        };
        let tickets = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Crypto)?;
        Ok(Self { certificates, clients, tickets })
    }
}

/// The present [`Material`] of all listeners.
#[derive(Debug)]
pub struct Live {
    now: ArcSwap<Material>,
    provider: Arc<CryptoProvider>,
}

impl Live {
    /// What serves from the start.
    #[must_use]
    pub fn new(material: Material) -> Arc<Self> {
        Arc::new(Self { now: ArcSwap::from_pointee(material), provider: provider() })
    }

    /// What serves from the next handshake on.
    pub fn replace(&self, material: Material) {
        self.now.store(Arc::new(material));
    }

    /// A configuration whose certificates and judge of clients are always the present ones; without
    /// resumption and protocols, which are the listener's affair.
    ///
    /// # Errors
    /// The cryptography lacks what TLS 1.2 and 1.3 need.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Crypto)?
            .with_client_cert_verifier(self.verifier())
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        Ok(config)
    }

    /// The configuration of listeners on TCP: sessions are resumed by tickets, so that the node
    /// keeps nothing for who is away.
    ///
    /// # Errors
    /// As for [`Live::server_config`].
    pub fn tcp_config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let mut config = self.server_config()?;
        config.ticketer = Arc::clone(self) as Arc<dyn ProducesTickets>;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = TICKETS;
        Ok(config)
    }

    /// Who judges clients' certificates, always as configured at the moment.
    #[must_use]
    pub fn verifier(self: &Arc<Self>) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(self) as Arc<dyn ClientCertVerifier>
    }
}

/// What there is by the name that a client asks for (RFC 6066, section 3).
#[derive(Debug)]
struct ByName<T> {
    /// For clients that name no server, or an unknown one.
    default: T,
    /// By name in small letters; `*.` stands for one label.
    named: BTreeMap<String, T>,
}

impl ByName<Arc<CertifiedKey>> {
    fn load(section: &TlsSection) -> Result<Self, TlsError> {
        let keys = ("tls.cert", "tls.key");
        let default = certified(section.cert.as_deref(), section.key.as_deref(), keys)?;
        let mut named = BTreeMap::new();
        for entry in &section.certificates {
            let keys = ("tls.certificates.cert", "tls.certificates.key");
            let key = certified(Some(&entry.cert), Some(&entry.key), keys)?;
            for name in &entry.names {
                named.insert(name.to_ascii_lowercase(), Arc::clone(&key));
            }
        }
        Ok(Self { default, named })
    }
}

impl<T> ByName<T> {
    fn of(&self, name: Option<&str>) -> &T {
        let Some(name) = name.filter(|_| !self.named.is_empty()) else { return &self.default };
        let name = name.to_ascii_lowercase();
        let wild = || {
            let (_, parent) = name.split_once('.')?;
            self.named.get(&format!("*.{parent}"))
        };
        self.named.get(&name).or_else(wild).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.now.load().certificates.of(hello.server_name())))
    }
}

impl ProducesTickets for Live {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.now.load().tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.now.load().tickets.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.now.load().tickets.decrypt(cipher)
    }
}

impl ClientCertVerifier for Live {
    fn offer_client_auth(&self) -> bool {
        self.now.load().clients.as_ref().is_some_and(|clients| clients.offer_client_auth())
    }

    fn client_auth_mandatory(&self) -> bool {
        self.now.load().clients.as_ref().is_some_and(|clients| clients.client_auth_mandatory())
    }

    /// None are hinted at, since they may change; a client has one certificate and shows it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        cert: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match &self.now.load().clients {
            Some(clients) => clients.verify_client_cert(cert, between, now),
            None => Err(rustls::Error::General("no client certificate was asked for".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_chosen_by_name_and_the_default_is_for_the_rest() {
        let named = ["edge.example", "*.cars.example"];
        let named = named.into_iter().zip([1, 2]);
        let named = named.map(|(name, mark)| (name.to_owned(), mark)).collect();
        let certificates = ByName { default: 0, named };
        for (asked, mark) in [
            (Some("edge.example"), 1),
            (Some("EDGE.example"), 1),
            (Some("one.cars.example"), 2),
            (Some("two.one.cars.example"), 0),
            (Some("cars.example"), 0),
            (Some("elsewhere"), 0),
            (None, 0),
        ] {
            assert_eq!(*certificates.of(asked), mark, "{asked:?}");
        }
    }
}

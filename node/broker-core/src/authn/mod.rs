//! Who a client is: users with passwords, by User Name and Password or by SCRAM (MQTT 5.0, 4.12).
//!
//! | file | holds |
//! |---|---|
//! | [`name`] | names and passwords as they are compared |
//! | [`verifier`] | what is kept of a password |
//! | [`users`] | the file of users |
//! | [`scram`] | an exchange |
//! | [`cache`] | passwords found right a moment ago |
//!
//! The name a client is known by, its *principal*, stands in its CONNECT and never changes
//! ([`claimed_principal`]): it decides the client's shard and session before it is proved. Nothing
//! is served before it is proved.
//!
//! A password costs milliseconds to check, on a thread of its own ([`Authn::check_password`]); a
//! user that does not exist costs the same.

pub mod cache;
pub mod name;
pub mod scram;
pub mod scram_client;
pub mod users;
pub mod verifier;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use parking_lot::{Mutex, RwLock};
use ring::hmac;
use verge_model::Millis;
use verge_mqtt_proto::Connect;

use self::cache::Cache;
use self::name::UserName;
use self::scram::{ClientFirst, Exchange, ScramError};
use self::users::Users;
use self::verifier::{KEY_BYTES, SALT_BYTES, Verifier};

/// Bytes of a server's nonce: more than can be guessed.
const NONCE_BYTES: usize = 18;

/// The authenticator of a node, shared by its threads.
pub struct Authn {
    /// A lock, since the file may be read anew; it is taken for CONNECT only.
    users: RwLock<Arc<Users>>,
    /// What nonces, and salts of users that do not exist, are derived from. Never leaves the
    /// process.
    secret: hmac::Key,
    nonces: AtomicU64,
    /// A lock held for one look-up.
    cache: Mutex<Cache>,
}

impl std::fmt::Debug for Authn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authn").field("users", &self.users.read().len()).finish_non_exhaustive()
    }
}

/// The password of a CONNECT that waits to be checked.
pub struct PasswordCheck {
    /// Whose it is said to be.
    pub name: UserName,
    /// What the client gave.
    pub password: Box<[u8]>,
}

impl std::fmt::Debug for PasswordCheck {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordCheck").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a password was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordVerdict {
    /// It is the user's.
    Right,
    /// It is not, or there is no such user.
    Wrong,
    /// Too many wait to be checked.
    Busy,
}

impl Authn {
    /// An authenticator of these users. `secret` comes from the system's randomness.
    #[must_use]
    pub fn new(users: Users, secret: &[u8; KEY_BYTES]) -> Self {
        Self {
            users: RwLock::new(Arc::new(users)),
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
            nonces: AtomicU64::new(0),
            cache: Mutex::default(),
        }
    }

    /// Takes other users from now on; nothing found about the earlier ones counts.
    pub fn replace(&self, users: Users) {
        *self.users.write() = Arc::new(users);
        self.cache.lock().clear();
    }

    /// Begins a SCRAM exchange, and writes the server's first message.
    ///
    /// # Errors
    /// The client's first message is not one, or asks for what is not offered.
    pub fn begin(&self, first: &[u8]) -> Result<(Exchange, String), ScramError> {
        let first = ClientFirst::parse(first)?;
        let (verifier, known) = self.verifier(&first.name);
        let number = self.nonces.fetch_add(1, Ordering::Relaxed);
        let nonce = self.derive("nonce", &number.to_be_bytes());
        let nonce = BASE64.encode(&nonce.as_ref()[..NONCE_BYTES]);
        Ok(Exchange::begin(first, verifier, known, &nonce))
    }

    /// Whether the password was found right a moment ago.
    #[must_use]
    pub fn was_right(&self, check: &PasswordCheck, now: Millis) -> bool {
        self.cache.lock().contains(&self.fingerprint(check), now)
    }

    /// Whether the password is right. Takes milliseconds; not for a thread that serves clients.
    #[must_use]
    pub fn check_password(&self, check: &PasswordCheck, now: Millis) -> PasswordVerdict {
        let users = Arc::clone(&self.users.read());
        let (verifier, known) = self.verifier(&check.name);
        if !verifier.is_password(&check.password) || !known {
            return PasswordVerdict::Wrong;
        }
        let mut cache = self.cache.lock();
        // Not if the users changed meanwhile.
        if Arc::ptr_eq(&users, &self.users.read()) {
            cache.insert(self.fingerprint(check), now);
        }
        PasswordVerdict::Right
    }

    /// The verifier of a user, or one that nothing fits, which looks like a user's: the same salt
    /// every time.
    fn verifier(&self, name: &UserName) -> (Arc<Verifier>, bool) {
        let users = Arc::clone(&self.users.read());
        // Derived either way, so that both take the same time.
        let salt = self.derive("salt", name.as_str().as_bytes());
        let key = self.derive("key", name.as_str().as_bytes());
        if let Some(verifier) = users.get(name) {
            return (Arc::clone(verifier), true);
        }
        let mut stored_key = [0; KEY_BYTES];
        stored_key.copy_from_slice(key.as_ref());
        let verifier = Verifier {
            iterations: users.iterations().try_into().expect("iterations of a verifier"),
            salt: salt.as_ref()[..SALT_BYTES].into(),
            stored_key,
            server_key: stored_key,
        };
        (Arc::new(verifier), false)
    }

    fn fingerprint(&self, check: &PasswordCheck) -> [u8; KEY_BYTES] {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(b"password");
        context.update(&(check.name.as_str().len() as u64).to_be_bytes());
        context.update(check.name.as_str().as_bytes());
        context.update(&check.password);
        let mut out = [0; KEY_BYTES];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    fn derive(&self, what: &str, from: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(what.as_bytes());
        context.update(&[0]);
        context.update(from);
        context.sign()
    }
}

/// Who a CONNECT says its client is, before any proof: by certificate, by SCRAM, by User Name if
/// there are users to compare with, or nobody in particular. It decides the client's shard.
#[must_use]
pub fn claimed_principal(
    connect: &Connect<'_>,
    certificate_subject: Option<&Arc<str>>,
    has_users: bool,
) -> Arc<str> {
    if let Some(subject) = certificate_subject {
        return Arc::clone(subject);
    }
    if !has_users {
        return "".into();
    }
    let name = match connect.properties.authentication_method {
        Some(_) => {
            let first = connect.properties.authentication_data.unwrap_or_default();
            ClientFirst::parse(first).ok().map(|first| first.name)
        }
        None => connect.username.and_then(name::prepare),
    };
    name.map_or_else(|| "".into(), |name| name.to_principal())
}

#[cfg(test)]
mod tests {
    use super::verifier::ITERATIONS_MIN;
    use super::*;

    pub(crate) fn authn(users: &[(&str, &str)]) -> Authn {
        let mut all = Users::default();
        for (name, password) in users {
            let verifier = Verifier::of_password(password.as_bytes(), b"salt", ITERATIONS_MIN);
            all.put(users::prepare(name).unwrap(), verifier.unwrap());
        }
        Authn::new(all, &[7; KEY_BYTES])
    }

    fn check(name: &str, password: &str) -> PasswordCheck {
        let name = name::prepare(name).unwrap();
        PasswordCheck { name, password: password.as_bytes().into() }
    }

    #[test]
    fn a_right_password_is_remembered_for_a_while_and_a_wrong_one_never() {
        let authn = authn(&[("a", "x")]);
        let now = Millis(0);
        let right = check("a", "x");
        assert!(!authn.was_right(&right, now));
        assert_eq!(authn.check_password(&right, now), PasswordVerdict::Right);
        assert!(authn.was_right(&right, now));
        assert!(!authn.was_right(&right, now + cache::CACHED));
        for wrong in [check("a", "y"), check("b", "x"), check("ax", "")] {
            assert_eq!(authn.check_password(&wrong, now), PasswordVerdict::Wrong);
            assert!(!authn.was_right(&wrong, now));
        }
    }

    #[test]
    fn other_users_end_what_was_found_about_the_earlier_ones() {
        let authn = authn(&[("a", "x")]);
        let right = check("a", "x");
        assert_eq!(authn.check_password(&right, Millis(0)), PasswordVerdict::Right);
        authn.replace(Users::default());
        assert!(!authn.was_right(&right, Millis(0)));
        assert_eq!(authn.check_password(&right, Millis(0)), PasswordVerdict::Wrong);
    }

    #[test]
    fn security_a_user_that_does_not_exist_looks_like_one_that_does() {
        let authn = authn(&[("a", "x")]);
        let salt = |name: &str| {
            let (_, message) = authn.begin(format!("n,,n={name},r=n").as_bytes()).unwrap();
            message.split(',').skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(salt("ghost"), salt("ghost"), "the same salt each time");
        assert_ne!(salt("ghost")[0], salt("ghost2")[0]);
        assert_eq!(salt("ghost")[1], salt("a")[1], "as many iterations");
    }

    #[test]
    fn security_no_nonce_comes_twice() {
        let authn = authn(&[]);
        let nonce = || authn.begin(b"n,,n=a,r=n").unwrap().1;
        assert_ne!(nonce(), nonce());
    }
}

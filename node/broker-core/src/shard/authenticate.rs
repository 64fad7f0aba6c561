//! Who a client is, before it is served (MQTT 5.0, 3.1.4 and 4.12).
//!
//! ```text
//!           certificate, or nobody and that is allowed
//!  CONNECT ───────────────────────────────────────────────────────────▶ placed
//!     │ User Name ──▶ password on its way to a thread ──▶ right ──────▶
//!     │                                                   wrong ──▶ refused, 0x86
//!     │ SCRAM-SHA-256 ──▶ AUTH 0x18 ──▶ AUTH of the client ──▶ proof ─▶
//!     ▼                                                   none ───▶ refused, 0x87
//!  refused: 0x8C another method · 0x86, 0x87 no credentials
//! ```
//!
//! A served client may prove itself again at any time; its other packets go on meanwhile. The
//! principal stays: it is named in CONNECT, and decides shard and session.

use std::sync::Arc;

use verge_model::{Millis, Now};
use verge_mqtt_proto::{Auth, Connect, ReasonCode};

use super::Shard;
use super::api::{ConnId, Output};
use super::connect::PendingConnect;
use super::connection::Phase;
use crate::authn::name::{self, UserName};
use crate::authn::scram::{Exchange, METHOD};
use crate::authn::{PasswordCheck, PasswordVerdict};

/// What is left to be proved, or was.
#[derive(Debug)]
pub(super) struct Authentication {
    /// The user of a SCRAM exchange, who is the same in each.
    user: Option<UserName>,
    /// The exchange under way.
    exchange: Option<Exchange>,
    /// The CONNECT that waits.
    waiting: Option<Box<PendingConnect>>,
    /// What the server proves itself with, for CONNACK.
    answer: Option<String>,
    /// When a client that proves itself again must have done so.
    pub(super) deadline: Option<Millis>,
}

impl Authentication {
    /// The end of the exchange that led to CONNACK.
    pub(super) fn take_answer(&mut self) -> Option<String> {
        self.answer.take()
    }
}

/// What a CONNECT has to prove.
#[derive(Debug)]
pub(super) enum Proof {
    /// Nothing more.
    None,
    /// That the password is the user's.
    Password(PasswordCheck),
    /// That the client knows it, without saying it; with our first message.
    Scram(Box<Exchange>, String),
}

impl Shard {
    /// Who the client of a CONNECT says it is, and what it has to prove.
    pub(super) fn proof_of(
        &mut self,
        id: ConnId,
        connect: &Connect<'_>,
    ) -> Result<(Arc<str>, Proof), ReasonCode> {
        let conn = self.conns.get_mut(&id).ok_or(ReasonCode::ServerUnavailable)?;
        // There is one CONNECT; then the client has a name.
        let certificate = conn.certificate.take();
        let certificate = certificate.as_deref();
        let authn = self.config.terms.authn.as_deref();
        if let Some(method) = connect.properties.authentication_method {
            // [MQTT-4.12.0-1]
            let authn = authn.filter(|_| method == METHOD);
            let authn = authn.ok_or(ReasonCode::BadAuthenticationMethod)?;
            let first = connect.properties.authentication_data.unwrap_or_default();
            let (exchange, message) = authn.begin(first).map_err(|error| {
                tracing::debug!(%error, "authentication failed");
                ReasonCode::NotAuthorized
            })?;
            let principal = certificate.map_or_else(|| exchange.name().to_principal(), Arc::clone);
            return Ok((principal, Proof::Scram(Box::new(exchange), message)));
        }
        match (certificate, connect.username, authn) {
            (Some(subject), _, _) => Ok((Arc::clone(subject), Proof::None)),
            (None, Some(user), Some(_)) => {
                let name = name::prepare(user).ok_or(ReasonCode::BadUserNameOrPassword)?;
                let password = connect.password.unwrap_or_default().into();
                let principal = name.to_principal();
                Ok((principal, Proof::Password(PasswordCheck { name, password })))
            }
            (None, None, Some(_)) if connect.password.is_some() => {
                Err(ReasonCode::BadUserNameOrPassword)
            }
            (None, _, _) if conn.listener.allow_anonymous => Ok((Arc::default(), Proof::None)),
            (None, None, _) => Err(ReasonCode::NotAuthorized),
            (None, Some(_), None) => Err(ReasonCode::BadUserNameOrPassword),
        }
    }

    /// Places a CONNECT once its client has proved who it is.
    pub(super) fn prove(&mut self, pending: PendingConnect, proof: Proof, now: Now) {
        let id = pending.conn;
        let authn = self.config.terms.authn.as_deref();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let mut state = Authentication {
            user: None,
            exchange: None,
            waiting: None,
            answer: None,
            deadline: None,
        };
        match proof {
            Proof::None => return self.place(pending, now),
            Proof::Password(check) => {
                if authn.is_some_and(|authn| authn.was_right(&check, now.mono)) {
                    return self.place(pending, now);
                }
                state.waiting = Some(Box::new(pending));
                self.turn.outputs.push_back(Output::CheckPassword { conn: id, check });
            }
            Proof::Scram(exchange, message) => {
                let challenge = step(ReasonCode::ContinueAuthentication, &message);
                if !conn.write(&challenge) {
                    return self.refuse_connect(id, ReasonCode::PacketTooLarge, now);
                }
                conn.machine.on_challenge_sent(now.mono);
                conn.phase = Phase::Authenticating;
                state.user = Some(exchange.name().clone());
                state.exchange = Some(*exchange);
                state.waiting = Some(Box::new(pending));
            }
        }
        conn.auth = Some(Box::new(state));
        self.mark_dirty(id);
        self.arm_connection(id, now);
    }

    /// A password was checked.
    pub(super) fn password_checked(&mut self, id: ConnId, verdict: PasswordVerdict, now: Now) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(pending) = conn.auth.take().and_then(|state| state.waiting) else { return };
        match verdict {
            PasswordVerdict::Right => self.place(*pending, now),
            PasswordVerdict::Wrong => {
                self.shared.counters.authentication_failed("password");
                self.refuse_connect(id, ReasonCode::BadUserNameOrPassword, now);
            }
            PasswordVerdict::Busy => self.refuse_connect(id, ReasonCode::ServerBusy, now),
        }
    }

    /// AUTH: a step of an exchange, or the beginning of another one.
    pub(super) fn handle_auth(&mut self, id: ConnId, auth: &Auth<'_>, now: Now) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(state) = conn.auth.as_deref_mut() else {
            // No method was named in CONNECT. [MQTT-4.12.0-7]
            return self.disconnect(id, ReasonCode::ProtocolError, now);
        };
        let data = auth.authentication_data.unwrap_or_default();
        match (auth.reason, state.exchange.take(), conn.phase) {
            (ReasonCode::ContinueAuthentication, Some(exchange), Phase::Authenticating) => {
                match (exchange.finish(data), state.waiting.take()) {
                    (Ok(answer), Some(pending)) => {
                        state.answer = Some(answer);
                        conn.phase = Phase::Waiting;
                        self.place(*pending, now);
                    }
                    (Ok(_), None) => {}
                    (Err(error), _) => {
                        tracing::debug!(%error, "authentication failed");
                        self.shared.counters.authentication_failed("scram");
                        self.refuse_connect(id, ReasonCode::NotAuthorized, now);
                    }
                }
            }
            (ReasonCode::ContinueAuthentication, Some(exchange), Phase::Serving(_)) => {
                state.deadline = None;
                match exchange.finish(data) {
                    // "the Server … sends an AUTH packet with a Reason Code of 0x00 (Success)"
                    // (4.12.1)
                    Ok(answer) => self.say_auth(id, ReasonCode::Success, &answer, now),
                    Err(error) => self.not_again(id, &error.to_string(), now),
                }
            }
            (ReasonCode::ReAuthenticate, None, Phase::Serving(_)) => {
                self.authenticate_again(id, data, now);
            }
            _ => self.disconnect(id, ReasonCode::ProtocolError, now),
        }
    }

    /// Begins an exchange with a client that is served.
    fn authenticate_again(&mut self, id: ConnId, first: &[u8], now: Now) {
        let begun = match &self.config.terms.authn {
            Some(authn) => authn.begin(first).map_err(|error| error.to_string()),
            None => return self.disconnect(id, ReasonCode::BadAuthenticationMethod, now),
        };
        let timeout = self.config.connect_timeout;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(state) = conn.auth.as_deref_mut() else { return };
        match begun {
            Ok((exchange, _)) if Some(exchange.name()) != state.user.as_ref() => {
                self.not_again(id, "the user is another than at CONNECT", now);
            }
            Ok((exchange, message)) => {
                state.exchange = Some(exchange);
                state.deadline = Some(now.mono + timeout);
                self.say_auth(id, ReasonCode::ContinueAuthentication, &message, now);
                self.arm_connection(id, now);
            }
            Err(error) => self.not_again(id, &error, now),
        }
    }

    fn say_auth(&mut self, id: ConnId, reason: ReasonCode, message: &str, now: Now) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.write(&step(reason, message)) {
            self.mark_dirty(id);
        } else {
            self.disconnect(id, ReasonCode::PacketTooLarge, now);
        }
    }

    /// "If the re-authentication fails, the Client or Server SHOULD send DISCONNECT with an
    /// appropriate Reason Code … and MUST close the Network Connection." [MQTT-4.12.1-2]
    fn not_again(&mut self, id: ConnId, why: &str, now: Now) {
        self.shared.counters.authentication_failed("again");
        self.disconnect_saying(id, ReasonCode::NotAuthorized, why, now);
    }

    /// Ends a client that began to prove itself again, and did not.
    pub(super) fn authentication_timeout(&mut self, id: ConnId, now: Now) -> bool {
        let state = self.conns.get(&id).and_then(|conn| conn.auth.as_deref());
        let late = state.and_then(|state| state.deadline).is_some_and(|due| due <= now.mono);
        if late {
            self.not_again(id, "the exchange was not finished in time", now);
        }
        late
    }
}

/// An AUTH of the server; it always names the method. [MQTT-4.12.0-5]
fn step(reason: ReasonCode, message: &str) -> Auth<'_> {
    Auth {
        authentication_method: Some(METHOD),
        authentication_data: Some(message.as_bytes()),
        ..Auth::new(reason)
    }
}

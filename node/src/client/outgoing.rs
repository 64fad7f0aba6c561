//! The publications of a client's session, until the server has taken them over.
//!
//! ```text
//!                 packet id                PUBACK
//!   queued ──────────────────► published ──────────► done      QoS 1
//!      │                         │  PUBREC            ▲
//!      │ QoS 0                   ▼          PUBCOMP   │
//!      └───► done             released ───────────────┘        QoS 2
//! ```
//!
//! A connection may end at any of these arrows. What is published or released is sent again on the
//! next one, in the order of the first time, as PUBLISH with DUP or as PUBREL. [MQTT-4.4.0-1]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use verge_mqtt_proto::{PacketId, QoS};

/// An Application Message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// A valid Topic Name.
    pub topic: String,
    /// The message.
    pub payload: Bytes,
    /// How hard to work for it.
    pub qos: QoS,
    /// Whether the server keeps it for later subscribers.
    pub retain: bool,
}

/// Names a request of the application until its outcome is told: a publication, or a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What to write next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// A PUBLISH at QoS 0, which is done with it.
    Fire(Ticket, Publication),
    /// A PUBLISH at QoS 1 or 2.
    Publish { packet_id: PacketId, dup: bool, publication: &'a Publication, ticket: Ticket },
    /// A PUBREL.
    Release(PacketId),
}

#[derive(Debug)]
enum State {
    /// PUBLISH was, or may have been, sent.
    Published(Publication),
    /// The server has taken it over by PUBREC; only its identifier is left.
    Released,
}

#[derive(Debug)]
struct Inflight {
    /// Place in the order of first sending.
    order: u64,
    ticket: Ticket,
    qos: QoS,
    state: State,
    /// Whether it was sent on the present connection.
    sent: bool,
    /// Whether an earlier connection may have carried it.
    dup: bool,
}

/// The publications of a session.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Not yet given a packet identifier; first in, first out.
    queued: VecDeque<(Ticket, Publication)>,
    inflight: BTreeMap<PacketId, Inflight>,
    /// Identifiers in flight by the order of first sending.
    order: BTreeMap<u64, PacketId>,
    /// In flight from earlier connections and not yet sent on this one, in order.
    again: VecDeque<PacketId>,
    /// Sent on this connection and not done: never above the server's Receive Maximum.
    outstanding: usize,
    next_order: u64,
    last_id: u16,
    /// Most publications held; [`Outgoing::push`] refuses beyond it.
    held_max: usize,
}

impl Outgoing {
    pub(crate) fn new(held_max: usize) -> Self {
        Self {
            queued: VecDeque::new(),
            inflight: BTreeMap::new(),
            order: BTreeMap::new(),
            again: VecDeque::new(),
            outstanding: 0,
            next_order: 0,
            last_id: 0,
            held_max,
        }
    }

    /// Takes a publication; gives it back if the session holds as many as it may.
    pub(crate) fn push(
        &mut self,
        ticket: Ticket,
        publication: Publication,
    ) -> Result<(), Publication> {
        if self.len() >= self.held_max {
            return Err(publication);
        }
        self.queued.push_back((ticket, publication));
        Ok(())
    }

    /// A connection begins whose server knows the session: what is in flight is due again.
    pub(crate) fn handle_resumed(&mut self) {
        self.outstanding = 0;
        self.again = self.order.values().copied().collect();
        for inflight in self.inflight.values_mut() {
            inflight.sent = false;
            inflight.dup = true;
        }
    }

    /// A connection begins whose server does not know the session: what is in flight is gone and
    /// its tickets are returned. What was never sent stays.
    pub(crate) fn handle_discarded(&mut self) -> Vec<Ticket> {
        self.outstanding = 0;
        self.again.clear();
        let ids = std::mem::take(&mut self.order).into_values();
        let tickets =
            ids.filter_map(|id| self.inflight.remove(&id)).map(|inflight| inflight.ticket);
        let tickets = tickets.collect();
        self.check_invariants();
        tickets
    }

    /// What to write next, if the server takes `receive_maximum` at once. Identifiers for which
    /// `in_use` is true belong to other requests.
    pub(crate) fn next(
        &mut self,
        receive_maximum: u16,
        in_use: impl Fn(PacketId) -> bool,
    ) -> Option<Step<'_>> {
        let has_room = self.outstanding < usize::from(receive_maximum);
        if let Some(&packet_id) = self.again.front() {
            if !has_room {
                return None;
            }
            self.again.pop_front();
            self.outstanding += 1;
            let inflight =
                self.inflight.get_mut(&packet_id).expect("`again` holds identifiers in flight");
            inflight.sent = true;
            return Some(match &inflight.state {
                State::Released => Step::Release(packet_id),
                State::Published(publication) => {
                    let (dup, ticket) = (inflight.dup, inflight.ticket);
                    Step::Publish { packet_id, dup, publication, ticket }
                }
            });
        }
        let (_, front) = self.queued.front()?;
        if front.qos == QoS::AtMostOnce {
            let (ticket, publication) = self.queued.pop_front()?;
            return Some(Step::Fire(ticket, publication));
        }
        if !has_room {
            return None;
        }
        let packet_id = self.free_id(in_use)?;
        let (ticket, publication) = self.queued.pop_front()?;
        let (order, qos) = (self.next_order, publication.qos);
        self.next_order += 1;
        self.outstanding += 1;
        self.order.insert(order, packet_id);
        let state = State::Published(publication);
        let inflight = Inflight { order, ticket, qos, state, sent: true, dup: false };
        let inflight = self.inflight.entry(packet_id).or_insert(inflight);
        let State::Published(publication) = &inflight.state else { return None };
        Some(Step::Publish { packet_id, dup: false, publication, ticket })
    }

    /// PUBACK: the ticket that is done, if one was waiting for it.
    pub(crate) fn handle_puback(&mut self, id: PacketId) -> Option<Ticket> {
        let inflight = self.inflight.get(&id)?;
        if inflight.qos == QoS::AtLeastOnce { self.settle(id) } else { None }
    }

    /// PUBREC without error: whether PUBREL is due, which it is for what was released before too.
    pub(crate) fn handle_pubrec(&mut self, id: PacketId) -> bool {
        match self.inflight.get_mut(&id) {
            Some(inflight) if inflight.qos == QoS::ExactlyOnce => {
                inflight.state = State::Released;
                true
            }
            Some(_) | None => false,
        }
    }

    /// PUBREC with an error: the ticket that was refused.
    pub(crate) fn handle_refused(&mut self, id: PacketId) -> Option<Ticket> {
        let inflight = self.inflight.get(&id)?;
        let is_refusable =
            inflight.qos == QoS::ExactlyOnce && matches!(inflight.state, State::Published(_));
        if is_refusable { self.settle(id) } else { None }
    }

    /// PUBCOMP: the ticket that is done, if it had been released.
    pub(crate) fn handle_pubcomp(&mut self, id: PacketId) -> Option<Ticket> {
        let inflight = self.inflight.get(&id)?;
        if matches!(inflight.state, State::Released) { self.settle(id) } else { None }
    }

    /// Gives up what cannot be encoded for this server.
    pub(crate) fn abandon(&mut self, id: PacketId) {
        self.settle(id);
    }

    /// Publications queued or in flight.
    pub(crate) fn len(&self) -> usize {
        self.queued.len() + self.inflight.len()
    }

    /// Publications in flight.
    pub(crate) fn inflight_len(&self) -> usize {
        self.inflight.len()
    }

    /// Whether a publication has this identifier.
    pub(crate) fn uses(&self, id: PacketId) -> bool {
        self.inflight.contains_key(&id)
    }

    fn settle(&mut self, id: PacketId) -> Option<Ticket> {
        let inflight = self.inflight.remove(&id)?;
        self.order.remove(&inflight.order);
        if inflight.sent {
            self.outstanding -= 1;
        } else {
            // The server answered what an earlier connection carried.
            self.again.retain(|again| *again != id);
        }
        self.check_invariants();
        Some(inflight.ticket)
    }

    fn free_id(&mut self, in_use: impl Fn(PacketId) -> bool) -> Option<PacketId> {
        for _ in 0..u16::MAX {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = PacketId::new(self.last_id).expect("counts from 1");
            if !self.uses(id) && !in_use(id) {
                return Some(id);
            }
        }
        None
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.order.len(), self.inflight.len());
        debug_assert!(self.outstanding + self.again.len() <= self.inflight.len());
        debug_assert!(self.again.iter().all(|id| self.inflight.contains_key(id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receive_maximum_bounds_what_is_outstanding() {
        let mut outgoing = outgoing(&[QoS::AtLeastOnce; 3]);
        assert_eq!(step(&mut outgoing, 2), "PUBLISH 1");
        assert_eq!(step(&mut outgoing, 2), "PUBLISH 2");
        assert_eq!(step(&mut outgoing, 2), "-");
        assert_eq!(outgoing.handle_puback(id(1)), Some(Ticket(0)));
        assert_eq!(outgoing.handle_puback(id(1)), None);
        assert_eq!(step(&mut outgoing, 2), "PUBLISH 3");
    }

    #[test]
    fn a_resumed_session_sends_again_in_the_order_of_the_first_time() {
        let mut outgoing = outgoing(&[QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::AtLeastOnce]);
        for _ in 0..3 {
            step(&mut outgoing, 10);
        }
        assert!(outgoing.handle_pubrec(id(2)));
        outgoing.handle_resumed();
        assert_eq!(step(&mut outgoing, 2), "PUBLISH 1 DUP");
        assert_eq!(step(&mut outgoing, 2), "PUBREL 2");
        assert_eq!(step(&mut outgoing, 2), "-", "Receive Maximum holds for what is sent again too");
        assert_eq!(outgoing.handle_pubcomp(id(2)), Some(Ticket(1)));
        assert_eq!(step(&mut outgoing, 2), "PUBLISH 3 DUP");
        assert_eq!(outgoing.handle_pubcomp(id(1)), None, "it was never released");
        assert!(outgoing.handle_pubrec(id(1)));
        assert_eq!(outgoing.handle_pubcomp(id(1)), Some(Ticket(0)));
    }

    #[test]
    fn a_discarded_session_loses_what_is_in_flight_and_keeps_what_was_never_sent() {
        let mut outgoing = outgoing(&[QoS::AtLeastOnce; 3]);
        step(&mut outgoing, 2);
        step(&mut outgoing, 2);
        assert_eq!(outgoing.handle_discarded(), [Ticket(0), Ticket(1)]);
        assert_eq!(outgoing.len(), 1);
        assert_eq!(step(&mut outgoing, 2), "PUBLISH 3");
    }

    #[test]
    fn an_identifier_in_use_is_not_given_again() {
        let mut outgoing = outgoing(&[QoS::AtLeastOnce; 2]);
        assert!(matches!(
            outgoing.next(10, |id| id.get() == 1),
            Some(Step::Publish { packet_id, .. }) if packet_id.get() == 2
        ));
        outgoing.last_id = u16::MAX;
        assert_eq!(step(&mut outgoing, 10), "PUBLISH 1");
    }

    #[test]
    fn a_full_session_gives_the_publication_back() {
        let mut outgoing = outgoing(&[QoS::AtMostOnce; 8]);
        assert!(outgoing.push(Ticket(9), publication(QoS::AtMostOnce)).is_err());
        assert_eq!(step(&mut outgoing, 1), "FIRE 0");
        assert!(outgoing.push(Ticket(9), publication(QoS::AtMostOnce)).is_ok());
    }

    fn outgoing(levels: &[QoS]) -> Outgoing {
        let mut outgoing = Outgoing::new(8);
        for (ticket, qos) in (0..).zip(levels) {
            outgoing.push(Ticket(ticket), publication(*qos)).unwrap();
        }
        outgoing
    }

    fn publication(qos: QoS) -> Publication {
        Publication { topic: "t".into(), payload: Bytes::new(), qos, retain: false }
    }

    fn step(outgoing: &mut Outgoing, receive_maximum: u16) -> String {
        match outgoing.next(receive_maximum, |_| false) {
            None => "-".to_owned(),
            Some(Step::Fire(ticket, _)) => format!("FIRE {}", ticket.0),
            Some(Step::Publish { packet_id, dup, .. }) => {
                format!("PUBLISH {packet_id}{}", if dup { " DUP" } else { "" })
            }
            Some(Step::Release(packet_id)) => format!("PUBREL {packet_id}"),
        }
    }

    fn id(number: u16) -> PacketId {
        PacketId::new(number).unwrap()
    }
}

//! What a session owes its client, in a box that is made with the first debt: most idle sessions owe
//! nothing, and never did.

use std::ops::{Deref, DerefMut};

use verge_model::Epoch;
use verge_mqtt_proto::session::{Hold, Outbound, OutboundLimits};

/// The outbound half of a session. To be read as an [`Outbound`], which is empty if nothing is owed.
#[derive(Debug)]
pub(crate) struct Owed {
    outbound: Option<Box<Outbound>>,
    limits: OutboundLimits,
    /// What packet ids depend on of the owner's epoch.
    band: u8,
    /// How many sent, unacknowledged messages the client takes; 0 while there is none.
    receive_maximum: u16,
    held: Hold,
    /// Whether all of it is to be in memory.
    near: bool,
}

/// Bands of packet ids; which one is the epoch's remainder.
const BANDS: Epoch = 4;

/// What a session has that owes nothing.
static NOTHING: Outbound = Outbound::new(0, OutboundLimits { messages_max: 0, bytes_max: 0 });

impl Owed {
    /// Nothing, of the owner with this epoch.
    pub(crate) fn new(epoch: Epoch, limits: OutboundLimits) -> Self {
        let (band, held) = ((epoch % BANDS) as u8, Hold::None);
        Self { outbound: None, limits, band, receive_maximum: 0, held, near: false }
    }

    /// See [`Outbound::connected`].
    pub(crate) fn connected(&mut self, receive_maximum: u16) {
        self.receive_maximum = receive_maximum;
        self.tidy();
        if let Some(outbound) = &mut self.outbound {
            outbound.connected(receive_maximum);
        }
    }

    /// See [`Outbound::disconnected`].
    pub(crate) fn disconnected(&mut self) {
        self.receive_maximum = 0;
        self.tidy();
        if let Some(outbound) = &mut self.outbound {
            outbound.disconnected();
        }
    }

    /// See [`Outbound::hold`].
    pub(crate) fn hold(&mut self, held: Hold) {
        self.held = held;
        if let Some(outbound) = &mut self.outbound {
            outbound.hold(held);
        }
    }

    /// See [`Outbound::keep_near`].
    pub(crate) fn keep_near(&mut self) {
        self.near = true;
        if let Some(outbound) = &mut self.outbound {
            outbound.keep_near();
        }
    }

    /// See [`Outbound::put_away`].
    pub(crate) fn put_away(&mut self) {
        self.near = false;
        if let Some(outbound) = &mut self.outbound {
            outbound.put_away();
        }
    }

    /// See [`Outbound::set_epoch`].
    pub(crate) fn set_epoch(&mut self, epoch: Epoch) {
        self.band = (epoch % BANDS) as u8;
        if let Some(outbound) = &mut self.outbound {
            outbound.set_epoch(epoch);
        }
    }

    /// Gives the box back, if nothing is owed any more.
    fn tidy(&mut self) {
        if self.outbound.as_deref().is_some_and(Outbound::is_empty) {
            self.outbound = None;
        }
    }

    #[cold]
    fn make(&self) -> Box<Outbound> {
        let mut outbound = Box::new(Outbound::new(Epoch::from(self.band), self.limits));
        outbound.connected(self.receive_maximum);
        outbound.hold(self.held);
        if self.near {
            outbound.keep_near();
        }
        outbound
    }
}

impl Deref for Owed {
    type Target = Outbound;

    fn deref(&self) -> &Outbound {
        self.outbound.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Owed {
    fn deref_mut(&mut self) -> &mut Outbound {
        if self.outbound.is_none() {
            self.outbound = Some(self.make());
        }
        self.outbound.as_deref_mut().expect("it was there or has just been made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_the_first_debt_holds_for_it() {
        let limits = OutboundLimits { messages_max: 1, bytes_max: 100 };
        let mut owed = Owed::new(7, limits);
        owed.connected(5);
        owed.hold(Hold::Own);
        assert!(owed.is_empty() && !owed.may_send() && owed.outbound.is_none());
        let mut made = Outbound::new(7, limits);
        made.connected(5);
        made.hold(Hold::Own);
        assert_eq!(format!("{:?}", &mut *owed), format!("{made:?}"));
        owed.set_epoch(2);
        made.set_epoch(2);
        assert_eq!(format!("{:?}", &*owed), format!("{made:?}"));
        owed.disconnected();
        assert!(owed.outbound.is_none(), "nothing is owed");
    }
}

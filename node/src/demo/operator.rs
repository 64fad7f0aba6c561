//! The fleet operator: at the regional node, numbered commands at QoS 2 to every vehicle, all the
//! time, wherever the vehicle is and whether it has a connection or not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep_until};
use verge_mqtt_proto::{ProtocolVersion, QoS};

use super::book::Greeter;
use super::courier::{self, Unaccepted};
use super::dice::Dice;
use super::message::{self, Command};
use super::scenario::command_topic;
use super::world::{Phase, World, count};
use crate::client::net::{Connection, NetError};
use crate::client::{ClientSession, Event, Publication};

/// Seconds of the trace between two commands to one vehicle.
const PAUSE_SECS: (f64, f64) = (5.0, 10.0);
/// How often vehicles that no greeting has reached are greeted, and refused commands sent again.
const GREET_EVERY: Duration = Duration::from_millis(500);

/// Runs the operator until the run is over.
pub async fn operate(world: Arc<World>) {
    let mut session = courier::persistent("fleet-operator", ProtocolVersion::V5);
    let mut operator = Operator {
        dice: Dice::new(world.scenario.seed, "operator", 0),
        due: BinaryHeap::new(),
        unaccepted: Unaccepted::default(),
        shown: 0,
        was_connected: false,
        world,
    };
    let mut phase = operator.world.phase();
    while *phase.borrow_and_update() != Phase::Over {
        if let Err(error) = operator.serve(&mut session, &mut phase).await {
            tracing::debug!(%error, "the operator has lost its connection");
        }
    }
}

struct Operator {
    world: Arc<World>,
    dice: Dice,
    /// When each vehicle gets its next command.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    unaccepted: Unaccepted,
    shown: u64,
    was_connected: bool,
}

impl Operator {
    /// One connection, until it fails or the run is over.
    async fn serve(
        &mut self,
        session: &mut ClientSession,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<(), NetError> {
        let world = Arc::clone(&self.world);
        let address = &world.edge.tcp;
        let Some(mut connection) = courier::connect(&world, address, session).await else {
            return Ok(());
        };
        if self.was_connected && !connection.session_present() {
            count(&world.counts.sessions_lost);
        }
        self.was_connected = true;
        let mut every = interval(GREET_EVERY);
        loop {
            let now = *phase.borrow_and_update();
            if let (Phase::Running(start), true) = (now, self.due.is_empty()) {
                self.schedule(start);
            }
            let next = match (now, self.due.peek()) {
                (Phase::Running(_), Some(Reverse((at, _)))) => Some(*at),
                (Phase::Running(_), None)
                | (Phase::Greeting | Phase::Draining | Phase::Over, _) => None,
            };
            tokio::select! {
                event = connection.next() => match event? {
                    Event::Published(ticket, reason) => {
                        if !self.unaccepted.handle(ticket, reason) {
                            count(&world.counts.refused);
                        }
                    }
                    Event::Disconnected { .. } => return Err(NetError::Closed),
                    Event::Connected { .. }
                    | Event::Refused { .. }
                    | Event::Message(_)
                    | Event::Subscribed(..)
                    | Event::Unsubscribed(..) => {}
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.command_the_due(&mut connection);
                }
                _ = every.tick() => {
                    self.unaccepted.publish_again(&mut connection);
                    if now == Phase::Greeting {
                        self.greet(&mut connection);
                    }
                }
                _ = phase.changed() => {
                    if *phase.borrow() == Phase::Over {
                        return connection.disconnect().await;
                    }
                }
            }
            self.unaccepted.show(&world.counts.commands_unacked, &mut self.shown);
        }
    }

    fn schedule(&mut self, start: Instant) {
        for track in 0..self.world.vehicles() {
            let first = self.world.scenario.span(self.dice.between(0.0, PAUSE_SECS.1));
            self.due.push(Reverse((start + first, track)));
        }
    }

    fn command_the_due(&mut self, connection: &mut Connection<'_>) {
        let now = Instant::now();
        while let Some(&Reverse((at, track))) = self.due.peek() {
            if at > now {
                break;
            }
            self.due.pop();
            let number = self.world.book(track, |book| book.command_sent()).unwrap_or(0);
            self.command(connection, track, false, number);
            let pause = self.world.scenario.span(self.dice.between(PAUSE_SECS.0, PAUSE_SECS.1));
            self.due.push(Reverse((at + pause, track)));
        }
    }

    fn greet(&mut self, connection: &mut Connection<'_>) {
        for track in 0..self.world.vehicles() {
            let is_greeted = self.world.book(track, |book| book.is_greeted(Greeter::Operator));
            if is_greeted == Some(false) {
                self.command(connection, track, true, 0);
            }
        }
    }

    fn command(
        &mut self,
        connection: &mut Connection<'_>,
        track: usize,
        greeting: bool,
        number: u64,
    ) {
        let command = Command { greeting, number, sent_us: self.world.now_us() };
        let publication = Publication {
            topic: command_topic(&self.world.scenario.trace.tracks[track].vehicle),
            payload: message::encode(&command),
            qos: QoS::ExactlyOnce,
            retain: false,
        };
        self.unaccepted.publish(connection, publication);
    }
}

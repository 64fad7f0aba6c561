//! The V2X application of a roadside unit: takes the positions published at its own unit, and now
//! and then warns of something near it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep_until};
use verge_model::LatLon;
use verge_mqtt_proto::{ProtocolVersion, QoS};

use super::book::Greeter;
use super::courier::{self, Unaccepted};
use super::dice::Dice;
use super::message::{self, Cam, Denm};
use super::scenario::{AREA_TILE_DEPTH, TOPIC_ROOT, denm_topic};
use super::world::{Phase, World, count};
use crate::client::net::{Connection, NetError};
use crate::client::{ClientSession, Event, Incoming, Publication};

/// Seconds of the trace between two warnings of one application.
const PAUSE_SECS: (f64, f64) = (5.0, 15.0);
/// How far from its roadside unit something may be that is warned of, in degrees: about 400 m.
const NEAR_DEGREES: f64 = 0.004;
/// How often vehicles that no greeting has reached are greeted, and refused warnings sent again.
const GREET_EVERY: Duration = Duration::from_millis(500);

/// Runs the application of a roadside unit until the run is over.
pub async fn run(world: Arc<World>, site: usize) {
    let name = format!("v2x-app-{}", world.sites[site].id);
    let mut session = courier::persistent(&name, ProtocolVersion::V5);
    let mut application = Application {
        dice: Dice::new(world.scenario.seed, "application", site as u64),
        next_warning: None,
        unaccepted: Unaccepted::default(),
        shown: 0,
        is_subscribed: false,
        site,
        world,
    };
    let mut phase = application.world.phase();
    while *phase.borrow_and_update() != Phase::Over {
        if let Err(error) = application.serve(&mut session, &mut phase).await {
            tracing::debug!(site, %error, "an application has lost its connection");
        }
    }
}

struct Application {
    world: Arc<World>,
    site: usize,
    dice: Dice,
    next_warning: Option<Instant>,
    unaccepted: Unaccepted,
    shown: u64,
    is_subscribed: bool,
}

impl Application {
    /// One connection, until it fails or the run is over.
    async fn serve(
        &mut self,
        session: &mut ClientSession,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<(), NetError> {
        let world = Arc::clone(&self.world);
        let address = &world.sites[self.site].tcp;
        let Some(mut connection) = courier::connect(&world, address, session).await else {
            return Ok(());
        };
        if self.is_subscribed && !connection.session_present() {
            count(&world.counts.sessions_lost);
            self.is_subscribed = false;
        }
        if !self.is_subscribed {
            self.subscribe(&mut connection).await?;
        }
        let mut every = interval(GREET_EVERY);
        loop {
            let now = *phase.borrow_and_update();
            let next = match now {
                Phase::Running(start) => Some(self.next_warning.unwrap_or(start)),
                Phase::Greeting | Phase::Draining | Phase::Over => None,
            };
            tokio::select! {
                event = connection.next() => match event? {
                    Event::Message(message) => self.take(&message),
                    Event::Published(ticket, reason) => {
                        if !self.unaccepted.handle(ticket, reason) {
                            count(&world.counts.refused);
                        }
                    }
                    Event::Disconnected { .. } => return Err(NetError::Closed),
                    Event::Connected { .. }
                    | Event::Refused { .. }
                    | Event::Subscribed(..)
                    | Event::Unsubscribed(..) => {}
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.warn(&mut connection);
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
            self.unaccepted.show(&world.counts.denms_unacked, &mut self.shown);
        }
    }

    /// Subscribes to what is published at this very node.
    async fn subscribe(&mut self, connection: &mut Connection<'_>) -> Result<(), NetError> {
        let filter = format!("$local/{TOPIC_ROOT}/cam/#");
        let granted = connection.subscribe(&[(&filter, QoS::AtLeastOnce)]).await?;
        if let Some(reason) = granted.into_iter().find(|reason| reason.is_error()) {
            return Err(NetError::Refused(reason));
        }
        self.is_subscribed = true;
        self.world.counts.applications_ready.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn take(&self, message: &Incoming) {
        let Some(cam) = message::decode::<Cam>(&message.payload) else { return };
        let (world, site) = (&self.world, self.site);
        world.book(cam.track, |book| book.cam_arrived(cam.number, site));
        let latency = world.since_us(cam.sent_us);
        // What was sent again after a reconnection tells of the road, not of the node.
        if !message.dup {
            world.record(|latencies| latencies.cam.record(latency));
        }
    }

    fn warn(&mut self, connection: &mut Connection<'_>) {
        let pause = self.world.scenario.span(self.dice.between(PAUSE_SECS.0, PAUSE_SECS.1));
        let is_first = self.next_warning.is_none();
        self.next_warning = Some(Instant::now() + pause);
        if is_first {
            return;
        }
        let near = self.world.scenario.sites[self.site].position;
        let position = LatLon {
            lat: near.lat + self.dice.between(-NEAR_DEGREES, NEAR_DEGREES),
            lon: near.lon + self.dice.between(-NEAR_DEGREES, NEAR_DEGREES),
        };
        let number = self.world.denm_sent(self.site, &position.quadkey_levels(AREA_TILE_DEPTH));
        self.publish(connection, position, false, number);
    }

    /// Tries the way to every area in which a vehicle has not heard of this application.
    fn greet(&mut self, connection: &mut Connection<'_>) {
        let by = Greeter::Application(self.site);
        let mut areas: BTreeMap<&str, LatLon> = BTreeMap::new();
        for track in 0..self.world.vehicles() {
            if self.world.book(track, |book| book.is_greeted(by)) == Some(false) {
                let first = self.world.scenario.trace.tracks[track].rows[0];
                areas.insert(self.world.area(track), first.position);
            }
        }
        let positions: Vec<LatLon> = areas.into_values().collect();
        for position in positions {
            self.publish(connection, position, true, 0);
        }
    }

    fn publish(
        &mut self,
        connection: &mut Connection<'_>,
        position: LatLon,
        greeting: bool,
        number: u64,
    ) {
        let denm = Denm { greeting, site: self.site, number, sent_us: self.world.now_us() };
        let publication = Publication {
            topic: denm_topic(&self.world.sites[self.site].id, position),
            payload: message::encode(&denm),
            qos: QoS::AtLeastOnce,
            retain: false,
        };
        self.unaccepted.publish(connection, publication);
    }
}

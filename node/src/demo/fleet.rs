//! The vehicles: each a client with one name, one session, and a way through the town.
//!
//! ```text
//!   ask for the nearest ──► connect ──► publish a position each row ──► the trace changes the unit
//!          ▲                                                             │ gone, or goodbye first
//!          └──────────── away: a gap between cells, or parked ◄──────────┘
//! ```
//!
//! A unit that does not answer is passed over for the next nearest, and tried again later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use verge_mqtt_proto::QoS;

use super::attach;
use super::book::{Book, Greeter};
use super::courier;
use super::dice::Dice;
use super::message::{self, Cam, Command, Denm};
use super::moves::Way;
use super::nearest;
use super::scenario::{Character, Leave, cam_topic, command_topic, denm_filter};
use super::world::{Phase, World, count};
use crate::client::net::{Connection, NetError};
use crate::client::{Address, ClientSession, Event, Incoming, Publication, Ticket};

/// How long a unit that did not answer is passed over.
const PASS_OVER: Duration = Duration::from_secs(2);
/// First and longest pause when nobody answers.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Longest time over which vehicles begin, for each of them.
const BEGIN_WITHIN: Duration = Duration::from_millis(10);

/// Drives a vehicle until the run is over.
pub async fn drive(world: Arc<World>, track: usize) {
    let character = world.scenario.character(track);
    let vehicle = &world.scenario.trace.tracks[track].vehicle;
    let mut session = courier::persistent(vehicle, character.version);
    let mut dice = Dice::new(world.scenario.seed, "vehicle", track as u64);
    let begin = dice.up_to(BEGIN_WITHIN * u32::try_from(world.vehicles()).unwrap_or(u32::MAX));
    let mut driver = Driver {
        character,
        // Reports are spread over the time between two rows.
        offset: dice.up_to(world.scenario.span(1.0)),
        dice,
        next_row: 0,
        at: None,
        is_subscribed: false,
        cams: BTreeMap::new(),
        silent: BTreeMap::new(),
        failures: 0,
        phase: world.phase(),
        track,
        world,
    };
    sleep(begin).await;
    while *driver.phase.borrow_and_update() != Phase::Over {
        driver.wait_for_the_road().await;
        let away = driver.leg(&mut session).await;
        driver.away(away).await;
    }
}

struct Driver {
    world: Arc<World>,
    track: usize,
    character: Character,
    dice: Dice,
    /// How much later than its rows this vehicle reports.
    offset: Duration,
    phase: watch::Receiver<Phase>,
    /// The first row of the trace that has not come yet.
    next_row: usize,
    /// The unit of the last connection.
    at: Option<usize>,
    is_subscribed: bool,
    /// Reports under way, by ticket.
    cams: BTreeMap<Ticket, u64>,
    /// Units that did not answer, and when that was.
    silent: BTreeMap<usize, Instant>,
    /// Attempts in a row that failed.
    failures: u32,
}

/// Why a connection ended.
enum End {
    /// The vehicle leaves: it says goodbye, or is just gone.
    Leaves(Leave),
    /// The connection failed.
    Lost,
}

impl Driver {
    /// One connection from its beginning to its end; how long the vehicle is away then.
    async fn leg(&mut self, session: &mut ClientSession) -> Duration {
        self.take_rows();
        let Some((site, address)) = self.choose().await else { return self.back_off() };
        let world = Arc::clone(&self.world);
        let connection = Connection::connect(&address, &world.connect, session).await;
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(vehicle = self.track, %address, %error, "cannot connect");
                count(&world.counts.connects_failed);
                self.silent.insert(site, Instant::now());
                return self.back_off();
            }
        };
        self.failures = 0;
        self.note_connected(site, &connection);
        world.counts.connected.fetch_add(1, Ordering::Relaxed);
        let end = self.serve(&mut connection, site).await;
        world.counts.connected.fetch_sub(1, Ordering::Relaxed);
        match end {
            Ok(End::Leaves(Leave { goodbye, away })) => {
                if goodbye && let Err(error) = connection.disconnect().await {
                    tracing::debug!(vehicle = self.track, %error, "gone before the goodbye");
                }
                away
            }
            Ok(End::Lost) => Duration::ZERO,
            Err(error) => {
                tracing::debug!(vehicle = self.track, %error, "connection lost");
                Duration::ZERO
            }
        }
    }

    async fn serve(
        &mut self,
        connection: &mut Connection<'_>,
        site: usize,
    ) -> Result<End, NetError> {
        if !self.is_subscribed {
            self.subscribe(connection).await?;
        }
        let since_us = self.world.now_us();
        let mut try_home = Instant::now() + PASS_OVER;
        loop {
            let now = *self.phase.borrow_and_update();
            let next_report = match now {
                Phase::Running(start) => self.next_report(start),
                Phase::Greeting => None,
                Phase::Draining => {
                    self.take_rows();
                    None
                }
                Phase::Over => {
                    return Ok(End::Leaves(Leave { goodbye: true, away: Duration::ZERO }));
                }
            };
            if let Some(leave) = self.leaves_the_road(now) {
                return Ok(End::Leaves(leave));
            }
            let is_detour = self.wanted() != site;
            tokio::select! {
                event = connection.next() => match event? {
                    Event::Message(message) => self.take(&message, since_us),
                    Event::Published(ticket, reason) => {
                        if let Some(number) = self.cams.remove(&ticket) {
                            let refused = reason.is_error();
                            self.world.book(self.track, |book| match refused {
                                true => book.cam_refused(number),
                                false => book.cam_acked(number, site),
                            });
                            self.world.counts.refused.fetch_add(u64::from(refused), Ordering::Relaxed);
                        }
                    }
                    Event::Disconnected { .. } => return Ok(End::Lost),
                    Event::Connected { .. }
                    | Event::Refused { .. }
                    | Event::Subscribed(..)
                    | Event::Unsubscribed(..) => {}
                },
                () = until(next_report) => {
                    if self.report(connection, site) {
                        return Ok(End::Leaves(self.world.scenario.leave(&mut self.dice)));
                    }
                }
                () = sleep_until(try_home), if is_detour => {
                    try_home = Instant::now() + PASS_OVER;
                    if courier::probe(self.address_of(self.wanted())).await {
                        self.silent.remove(&self.wanted());
                        return Ok(End::Leaves(Leave { goodbye: false, away: Duration::ZERO }));
                    }
                }
                _ = self.phase.changed() => {}
            }
        }
    }

    /// Commands at QoS 2, and warnings for the area where the vehicle begins.
    async fn subscribe(&mut self, connection: &mut Connection<'_>) -> Result<(), NetError> {
        let command = command_topic(&self.world.scenario.trace.tracks[self.track].vehicle);
        let denm = denm_filter(self.world.area(self.track));
        let filters = [(command.as_str(), QoS::ExactlyOnce), (denm.as_str(), QoS::AtLeastOnce)];
        let granted = connection.subscribe(&filters).await?;
        if let Some(reason) = granted.into_iter().find(|reason| reason.is_error()) {
            return Err(NetError::Refused(reason));
        }
        self.is_subscribed = true;
        Ok(())
    }

    /// Reports the next row; true if the vehicle leaves its unit with it. That report is then under
    /// way while the vehicle moves.
    fn report(&mut self, connection: &mut Connection<'_>, site: usize) -> bool {
        let row = self.world.scenario.trace.tracks[self.track].rows[self.next_row];
        let mut leaves = self.take_row();
        if leaves && self.wanted() == site {
            // It has been here already, since its unit was down.
            self.world.way(self.track, Way::stays);
            leaves = false;
        }
        let world = &self.world;
        let vehicle = &world.scenario.trace.tracks[self.track].vehicle;
        let Some(number) = world.book(self.track, Book::cam_sent).flatten() else {
            return leaves;
        };
        let cam = Cam::new(self.track, vehicle, number, world.now_us(), &row);
        let publication = Publication {
            topic: cam_topic(vehicle, row.position),
            payload: message::encode(&cam),
            qos: QoS::AtLeastOnce,
            retain: false,
        };
        match connection.publish(publication) {
            Ok(ticket) => {
                self.cams.insert(ticket, number);
            }
            Err(_) => {
                world.book(self.track, |book| book.cam_refused(number));
            }
        }
        leaves
    }

    fn take(&self, message: &Incoming, connected_since_us: u64) {
        let world = &self.world;
        if let Some(denm) = message::decode::<Denm>(&message.payload) {
            if denm.greeting {
                world.book(self.track, |book| book.greeted(Greeter::Application(denm.site)));
                return;
            }
            world.book(self.track, |book| book.denm_arrived(denm.number, denm.site));
            if denm.sent_us >= connected_since_us {
                let latency = world.since_us(denm.sent_us);
                world.record(|latencies| latencies.denm.record(latency));
            }
        } else if let Some(command) = message::decode::<Command>(&message.payload) {
            if command.greeting {
                world.book(self.track, |book| book.greeted(Greeter::Operator));
                return;
            }
            world.book(self.track, |book| book.command_arrived(command.number));
            if command.sent_us >= connected_since_us {
                let latency = world.since_us(command.sent_us);
                world.record(|latencies| latencies.command.record(latency));
            }
        }
    }

    fn note_connected(&mut self, site: usize, connection: &Connection<'_>) {
        let world = &self.world;
        let session_present = connection.session_present();
        world.way(self.track, |way| way.connected(site, session_present));
        for ticket in connection.discarded() {
            if let Some(number) = self.cams.remove(ticket) {
                world.book(self.track, |book| book.cam_refused(number));
            }
        }
        self.is_subscribed &= session_present;
        if let Some(before) = self.at.filter(|before| *before != site) {
            let (took, from_live) = (connection.connack_after(), world.is_up(before));
            world.record(|latencies| match from_live {
                true => latencies.handover.record(took),
                false => latencies.handover_from_dead.record(took),
            });
        }
        self.at = Some(site);
    }

    /// The unit to connect to next, and its address: the trace's, or the nearest that answers.
    async fn choose(&mut self) -> Option<(usize, Address)> {
        let rows = &self.world.scenario.trace.tracks[self.track].rows;
        let position = rows[self.next_row.saturating_sub(1)].position;
        let answer = nearest::ask(&self.world, self.at, position).await;
        let now = Instant::now();
        self.silent.retain(|_, since| now.duration_since(*since) < PASS_OVER);
        let wanted = self.wanted();
        let others = match &answer {
            Some(found) => found.iter().map(|near| near.site).collect(),
            None => attach::by_distance(position, &self.world.scenario.sites),
        };
        let mut candidates = std::iter::once(wanted).chain(others);
        let site = candidates.find(|site| !self.silent.contains_key(site))?;
        let listed = answer.iter().flatten().find(|near| near.site == site);
        let scheme = self.address_of(site).scheme;
        let address = listed.and_then(|near| near.listener(scheme));
        Some((site, address.unwrap_or_else(|| self.address_of(site).clone())))
    }

    /// Follows the trace up to now; rows that passed while the vehicle was away are not reported.
    fn take_rows(&mut self) {
        let end = self.world.scenario.trace.tracks[self.track].rows.len();
        let now = *self.phase.borrow();
        let upto = match now {
            Phase::Greeting => 0,
            Phase::Running(start) => {
                let since = Instant::now().saturating_duration_since(start + self.offset);
                self.world.scenario.row_at(self.track, since) + 1
            }
            Phase::Draining | Phase::Over => end,
        };
        while self.next_row < upto.min(end) {
            self.take_row();
        }
    }

    /// Follows the trace by a row; true if it changes the unit.
    fn take_row(&mut self) -> bool {
        let wanted = self.world.scenario.attachments.at(self.track, self.next_row);
        self.next_row += 1;
        self.world.way(self.track, |way| way.row(wanted))
    }

    fn wanted(&self) -> usize {
        self.world.way(self.track, |way| way.wanted())
    }

    fn next_report(&self, start: Instant) -> Option<Instant> {
        let row = self.world.scenario.trace.tracks[self.track].rows.get(self.next_row)?;
        Some(start + self.world.scenario.wall(row.at_ms) + self.offset)
    }

    /// Whether the vehicle is not on the road now, though the traffic runs.
    fn leaves_the_road(&self, phase: Phase) -> Option<Leave> {
        self.off_the_road(phase)?;
        Some(Leave { goodbye: true, away: Duration::ZERO })
    }

    /// If the vehicle is not on the road while the traffic runs: until when, if it is going to be.
    fn off_the_road(&self, phase: Phase) -> Option<Option<Instant>> {
        let Phase::Running(start) = phase else { return None };
        let scenario = &self.world.scenario;
        let rows = &scenario.trace.tracks[self.track].rows;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Some(None) };
        let enters = start + scenario.wall(first.at_ms);
        if Instant::now() < enters {
            return Some(Some(enters));
        }
        let is_last_to_go = last.at_ms == scenario.trace.end_ms();
        (self.next_row >= rows.len() && !is_last_to_go).then_some(None)
    }

    async fn wait_for_the_road(&mut self) {
        loop {
            let now = *self.phase.borrow_and_update();
            let Some(enters) = self.off_the_road(now) else { return };
            tokio::select! {
                () = until(enters) => {}
                _ = self.phase.changed() => {}
            }
        }
    }

    fn back_off(&mut self) -> Duration {
        let longest = BACK_OFF.0 * 2u32.saturating_pow(self.failures.min(5));
        self.failures += 1;
        // A unit that does not answer is no reason to wait, while there are others.
        if self.silent.len() < self.world.sites.len() && self.failures <= 2 {
            return Duration::ZERO;
        }
        BACK_OFF.0 + self.dice.up_to(longest.min(BACK_OFF.1))
    }

    /// Waits, but not beyond the traffic.
    async fn away(&mut self, pause: Duration) {
        let started = *self.phase.borrow_and_update();
        let changed = self.phase.wait_for(|phase| *phase != started);
        // Either the pause is over or the traffic is.
        let _ = timeout(pause, changed).await;
    }

    fn address_of(&self, site: usize) -> &Address {
        let reach = &self.world.sites[site];
        if self.character.tls { &reach.tls } else { &reach.tcp }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! What all clients of a run share: the scenario, the addresses, the books, and the hour.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::book::Book;
use super::cluster::Reach;
use super::histogram::Histogram;
use super::moves::{Moves, Way};
use super::scenario::Scenario;
use super::tally::Flow;
use crate::client::net::ConnectOptions;

/// What everybody is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Clients connect and subscribe; senders try the ways until each is known.
    Greeting,
    /// Traffic runs since this moment.
    Running(Instant),
    /// Nothing new is sent; what is owed arrives.
    Draining,
    /// Clients say goodbye.
    Over,
}

/// Times of a run, by what was timed.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    /// CONNECT to CONNACK at another node, the last one being alive.
    pub handover: Histogram,
    /// CONNECT to CONNACK at another node, the last one being down.
    pub handover_from_dead: Histogram,
    /// Vehicle to application, over one node.
    pub cam: Histogram,
    /// Operator to vehicle, which was connected all the time.
    pub command: Histogram,
    /// Application to vehicle, which was connected all the time.
    pub denm: Histogram,
}

/// Counts that have no receiver's book.
#[derive(Debug, Default)]
pub struct Counts {
    /// Vehicles with an open connection.
    pub connected: AtomicU64,
    /// Applications with their subscription.
    pub applications_ready: AtomicU64,
    /// Commands that are not acknowledged.
    pub commands_unacked: AtomicU64,
    /// Warnings that are not acknowledged.
    pub denms_unacked: AtomicU64,
    /// Publications a node has refused; commands and warnings were then sent again.
    pub refused: AtomicU64,
    /// Attempts to connect that failed.
    pub connects_failed: AtomicU64,
    /// Questions for the nearest node.
    pub nearest_asked: AtomicU64,
    /// Answers that agree with the positions.
    pub nearest_agreed: AtomicU64,
    /// Questions without an answer.
    pub nearest_failed: AtomicU64,
    /// Sessions of applications and the operator that were not there any more.
    pub sessions_lost: AtomicU64,
}

/// What all clients of a run share.
#[derive(Debug)]
pub struct World {
    /// What the run does.
    pub scenario: Scenario,
    /// Where the roadside units are reached.
    pub sites: Vec<Reach>,
    /// Where the regional node is reached.
    pub edge: Reach,
    /// How clients connect.
    pub connect: ConnectOptions,
    /// Counts that have no receiver's book.
    pub counts: Counts,
    /// Locked for a few instructions at a time, like everything behind a lock here, and never
    /// across an await.
    books: Vec<Mutex<Book>>,
    ways: Vec<Mutex<Way>>,
    /// Warnings sent, by roadside unit and area.
    denms: Mutex<BTreeMap<(usize, String), u64>>,
    areas: Vec<String>,
    sites_up: Vec<AtomicBool>,
    latencies: Mutex<Latencies>,
    phase: watch::Sender<Phase>,
    began: Instant,
}

/// What is still owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owed {
    /// Commands.
    pub commands: u64,
    /// Position reports.
    pub cams: u64,
    /// Warnings.
    pub denms: u64,
}

impl Owed {
    /// All of it.
    #[must_use]
    pub fn total(self) -> u64 {
        self.commands + self.cams + self.denms
    }
}

/// What became of everything, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flows {
    /// Operator to vehicles, QoS 2.
    pub commands: Flow,
    /// Vehicles to applications, QoS 1.
    pub cams: Flow,
    /// Applications to vehicles, QoS 1.
    pub denms: Flow,
}

impl World {
    /// The world before anybody connects.
    #[must_use]
    pub fn new(
        scenario: Scenario,
        sites: Vec<Reach>,
        edge: Reach,
        connect: ConnectOptions,
    ) -> Self {
        let tracks = scenario.trace.tracks.len();
        let ways = (0..tracks).map(|track| Way::new(scenario.attachments.at(track, 0)));
        Self {
            counts: Counts::default(),
            books: (0..tracks).map(|_| Mutex::default()).collect(),
            ways: ways.map(Mutex::new).collect(),
            denms: Mutex::default(),
            areas: (0..tracks).map(|track| scenario.area(track)).collect(),
            sites_up: sites.iter().map(|_| AtomicBool::new(true)).collect(),
            latencies: Mutex::default(),
            phase: watch::Sender::new(Phase::Greeting),
            began: Instant::now(),
            scenario,
            sites,
            edge,
            connect,
        }
    }

    /// A vehicle's book.
    pub fn book<T>(&self, track: usize, with: impl FnOnce(&mut Book) -> T) -> Option<T> {
        self.books.get(track).map(|book| with(&mut book.lock()))
    }

    /// A vehicle's way.
    pub fn way<T>(&self, track: usize, with: impl FnOnce(&mut Way) -> T) -> T {
        with(&mut self.ways[track].lock())
    }

    /// The area a vehicle wants warnings of.
    #[must_use]
    pub fn area(&self, track: usize) -> &str {
        &self.areas[track]
    }

    /// Vehicles of the run.
    #[must_use]
    pub fn vehicles(&self) -> usize {
        self.books.len()
    }

    /// The next number of a warning of a roadside unit to an area.
    pub fn denm_sent(&self, site: usize, area: &str) -> u64 {
        let mut denms = self.denms.lock();
        let sent = denms.entry((site, area.to_owned())).or_insert(0);
        *sent += 1;
        *sent - 1
    }

    /// Notes a time.
    pub fn record(&self, note: impl FnOnce(&mut Latencies)) {
        note(&mut self.latencies.lock());
    }

    /// All times noted.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        self.latencies.lock().clone()
    }

    /// Microseconds since the run began.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The time since a moment that [`now_us`](Self::now_us) gave.
    #[must_use]
    pub fn since_us(&self, sent_us: u64) -> Duration {
        Duration::from_micros(self.now_us().saturating_sub(sent_us))
    }

    /// Marks a roadside unit as down, or up again.
    pub fn set_up(&self, site: usize, up: bool) {
        self.sites_up[site].store(up, Ordering::Relaxed);
    }

    /// Whether a roadside unit is up.
    #[must_use]
    pub fn is_up(&self, site: usize) -> bool {
        self.sites_up[site].load(Ordering::Relaxed)
    }

    /// Whether all of them are.
    #[must_use]
    pub fn are_all_up(&self) -> bool {
        self.sites_up.iter().all(|up| up.load(Ordering::Relaxed))
    }

    /// What everybody is doing, and news of it.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Begins the next phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Vehicles every sender's greeting has reached.
    #[must_use]
    pub fn greeted(&self) -> usize {
        let sites = self.sites.len();
        self.books.iter().filter(|book| book.lock().is_greeted_by_all(sites)).count()
    }

    /// What is still owed.
    #[must_use]
    pub fn owed(&self) -> Owed {
        let denms = self.denms.lock().clone();
        let mut owed = Owed {
            commands: self.counts.commands_unacked.load(Ordering::Relaxed),
            cams: 0,
            denms: self.counts.denms_unacked.load(Ordering::Relaxed),
        };
        for (track, book) in self.books.iter().enumerate() {
            let book = book.lock();
            owed.commands += book.commands_owed();
            owed.cams += book.cams_owed();
            owed.denms += book.denms_owed(self.sent_to(&denms, track), self.sites.len());
        }
        owed
    }

    /// Names messages to vehicles that were sent and did not come, at most `limit`.
    #[must_use]
    pub fn missing(&self, limit: usize) -> Vec<String> {
        let denms = self.denms.lock().clone();
        let mut missing = Vec::new();
        for (track, book) in self.books.iter().enumerate() {
            let vehicle = &self.scenario.trace.tracks[track].vehicle;
            let (book, sent) = (book.lock(), self.sent_to(&denms, track));
            let commands = book.commands_missing();
            missing
                .extend(commands.map(|number| format!("missing: command {number} to {vehicle}")));
            for (site, reach) in self.sites.iter().enumerate() {
                for number in book.denms_missing(site, sent(site)) {
                    missing.push(format!("missing: warning {number} of {} to {vehicle}", reach.id));
                }
            }
            if missing.len() >= limit {
                break;
            }
        }
        missing.truncate(limit);
        missing
    }

    /// What became of everything, so far.
    #[must_use]
    pub fn flows(&self) -> Flows {
        let denms = self.denms.lock().clone();
        let mut flows = Flows::default();
        for (track, book) in self.books.iter().enumerate() {
            let book = book.lock();
            flows.commands.add(book.command_flow());
            flows.cams.add(book.cam_flow());
            flows.denms.add(book.denm_flow(self.sent_to(&denms, track), self.sites.len()));
        }
        flows
    }

    /// All vehicles' moves.
    #[must_use]
    pub fn moves(&self) -> Moves {
        let mut moves = Moves::default();
        for way in &self.ways {
            moves.add(way.lock().moves());
        }
        moves
    }

    /// Position reports a roadside unit acknowledged.
    #[must_use]
    pub fn cams_acked_by(&self, site: usize) -> u64 {
        self.books.iter().map(|book| book.lock().cams_acked_by(site)).sum()
    }

    fn sent_to<'a>(
        &'a self,
        denms: &'a BTreeMap<(usize, String), u64>,
        track: usize,
    ) -> impl Fn(usize) -> u64 + 'a {
        move |site| denms.get(&(site, self.areas[track].clone())).copied().unwrap_or(0)
    }
}

/// Adds one to a count.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use verge_model::LatLon;

    use super::*;
    use crate::client::{Address, Scheme};
    use crate::demo::trace::{Row, Site, Trace, Track};

    #[test]
    fn what_is_owed_is_what_was_sent_to_everybody_concerned_and_has_not_come() {
        let world = world();
        let (here, there) = (world.area(0).to_owned(), world.area(1).to_owned());
        assert_ne!(here, there);
        assert_eq!(world.owed(), Owed::default());
        assert_eq!([world.denm_sent(0, &here), world.denm_sent(0, &here)], [0, 1]);
        world.denm_sent(0, "an area of nobody");
        world.book(1, |book| book.command_sent());
        count(&world.counts.commands_unacked);
        assert_eq!(world.owed(), Owed { commands: 2, cams: 0, denms: 2 });
        world.book(0, |book| (book.denm_arrived(0, 0), book.denm_arrived(1, 0)));
        world.book(1, |book| book.command_arrived(0));
        assert_eq!(world.owed().total(), 1, "the operator has no acknowledgement yet");
        let flows = world.flows();
        assert_eq!((flows.denms.delivered, flows.commands.delivered), (2, 1));
        assert!(world.book(2, |_| ()).is_none(), "a vehicle nobody knows");
    }

    #[test]
    fn a_unit_that_is_down_is_known_to_all() {
        let world = world();
        assert!(world.are_all_up());
        world.set_up(0, false);
        assert!(!world.is_up(0) && !world.are_all_up());
    }

    fn world() -> World {
        let row =
            |lat| Row { at_ms: 0, position: LatLon { lat, lon: 11.5 }, speed: 0.0, heading: 0.0 };
        let track = |name: &str, lat| Track { vehicle: name.into(), rows: vec![row(lat)] };
        let trace = Trace { tracks: vec![track("a", 48.0), track("b", 49.0)] };
        let site = Site { id: "rsu".parse().unwrap(), position: LatLon { lat: 48.0, lon: 11.5 } };
        let address =
            Address { scheme: Scheme::Tcp, host: "127.0.0.1".into(), port: 1, path: String::new() };
        let reach = |id: &str| Reach {
            id: id.into(),
            admin: "127.0.0.1:1".parse().unwrap(),
            tcp: address.clone(),
            tls: address.clone(),
        };
        let scenario = Scenario::plan(trace, vec![site], 1.0, 1, true);
        let connect = ConnectOptions { timeout: Duration::from_secs(1), tls: None };
        World::new(scenario, vec![reach("rsu")], reach("regional"), connect)
    }
}

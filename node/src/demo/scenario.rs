//! What a run is going to do, decided before it starts: traffic, faults, and who is who.

use std::time::Duration;

use verge_model::LatLon;
use verge_mqtt_proto::ProtocolVersion;

use super::attach::{Attachments, HYSTERESIS_M};
use super::dice::Dice;
use super::trace::{Site, Trace};

/// Levels of a position topic's quadkey: tiles of about 10 m, as its-client publishes.
pub const CAM_TILE_DEPTH: u8 = 22;
/// Levels of the area a vehicle wants warnings of: tiles of about 1.6 km.
pub const AREA_TILE_DEPTH: u8 = 14;
/// The beginning of all topics, in the form of its-client's 5GCroCo scheme.
pub const TOPIC_ROOT: &str = "5GCroCo/outQueue/v2x";

/// One vehicle in this many speaks TLS.
const TLS_SHARE: usize = 8;
/// Part of the handovers in which the vehicle stays away for a while.
const PARKING_SHARE: f64 = 0.3;
/// Seconds of the trace such a vehicle stays away.
const PARKING_SECS: (f64, f64) = (2.0, 20.0);
/// Longest way from one radio cell to the next.
const GAP: Duration = Duration::from_millis(300);

/// Ends one roadside unit as a power cut would, and starts it again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kill {
    /// The roadside unit.
    pub site: usize,
    /// When it is killed, from the start of the traffic.
    pub at: Duration,
    /// How long it stays down.
    pub down: Duration,
}

/// Separates the cloud tier from all other nodes, and joins it again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// When the link is cut, from the start of the traffic.
    pub at: Duration,
    /// When it is restored.
    pub until: Duration,
}

/// Everything about a run that does not depend on how it goes.
#[derive(Debug)]
pub struct Scenario {
    /// The traffic.
    pub trace: Trace,
    /// The roadside units.
    pub sites: Vec<Site>,
    /// Who is attached where, by positions alone.
    pub attachments: Attachments,
    /// Seconds of the trace in one second.
    pub speed: f64,
    /// What chance begins with.
    pub seed: u64,
    /// The killed roadside unit, unless the run is calm.
    pub kill: Option<Kill>,
    /// The cut of the cloud link, unless the run is calm.
    pub cut: Option<Cut>,
}

/// How one vehicle's client presents itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Character {
    /// Half of the vehicles speak 5.0, half 3.1.1.
    pub version: ProtocolVersion,
    /// Some use TLS.
    pub tls: bool,
}

/// How a vehicle goes from one node to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    /// Whether it says DISCONNECT, or is just gone.
    pub goodbye: bool,
    /// How long it is without a connection.
    pub away: Duration,
}

impl Scenario {
    /// Plans a run.
    #[must_use]
    pub fn plan(trace: Trace, sites: Vec<Site>, speed: f64, seed: u64, calm: bool) -> Self {
        let positions: Vec<LatLon> = sites.iter().map(|site| site.position).collect();
        let attachments = Attachments::compute(&trace, &positions, HYSTERESIS_M);
        let mut scenario = Self { trace, sites, attachments, speed, seed, kill: None, cut: None };
        if !calm {
            let length = scenario.length();
            let mut dice = Dice::new(seed, "kill", 0);
            scenario.kill = Some(Kill {
                site: dice.below(scenario.sites.len()),
                at: length.mul_f64(dice.between(0.35, 0.55)),
                down: Duration::from_secs_f64(dice.between(3.0, 6.0)).min(length / 5),
            });
            let mut dice = Dice::new(seed, "cut", 0);
            let at = dice.between(0.15, 0.3);
            let until = at + dice.between(0.2, 0.3);
            scenario.cut = Some(Cut { at: length.mul_f64(at), until: length.mul_f64(until) });
        }
        scenario
    }

    /// How long the traffic takes.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.wall(self.trace.end_ms())
    }

    /// When a moment of the trace happens, from the start of the traffic.
    #[must_use]
    pub fn wall(&self, at_ms: u32) -> Duration {
        Duration::from_millis(u64::from(at_ms)).div_f64(self.speed)
    }

    /// A span of the trace's time, in real time.
    #[must_use]
    pub fn span(&self, secs: f64) -> Duration {
        Duration::from_secs_f64(secs / self.speed)
    }

    /// The row of a track at a time since the start of the traffic: the last that has begun.
    #[must_use]
    pub fn row_at(&self, track: usize, since: Duration) -> usize {
        let at_ms = since.as_secs_f64() * self.speed * 1000.0;
        let rows = &self.trace.tracks[track].rows;
        rows.partition_point(|row| f64::from(row.at_ms) <= at_ms).saturating_sub(1)
    }

    /// Who a vehicle is. Versions alternate, so that any number of vehicles is half and half.
    #[must_use]
    pub fn character(&self, track: usize) -> Character {
        let version =
            if track.is_multiple_of(2) { ProtocolVersion::V5 } else { ProtocolVersion::V4 };
        let tls = Dice::new(self.seed, "tls", track as u64).below(TLS_SHARE) == 0;
        Character { version, tls }
    }

    /// The tile a vehicle wants warnings of: where it is first seen.
    #[must_use]
    pub fn area(&self, track: usize) -> String {
        self.trace.tracks[track].rows[0].position.quadkey_levels(AREA_TILE_DEPTH)
    }

    /// How a vehicle leaves a node this time.
    #[must_use]
    pub fn leave(&self, dice: &mut Dice) -> Leave {
        let goodbye = dice.chance(0.5);
        let parks = dice.chance(PARKING_SHARE);
        let secs = dice.between(PARKING_SECS.0, PARKING_SECS.1);
        let away = if parks { self.span(secs) } else { dice.up_to(GAP) };
        Leave { goodbye, away }
    }
}

/// The topic of a vehicle's position.
#[must_use]
pub fn cam_topic(vehicle: &str, position: LatLon) -> String {
    format!("{TOPIC_ROOT}/cam/{vehicle}/{}", position.quadkey_levels(CAM_TILE_DEPTH))
}

/// The topic of a warning.
#[must_use]
pub fn denm_topic(source: &str, position: LatLon) -> String {
    format!("{TOPIC_ROOT}/denm/{source}/{}", position.quadkey_levels(CAM_TILE_DEPTH))
}

/// The filter for warnings of an area.
#[must_use]
pub fn denm_filter(area: &str) -> String {
    format!("{TOPIC_ROOT}/denm/+/{area}/#")
}

/// The topic, and filter, of a vehicle's commands.
#[must_use]
pub fn command_topic(vehicle: &str) -> String {
    format!("fleet/cmd/{vehicle}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::trace::{Row, Track};

    #[test]
    fn one_seed_plans_one_run_and_another_another() {
        let (one, same, other) = (scenario(1), scenario(1), scenario(2));
        assert_eq!((one.kill, one.cut), (same.kill, same.cut));
        assert_ne!((one.kill, one.cut), (other.kill, other.cut));
        assert!((0..100).all(|track| one.character(track) == same.character(track)));
    }

    #[test]
    fn faults_lie_within_the_traffic_and_leave_time_to_recover() {
        for seed in 0..200 {
            let scenario = scenario(seed);
            let (kill, cut) = (scenario.kill.unwrap(), scenario.cut.unwrap());
            assert!(kill.at + kill.down < scenario.length().mul_f64(0.8), "{kill:?}");
            assert!(cut.at < cut.until && cut.until < scenario.length().mul_f64(0.65), "{cut:?}");
        }
    }

    #[test]
    fn an_eighth_uses_tls_and_versions_are_half_and_half() {
        let scenario = scenario(1);
        let tls = (0..1_000).filter(|track| scenario.character(*track).tls).count();
        assert!((80..180).contains(&tls), "{tls}");
        let v5 = (0..200).filter(|track| scenario.character(*track).version.is_v5()).count();
        assert_eq!(v5, 100);
    }

    #[test]
    fn rows_follow_the_clock_at_the_speed() {
        let scenario = scenario(1);
        assert_eq!(scenario.row_at(0, Duration::ZERO), 0);
        assert_eq!(scenario.row_at(0, Duration::from_millis(2_500)), 10);
        assert_eq!(scenario.row_at(0, Duration::from_secs(999)), 299);
    }

    #[test]
    fn a_warning_s_topic_matches_the_filter_of_its_area_only() {
        let here = LatLon { lat: 48.1, lon: 11.5 };
        let there = LatLon { lat: 48.2, lon: 11.5 };
        let filter = denm_filter(&here.quadkey_levels(AREA_TILE_DEPTH));
        assert!(verge_mqtt_proto::matches(&filter, &denm_topic("rsu-1", here)));
        assert!(!verge_mqtt_proto::matches(&filter, &denm_topic("rsu-1", there)));
        assert_eq!(cam_topic("v1", here).split('/').count(), 5 + usize::from(CAM_TILE_DEPTH));
    }

    fn scenario(seed: u64) -> Scenario {
        let position = LatLon { lat: 48.1, lon: 11.5 };
        let row = |second: u32| Row { at_ms: second * 1000, position, speed: 0.0, heading: 0.0 };
        let track = Track { vehicle: "v".into(), rows: (0..300).map(row).collect() };
        let site = |name: &str| Site { id: name.parse().unwrap(), position };
        let sites = ["a", "b", "c", "d"].map(site).to_vec();
        Scenario::plan(Trace { tracks: vec![track] }, sites, 4.0, seed, false)
    }
}

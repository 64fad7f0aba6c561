//! Which roadside unit a vehicle is attached to, from positions alone.
//!
//! This is the yardstick the whole run is measured against, so it knows nothing of nodes: in its
//! first row a vehicle is attached to the nearest unit, and it moves when another one is nearer
//! than the present one by more than the hysteresis.

use verge_model::LatLon;

use super::trace::{Row, Site, Trace};

/// Distance another roadside unit must be nearer by: about the width of an intersection, so that a
/// vehicle waiting at a light between two units does not move back and forth.
pub const HYSTERESIS_M: f64 = 50.0;

/// Where every vehicle is attached, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachments {
    /// For each track of the trace, for each of its rows, the index of the roadside unit.
    per_track: Vec<Vec<u16>>,
    /// How often a vehicle moves from one unit to another.
    handovers: usize,
}

impl Attachments {
    /// Attaches every vehicle of `trace` to `sites`, of which there is at least one.
    #[must_use]
    pub fn compute(trace: &Trace, sites: &[LatLon], hysteresis_m: f64) -> Self {
        let per_track: Vec<Vec<u16>> =
            trace.tracks.iter().map(|track| attach(&track.rows, sites, hysteresis_m)).collect();
        let moves = |row: &Vec<u16>| row.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let handovers = per_track.iter().map(moves).sum();
        Self { per_track, handovers }
    }

    /// The roadside unit of a track in one of its rows.
    #[must_use]
    pub fn at(&self, track: usize, row: usize) -> usize {
        usize::from(self.per_track[track][row])
    }

    /// Handovers of the whole trace.
    #[must_use]
    pub fn handovers(&self) -> usize {
        self.handovers
    }
}

/// The index of the site nearest to `position`, and its distance in metres; the first of equals.
#[must_use]
pub fn nearest(position: LatLon, sites: &[LatLon]) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (index, site) in sites.iter().enumerate() {
        let distance = position.distance_m(*site);
        if distance < best.1 {
            best = (index, distance);
        }
    }
    best
}

/// The indices of all sites, nearest first.
#[must_use]
pub fn by_distance(position: LatLon, sites: &[Site]) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..sites.len()).collect();
    indices.sort_by(|&a, &b| {
        let distance = |site: usize| position.distance_m(sites[site].position);
        distance(a).total_cmp(&distance(b))
    });
    indices
}

fn attach(rows: &[Row], sites: &[LatLon], hysteresis_m: f64) -> Vec<u16> {
    let mut present: Option<usize> = None;
    let mut attached = Vec::with_capacity(rows.len());
    for row in rows {
        let (candidate, distance) = nearest(row.position, sites);
        let stays = present.filter(|&site| {
            site == candidate || row.position.distance_m(sites[site]) - distance <= hysteresis_m
        });
        let site = stays.unwrap_or(candidate);
        present = Some(site);
        attached.push(u16::try_from(site).expect("RSUS_MAX sites have 16 bit indices"));
    }
    attached
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::demo::trace::load_sites;

    #[test]
    fn the_handovers_of_the_repository_s_trace_are_those_of_its_readme() {
        let trace = Trace::load(&file("grid-200x300.csv.gz"), usize::MAX, u32::MAX).unwrap();
        let sites = sites("rsus-16.csv");
        assert_eq!(Attachments::compute(&trace, &sites, 0.0).handovers(), 541);
        let attachments = Attachments::compute(&trace, &sites, HYSTERESIS_M);
        assert_eq!(attachments.handovers(), 496);
        assert_eq!(most_at_once(&attachments, 16), 25, "most vehicles on one unit");
        assert_eq!(returns_within(&attachments, 30), 0, "nobody goes back within 30 s");
    }

    #[test]
    fn without_hysteresis_a_vehicle_is_always_at_its_nearest_unit() {
        let trace = Trace::load(&file("grid-200x300.csv.gz"), 20, u32::MAX).unwrap();
        let sites = sites("rsus-16.csv");
        let attachments = Attachments::compute(&trace, &sites, 0.0);
        let mut farthest: f64 = 0.0;
        for (track, vehicle) in trace.tracks.iter().enumerate() {
            for (row, at) in vehicle.rows.iter().enumerate() {
                let (wanted, distance) = nearest(at.position, &sites);
                assert_eq!(attachments.at(track, row), wanted);
                farthest = farthest.max(distance);
            }
        }
        assert!(farthest < 568.5, "{farthest}");
    }

    #[test]
    fn a_vehicle_between_two_units_moves_once_when_it_is_clearly_past_the_middle() {
        let sites = [LatLon { lat: 48.0, lon: 11.0 }, LatLon { lat: 48.01, lon: 11.0 }];
        let rows: Vec<Row> = [0.0048, 0.0051, 0.0049, 0.0051, 0.0053, 0.0049]
            .into_iter()
            .zip(0..)
            .map(|(north, second)| Row {
                at_ms: second * 1000,
                position: LatLon { lat: 48.0 + north, lon: 11.0 },
                speed: 1.0,
                heading: 0.0,
            })
            .collect();
        assert_eq!(attach(&rows, &sites, 0.0), [0, 1, 0, 1, 1, 0]);
        // 0.0003° past the middle is 33 m, so the other unit is 67 m nearer.
        assert_eq!(attach(&rows, &sites, 50.0), [0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn sites_are_ordered_by_distance() {
        let sites = load_sites(&file("edges-4.csv")).unwrap();
        let order = by_distance(sites[2].position, &sites);
        assert_eq!((order[0], order.len()), (2, 4));
        assert_eq!(order[3], 1, "the opposite corner is farthest");
    }

    fn most_at_once(attachments: &Attachments, sites: usize) -> usize {
        let seconds = attachments.per_track[0].len();
        let at = |second: usize| {
            let mut counts = vec![0; sites];
            for track in &attachments.per_track {
                counts[usize::from(track[second])] += 1;
            }
            counts.into_iter().max().unwrap_or(0)
        };
        (0..seconds).map(at).max().unwrap_or(0)
    }

    fn returns_within(attachments: &Attachments, seconds: usize) -> usize {
        let returns = |track: &Vec<u16>| {
            let moves: Vec<(usize, u16)> = (1..track.len())
                .filter(|&row| track[row] != track[row - 1])
                .map(|row| (row, track[row]))
                .collect();
            let left = |row: usize| track[row - 1];
            moves
                .windows(2)
                .filter(|pair| pair[1].1 == left(pair[0].0) && pair[1].0 - pair[0].0 <= seconds)
                .count()
        };
        attachments.per_track.iter().map(returns).sum()
    }

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge-configs/traces").join(name)
    }

    fn sites(name: &str) -> Vec<LatLon> {
        load_sites(&file(name)).unwrap().into_iter().map(|site| site.position).collect()
    }
}

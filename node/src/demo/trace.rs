//! Reading traces of traffic and lists of roadside units.
//!
//! A trace is a CSV of `t,vehicle,lat,lon,speed,heading` ordered by `t`, plain or gzip; a list of
//! roadside units is a CSV whose first three columns are id, latitude and longitude.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use verge_model::{LatLon, NodeId};

/// Most vehicles of one trace: each is a client with a socket of its own.
pub const VEHICLES_MAX: usize = 100_000;
/// Most rows of one trace; about 2 GB of memory.
pub const ROWS_MAX: usize = 50_000_000;
/// Most roadside units of one list: each is a process on this machine.
pub const RSUS_MAX: usize = 250;

/// The first two bytes of every gzip file. (RFC 1952, 2.3.1)
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Where a vehicle is at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Milliseconds since the start of the trace.
    pub at_ms: u32,
    /// The front bumper.
    pub position: LatLon,
    /// Metres a second.
    pub speed: f32,
    /// Degrees clockwise from north.
    pub heading: f32,
}

/// A vehicle and its way: at least one row, ordered by time.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// Its name, also its MQTT Client Identifier.
    pub vehicle: String,
    /// Where it is when.
    pub rows: Vec<Row>,
}

/// A traffic trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Vehicles in the order in which they first appear.
    pub tracks: Vec<Track>,
}

/// A roadside unit of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its name.
    pub id: NodeId,
    /// Where it stands.
    pub position: LatLon,
}

/// A file could not be used; names it, and the line if there is one.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not what the file's columns promise.
    #[error("{}: line {line}: {detail}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// The file holds nothing, or too much.
    #[error("{}: {detail}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

#[derive(Deserialize)]
struct TraceRecord<'a> {
    t: f64,
    vehicle: &'a str,
    lat: f64,
    lon: f64,
    speed: f32,
    heading: f32,
}

impl Trace {
    /// Reads a trace: rows up to `until_ms`, of the first `vehicles_max` vehicles.
    ///
    /// # Errors
    /// The file cannot be read, or a line is wrong.
    pub fn load(path: &Path, vehicles_max: usize, until_ms: u32) -> Result<Self, TraceError> {
        let mut reader = csv::Reader::from_reader(open(path)?);
        let headers = reader.headers().map_err(|error| csv_error(path, &error))?.clone();
        for wanted in ["t", "vehicle", "lat", "lon", "speed", "heading"] {
            if !headers.iter().any(|header| header == wanted) {
                let detail =
                    format!("no column '{wanted}'; a trace has t,vehicle,lat,lon,speed,heading");
                return Err(TraceError::Content { path: path.to_owned(), detail });
            }
        }
        let mut tracks: Vec<Track> = Vec::new();
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        let mut record = csv::StringRecord::new();
        let mut rows = 0;
        let (mut previous_ms, vehicles_max) = (0, vehicles_max.min(VEHICLES_MAX));
        while reader.read_record(&mut record).map_err(|error| csv_error(path, &error))? {
            let line = record.position().map_or(0, csv::Position::line);
            let wrong = |detail: String| TraceError::Line { path: path.to_owned(), line, detail };
            let fields: TraceRecord<'_> =
                record.deserialize(Some(&headers)).map_err(|error| csv_error(path, &error))?;
            let row = fields.row().map_err(wrong)?;
            if row.at_ms < previous_ms {
                return Err(wrong("t goes back; rows are ordered by t".to_owned()));
            }
            previous_ms = row.at_ms;
            if row.at_ms > until_ms {
                break;
            }
            let track = match index.get(fields.vehicle) {
                Some(&track) => track,
                None if tracks.len() == vehicles_max => continue,
                None => {
                    index.insert(fields.vehicle.to_owned(), tracks.len());
                    tracks.push(Track { vehicle: fields.vehicle.to_owned(), rows: Vec::new() });
                    tracks.len() - 1
                }
            };
            rows += 1;
            if rows > ROWS_MAX {
                return Err(wrong(format!("more than {ROWS_MAX} rows; take fewer with --seconds")));
            }
            tracks[track].rows.push(row);
        }
        if tracks.is_empty() {
            let detail = "holds no vehicle".to_owned();
            return Err(TraceError::Content { path: path.to_owned(), detail });
        }
        Ok(Self { tracks })
    }

    /// The time of the last row.
    #[must_use]
    pub fn end_ms(&self) -> u32 {
        self.tracks
            .iter()
            .filter_map(|track| track.rows.last())
            .map(|row| row.at_ms)
            .max()
            .unwrap_or(0)
    }
}

impl TraceRecord<'_> {
    fn row(&self) -> Result<Row, String> {
        let at_ms = (self.t * 1000.0).round();
        if !(0.0..=f64::from(u32::MAX)).contains(&at_ms) {
            return Err(format!("t {} is not a time in seconds", self.t));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if self.vehicle.is_empty() || self.vehicle.len() > 23 || !self.vehicle.chars().all(fits) {
            return Err(format!(
                "vehicle '{}' cannot be a client id (1 to 23 letters, digits, '.', '_', '-')",
                self.vehicle
            ));
        }
        Ok(Row {
            at_ms: at_ms as u32,
            position: LatLon::new(self.lat, self.lon)?,
            speed: self.speed,
            heading: self.heading,
        })
    }
}

/// Reads a list of roadside units.
///
/// # Errors
/// The file cannot be read, a line is wrong, or a name stands twice.
pub fn load_sites(path: &Path) -> Result<Vec<Site>, TraceError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(open(path)?);
    let mut sites: Vec<Site> = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| csv_error(path, &error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |detail: String| TraceError::Line { path: path.to_owned(), line, detail };
        let (Some(id), Some(lat), Some(lon)) = (record.get(0), record.get(1), record.get(2)) else {
            return Err(wrong("a roadside unit has id,lat,lon".to_owned()));
        };
        let id: NodeId = id.trim().parse().map_err(|error| wrong(format!("'{id}': {error}")))?;
        let position = format!("{lat},{lon}").parse().map_err(wrong)?;
        if sites.iter().any(|site| site.id == id) {
            return Err(wrong(format!("'{id}' stands twice")));
        }
        if sites.len() == RSUS_MAX {
            return Err(wrong(format!("more than {RSUS_MAX} roadside units")));
        }
        sites.push(Site { id, position });
    }
    if sites.is_empty() {
        let detail = "holds no roadside unit".to_owned();
        return Err(TraceError::Content { path: path.to_owned(), detail });
    }
    Ok(sites)
}

fn open(path: &Path) -> Result<Box<dyn Read>, TraceError> {
    let failed = |source| TraceError::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let is_gzip = file.fill_buf().map_err(failed)?.starts_with(&GZIP_MAGIC);
    Ok(if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

fn csv_error(path: &Path, error: &csv::Error) -> TraceError {
    let path = path.to_owned();
    match error.position() {
        Some(position) => {
            TraceError::Line { path, line: position.line(), detail: error.to_string() }
        }
        None => TraceError::Content { path, detail: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const HEAD: &str = "t,vehicle,lat,lon,speed,heading\n";

    #[test]
    fn the_trace_of_the_repository_has_200_vehicles_of_300_rows() {
        let trace = Trace::load(&file("grid-200x300.csv.gz"), usize::MAX, u32::MAX).unwrap();
        assert_eq!(trace.tracks.len(), 200);
        assert!(trace.tracks.iter().all(|track| track.rows.len() == 300));
        assert_eq!(trace.end_ms(), 299_000);
        let first = &trace.tracks[0];
        assert_eq!(first.vehicle, "v0");
        assert_eq!(first.rows[0].position, LatLon { lat: 48.105433, lon: 11.510914 });
        assert_eq!((first.rows[0].speed, first.rows[0].heading), (0.0, 270.0));
    }

    #[test]
    fn vehicles_and_seconds_can_be_fewer() {
        let trace = Trace::load(&file("grid-200x300.csv.gz"), 10, 59_000).unwrap();
        assert_eq!(trace.tracks.len(), 10);
        assert!(trace.tracks.iter().all(|track| track.rows.len() == 60));
    }

    #[test]
    fn lists_with_and_without_an_edge_column_are_read() {
        assert_eq!(load_sites(&file("edges-4.csv")).unwrap().len(), 4);
        let sites = load_sites(&file("rsus-16.csv")).unwrap();
        assert_eq!(sites.len(), 16);
        assert_eq!(sites[1].id.as_str(), "rsu-01");
    }

    #[test]
    fn decimal_seconds_and_plain_text_are_read() {
        let text =
            format!("{HEAD}0,a,48.1,11.5,1,90\n0.1,a,48.1,11.5,1,90\n0.1,b,48.1,11.5,1,90\n");
        let trace = load(&text).unwrap();
        assert_eq!(trace.tracks[0].rows[1].at_ms, 100);
        assert_eq!(trace.tracks[1].vehicle, "b");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases = [
            ("", "no column 't'"),
            (HEAD, "holds no vehicle"),
            ("t,vehicle,lat,lon,speed\n", "no column 'heading'"),
            (&format!("{HEAD}0,a,98.1,11.5,1,90\n"), "line 2: latitude 98.1"),
            (&format!("{HEAD}0,a b,48.1,11.5,1,90\n"), "line 2: vehicle 'a b'"),
            (&format!("{HEAD}-1,a,48.1,11.5,1,90\n"), "line 2: t -1"),
            (&format!("{HEAD}1,a,48,11,1,90\n0,a,48,11,1,90\n"), "line 3: t goes back"),
            (&format!("{HEAD}0,a,48,11,1,90\n1,a,48\n"), "line 3"),
            (&format!("{HEAD}0,a,north,11,1,90\n"), "line 2"),
        ];
        for (text, wanted) in cases {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?} gives {error:?}, not {wanted:?}");
        }
    }

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge-configs/traces").join(name)
    }

    fn load(text: &str) -> Result<Trace, TraceError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Trace::load(file.path(), usize::MAX, u32::MAX)
    }
}

//! The payloads of the run: JSON, as its-client's are, with what the books need.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::trace::Row;

/// A vehicle's position report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cam {
    /// Its index in the trace.
    pub track: usize,
    /// Its name.
    pub vehicle: String,
    /// The report's number.
    pub number: u64,
    /// When it was sent, in microseconds since the run began.
    pub sent_us: u64,
    /// Seconds of the trace.
    pub t: f64,
    /// Degrees.
    pub lat: f64,
    /// Degrees.
    pub lon: f64,
    /// Metres a second.
    pub speed: f32,
    /// Degrees clockwise from north.
    pub heading: f32,
}

impl Cam {
    /// The report of a row.
    #[must_use]
    pub fn new(track: usize, vehicle: &str, number: u64, sent_us: u64, row: &Row) -> Self {
        Self {
            track,
            vehicle: vehicle.to_owned(),
            number,
            sent_us,
            t: f64::from(row.at_ms) / 1000.0,
            lat: row.position.lat,
            lon: row.position.lon,
            speed: row.speed,
            heading: row.heading,
        }
    }
}

/// The operator's command to a vehicle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Whether it only tries the way, before the traffic starts.
    pub greeting: bool,
    /// Its number, of those to this vehicle.
    pub number: u64,
    /// When it was sent, in microseconds since the run began.
    pub sent_us: u64,
}

/// A warning of a roadside unit's application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denm {
    /// Whether it only tries the way, before the traffic starts.
    pub greeting: bool,
    /// The roadside unit's index in the list.
    pub site: usize,
    /// Its number, of those of this unit to this area.
    pub number: u64,
    /// When it was sent, in microseconds since the run began.
    pub sent_us: u64,
}

/// The bytes of a payload.
#[must_use]
pub fn encode(payload: &impl Serialize) -> Bytes {
    // Numbers, texts and flags only: there is nothing that JSON could not hold.
    Bytes::from(serde_json::to_vec(payload).unwrap_or_default())
}

/// The payload of bytes, if they are one of ours.
#[must_use]
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use verge_model::LatLon;

    use super::*;

    #[test]
    fn payloads_read_back_as_they_are_written_and_others_do_not() {
        let position = LatLon { lat: 48.105433, lon: 11.510914 };
        let row = Row { at_ms: 1_100, position, speed: 12.87, heading: 90.5 };
        let cam = Cam::new(3, "v3", 7, 1_234, &row);
        assert_eq!(decode::<Cam>(&encode(&cam)), Some(cam));
        let command = Command { greeting: false, number: 1, sent_us: 2 };
        assert_eq!(decode::<Command>(&encode(&command)), Some(command));
        assert_eq!(decode::<Command>(b"{}"), None);
        assert_eq!(decode::<Denm>(b"\xff"), None);
    }
}

//! Where things are: WGS84 positions, distances, and quadkey tiles.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Mean radius of the Earth in metres (IUGG), as used for all distances here.
pub const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// The latitude at which the Web Mercator square ends.
const MERCATOR_LATITUDE_MAX: f64 = 85.051_128_78;

/// A WGS84 position in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Degrees")]
pub struct LatLon {
    /// Latitude, -90 to 90.
    pub lat: f64,
    /// Longitude, -180 to 180.
    pub lon: f64,
}

/// A position as somebody wrote it, who may have written anything.
#[derive(Deserialize)]
struct Degrees {
    lat: f64,
    lon: f64,
}

impl TryFrom<Degrees> for LatLon {
    type Error = String;

    fn try_from(degrees: Degrees) -> Result<Self, String> {
        Self::new(degrees.lat, degrees.lon)
    }
}

impl LatLon {
    /// A position, if both degrees are in range.
    ///
    /// # Errors
    /// Says which of the two is not.
    pub fn new(lat: f64, lon: f64) -> Result<Self, String> {
        if !(-90.0..=90.0).contains(&lat) {
            return Err(format!("latitude {lat} is not between -90 and 90"));
        }
        if !(-180.0..=180.0).contains(&lon) {
            return Err(format!("longitude {lon} is not between -180 and 180"));
        }
        Ok(Self { lat, lon })
    }

    /// Great-circle distance in metres (haversine).
    #[must_use]
    pub fn distance_m(self, other: Self) -> f64 {
        let (lat1, lat2) = (self.lat.to_radians(), other.lat.to_radians());
        let half_lat = (lat2 - lat1) / 2.0;
        let half_lon = (other.lon - self.lon).to_radians() / 2.0;
        let a = half_lat.sin().powi(2) + lat1.cos() * lat2.cos() * half_lon.sin().powi(2);
        2.0 * EARTH_RADIUS_M * a.sqrt().min(1.0).asin()
    }

    /// The digits (0 to 3) of the tile that holds this position, coarsest first (Microsoft's
    /// quadkeys on Web Mercator; the topic scheme of its-client uses one digit a level).
    pub fn quadkey(self, depth: u8) -> impl Iterator<Item = u8> {
        let lat = self.lat.clamp(-MERCATOR_LATITUDE_MAX, MERCATOR_LATITUDE_MAX).to_radians();
        let scale = 2f64.powi(i32::from(depth));
        let x = (self.lon + 180.0) / 360.0;
        let y = 0.5 - (lat.tan() + 1.0 / lat.cos()).ln() / (2.0 * std::f64::consts::PI);
        let tile = |fraction: f64| (fraction * scale).floor().clamp(0.0, scale - 1.0) as u64;
        let (x, y) = (tile(x), tile(y));
        (0..depth).rev().map(move |bit| (((y >> bit) & 1) << 1 | ((x >> bit) & 1)) as u8)
    }

    /// The quadkey as topic levels: `0/3/1/…`.
    #[must_use]
    pub fn quadkey_levels(self, depth: u8) -> String {
        let mut levels = String::with_capacity(2 * usize::from(depth));
        for digit in self.quadkey(depth) {
            if !levels.is_empty() {
                levels.push('/');
            }
            levels.push(char::from(b'0' + digit));
        }
        levels
    }
}

impl fmt::Display for LatLon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6},{:.6}", self.lat, self.lon)
    }
}

impl FromStr for LatLon {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("'{text}' is not a position; write LAT,LON in degrees");
        let (lat, lon) = text.split_once(',').ok_or_else(wanted)?;
        let degrees = |part: &str| part.trim().parse::<f64>().map_err(|_| wanted());
        Self::new(degrees(lat)?, degrees(lon)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_of_one_degree_of_latitude() {
        let a = LatLon { lat: 48.0, lon: 11.5 };
        let b = LatLon { lat: 49.0, lon: 11.5 };
        assert!((a.distance_m(b) - 111_195.08).abs() < 0.1);
    }

    #[test]
    fn quadkey_of_the_published_example() {
        // Bing Maps Tile System: tile (3, 5) at level 3 is "213".
        let tile = LatLon { lat: -45.0, lon: -20.0 };
        assert_eq!(tile.quadkey_levels(3), "2/1/3");
    }

    #[test]
    fn a_position_reads_back_as_written() {
        assert_eq!("48.1,11.5".parse(), Ok(LatLon { lat: 48.1, lon: 11.5 }));
        assert!("48.1".parse::<LatLon>().is_err());
        assert!("91,0".parse::<LatLon>().is_err());
        assert!("NaN,0".parse::<LatLon>().is_err());
    }

    #[test]
    fn a_position_that_is_none_is_not_taken_from_another_node() {
        let read = |lat: f64, lon: f64| {
            let raw = Degrees { lat, lon };
            LatLon::try_from(raw)
        };
        assert_eq!(read(48.0, 11.0), Ok(LatLon { lat: 48.0, lon: 11.0 }));
        assert!(read(f64::NAN, 11.0).is_err() && read(48.0, f64::INFINITY).is_err());
    }
}

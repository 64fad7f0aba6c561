//! Priority of messages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The class of a message, by topic rule. Classes have separate queues wherever messages wait, so
/// a DENM never waits behind telemetry. The numbers are written to disk and links: never re-use one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Class {
    /// Warnings: nothing goes before them.
    Safety = 0,
    /// Commands, and the mesh's own operations.
    Control = 1,
    /// What vehicles report all the time.
    #[default]
    Telemetry = 2,
    /// What may take its time.
    Bulk = 3,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Self; 4] = [Self::Safety, Self::Control, Self::Telemetry, Self::Bulk];

    /// The class with this stored number.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u8 == number)
    }

    /// The class's name in configuration files and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Safety => "safety",
            Self::Control => "control",
            Self::Telemetry => "telemetry",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| {
            format!("'{text}' is not a class; classes are safety, control, telemetry and bulk")
        })
    }
}

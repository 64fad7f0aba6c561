//! Bounds that belong to no single component. A component's own bounds stand in its configuration.

use std::time::Duration;

/// Longest [`NodeId`](crate::NodeId): a DNS label, so that every certificate and file name holds it.
pub const NODE_ID_BYTES_MAX: usize = 63;

/// How far ahead of the wall clock a peer's stamp may lie. Nodes keep time by NTP or GNSS; half a
/// second is far beyond what either leaves.
pub const HLC_AHEAD_MAX: Duration = Duration::from_millis(500);

/// "The maximum length of a UTF-8 Encoded String is 65,535 bytes." (MQTT 5.0, 1.5.4)
pub const MQTT_STRING_BYTES_MAX: usize = 65_535;

/// "The maximum value" of a Variable Byte Integer, and so of Remaining Length. (MQTT 5.0, 1.5.5)
pub const MQTT_REMAINING_LENGTH_MAX: usize = 268_435_455;

//! How far a peer's log was taken.

use serde::{Deserialize, Serialize};

use super::Record;

/// Written in the commit that holds what the rows up to `last` caused here, so that a link is
/// exactly-once over reconnects and crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInRecord {
    /// The last sequence taken; 0: none.
    pub last: u64,
}

impl Record for LinkInRecord {
    const NAME: &'static str = "link_in";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        11
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        golden::holds(&LinkInRecord { last: 300 }, "01ac02");
    }
}

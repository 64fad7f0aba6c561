//! What a node grants its clients beyond what every MQTT server must.

/// The terms. [`Terms::default`] grants all that the standard has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Most topic aliases this node sets towards a client that accepts them; 0 for none. It bounds
    /// the table a connection has for them.
    pub topic_alias_maximum_out: u16,
}

impl Default for Terms {
    fn default() -> Self {
        Self { topic_alias_maximum_out: 32 }
    }
}

//! What a client costs while nothing happens: these two, a task, a registration and places in tables.

use verge_mqtt_proto::Connection;

use crate::router::entry::Entry;
use crate::shard::connection::Conn;
use crate::shard::owed::Owed;
use crate::shard::session::Session;

/// Bytes of a connection. Who needs more room puts what few connections use into a box.
const CONN_BYTES_MAX: usize = 320;

/// Bytes of a session, connected or parked.
const SESSION_BYTES_MAX: usize = 256;

#[test]
fn a_connection_and_its_session_do_not_grow_unnoticed() {
    let sizes = (size_of::<Conn>(), size_of::<Session>());
    let machines = (size_of::<Connection>(), size_of::<Owed>(), size_of::<Entry>());
    println!("{sizes:?}, of which {machines:?}");
    assert!(sizes.0 <= CONN_BYTES_MAX && sizes.1 <= SESSION_BYTES_MAX, "{sizes:?}");
}

//! What the standard says, seen from a client's end of the wire.
//!
//! [`cases`] are tables of behaviours, each with the numbers of the statements it shows, driven by a
//! client made of bytes ([`wire`]) against a running node. Every case runs in each version it speaks
//! of, over each transport, and with every byte written by itself. `VERGE_CASE` names one.
//!
//! [`manifest`] holds the list of all statements of both standards against the code and the tests:
//! `manifest.toml` says for each where it is implemented and what shows it.

mod bench;
mod cases;
mod manifest;
#[path = "../processes/node.rs"]
#[expect(dead_code, reason = "process tests do more with a node")]
mod node;
#[path = "../processes/ports.rs"]
mod ports;
#[path = "../processes/programs.rs"]
mod programs;
#[path = "../processes/site.rs"]
#[expect(dead_code, reason = "process tests need more of a site")]
mod site;
mod table;
#[path = "../processes/time.rs"]
mod time;
mod wire;

use crate::table::{Bytes, Extent};
use crate::wire::stream::Transport;

#[test]
fn every_case_over_tcp() {
    table::run(Transport::Tcp, Bytes::Together, Extent::Whole);
}

#[test]
fn every_case_over_tcp_in_single_bytes() {
    table::run(Transport::Tcp, Bytes::Single, Extent::Whole);
}

#[test]
fn cases_over_tls() {
    table::run(Transport::Tls, Bytes::Together, Extent::of_environment());
}

#[test]
fn cases_over_websocket() {
    table::run(Transport::Ws, Bytes::Together, Extent::of_environment());
}

#[test]
fn cases_over_websocket_in_single_bytes() {
    table::run(Transport::Ws, Bytes::Single, Extent::of_environment());
}

#[test]
fn cases_over_secure_websocket() {
    table::run(Transport::Wss, Bytes::Together, Extent::of_environment());
}

#[test]
fn cases_over_quic() {
    table::run(Transport::Quic, Bytes::Together, Extent::of_environment());
}

#[test]
fn cases_over_quic_in_single_bytes() {
    table::run(Transport::Quic, Bytes::Single, Extent::of_environment());
}

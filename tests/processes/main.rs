//! Real processes: nodes and the cloud tier are started, spoken to by other people's clients and by
//! a plain one of our own, killed, restarted and asked what became of every message.
//!
//! Each test has a [`site`] of its own, with directories and ports; it ends only what it started.
//! The programs are those of the same build, or of the directory `VERGE_BIN_DIR`.

mod abuse;
mod backup;
mod bad_input;
mod book;
mod bridge;
mod certificates;
mod client;
mod cloud;
mod command_line;
mod crash;
mod extensions;
mod faults;
mod formats;
mod half_open;
mod handover;
mod interop;
mod ledger;
mod mesh;
mod node;
mod paho;
mod parked;
mod ports;
mod programs;
mod proxy;
mod python;
mod quic;
mod rate;
mod reload;
mod resumption;
mod single;
mod site;
mod slow;
mod time;
mod tls_names;
mod users;
mod ws;

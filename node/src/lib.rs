//! An MQTT broker node for roads: sockets, tasks, HTTP, clock, configuration.
//!
//! A node is one process: shard threads that serve clients, a mesh thread that speaks with other
//! nodes, one thread that writes to storage, and one for the admin API. What they decide is decided
//! in [`verge_broker_core`]; here is what gives the decisions sockets, time and a disk.
//!
//! ```text
//! clients ─▶ listener ─▶ shard 0 … shard N ──mail──▶ mesh ─▶ other nodes, cloud tier
//!                          │        │                 │
//!                          └────────┴──── storage ────┘          admin ◀─ operators
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`app`] | the composition of a node |
//! | [`cli`], [`config`] | what the operator says |
//! | [`listener`], [`shard`] | clients |
//! | [`mesh`], [`uplink`] | other nodes |
//! | [`disk`] | what is free, and whether it works |
//! | [`admin`], [`telemetry`] | what the operator is told |
//! | [`backup`] | copies of what a node keeps, and nodes from copies |
//! | [`client`], [`demo`] | the other side: an MQTT client, and vehicles that drive past nodes |
//! | [`bench`] | the same work against this broker and others |
//!
//! `verge-cloud` uses the parts that are not about MQTT: configuration, clock, log, links, admin
//! server.

pub mod admin;
pub mod app;
pub mod authn;
pub mod backup;
pub mod bench;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod demo;
pub mod disk;
pub mod listener;
pub mod mesh;
pub mod shard;
pub mod sys;
pub mod telemetry;
pub mod uplink;

//! Transcripts of shards: these packets in, exactly those packets out.
//!
//! [`bed::Bed`] is a node of one or more shards over a store in memory; [`client::Client`] speaks
//! through the codec. After every input the bed runs to quiet and checks the shards' invariants and
//! the ledger. [`mesh::Mesh`] joins beds for handovers.

mod bed;
mod bounds;
mod client;
mod mesh;
mod reads;
mod replica;
mod streams;

mod alias;
mod authenticate;
mod away;
mod bridge;
mod connack;
mod connect;
mod crash;
mod delayed;
mod extensions;
mod granted;
mod handover;
mod hold;
mod honest;
mod parked;
mod publish;
mod refusing;
mod retained;
mod shared;
mod sizes;
mod streams_data;
mod streams_ends;
mod streams_moves;
mod streams_qos;
mod streams_random;
mod streams_subscribe;
mod subscribe;
mod will;
mod words;

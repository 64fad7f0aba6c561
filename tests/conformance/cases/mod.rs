//! The behaviours, by section of the standard.

mod connect;
mod disconnect;
mod flow;
mod format;
mod handshake;
mod identity;
mod publish;
mod qos;
mod redelivery;
mod retain;
mod session;
mod shared;
mod subscribe;
mod topic;
mod unsubscribe;
mod websocket;
mod will;

use crate::table::Case;

/// The tables.
pub(crate) const ALL: &[&[Case]] = &[
    connect::CASES,
    disconnect::CASES,
    flow::CASES,
    format::CASES,
    handshake::CASES,
    identity::CASES,
    publish::CASES,
    qos::CASES,
    redelivery::CASES,
    retain::CASES,
    session::CASES,
    shared::CASES,
    subscribe::CASES,
    topic::CASES,
    unsubscribe::CASES,
    websocket::CASES,
    will::CASES,
];

/// Those that every transport is tried with: bytes, packets, connections and their ends.
pub(crate) const QUICK: &[&[Case]] = &[
    connect::CASES,
    disconnect::CASES,
    flow::CASES,
    format::CASES,
    identity::CASES,
    qos::CASES,
    topic::CASES,
];

//! Tests that drive the whole: simulation, integration, processes.
//!
//! `simulation/` runs whole nodes, shards and hub and all, on a simulated network, disk and clock,
//! from one seed.

//! Several cores on a network, with disks and a clock, all in memory and decided by one seed.

mod greetings;
mod scenarios;
mod world;

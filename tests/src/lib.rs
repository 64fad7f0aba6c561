//! Tests of the whole. The library holds what test programs share: the entry points that are fuzzed.

pub mod fuzz;

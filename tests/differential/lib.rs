//! Only tests; see `codec.rs`.

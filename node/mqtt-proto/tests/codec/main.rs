//! The codec from outside: bytes of the standard, broken bytes, and any bytes at all.

mod golden;
mod invalid;
mod limits;
mod properties;
mod random;

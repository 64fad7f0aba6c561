//! Replicated state: routes by operation log, the session registry by merging states.
//!
//! Both stand on `crdts`: [`crdts::VClock`] and [`crdts::Dot`] tell what is known of an origin,
//! [`crdts::LWWReg`] and [`crdts::Orswot`] hold a registry entry. `crdts::Map` is not used: with
//! values nested in it, replicas can differ for ever.

pub mod routes;
pub mod sessions;

//! What must hold. While a run goes on, the world itself watches the acknowledgements
//! ([`honest`](crate::world::honest)), the ledgers, the machines' own invariants, and that nothing
//! is invented ([`Oracle`](crate::oracle::Oracle)). At its end, when trouble is over:
//!
//! | file | holds |
//! |---|---|
//! | [`settled`] | liveness: clients are served, nothing waits, nothing is left over |
//! | [`owner`] | one effective owner a session, and its homes know it |
//! | [`routes`] | routes are the union of the sessions' filters, and equal everywhere |
//! | [`delivered`] | no acknowledged message is lost |
//! | [`exactly_once`] | QoS 2 is exactly once |
//! | [`order`] | what one publisher sends to one topic comes in order |

mod delivered;
mod exactly_once;
mod order;
mod owner;
mod routes;
mod settled;

use crate::scenario::Family;
use crate::world::World;

/// What is not yet as it must be in the end; `None`: the run may be judged.
pub(crate) fn unsettled(world: &mut World) -> Option<String> {
    settled::unsettled(world)
        .or_else(|| owner::unsettled(world))
        .or_else(|| routes::unsettled(world))
}

/// Whether every node knows the routes of every other.
pub(crate) fn routes_differ(world: &mut World) -> Option<String> {
    routes::unsettled(world)
}

/// Judges a run.
pub(crate) fn judge(world: &mut World, family: Family) {
    delivered::judge(world);
    exactly_once::judge(world, family);
    order::judge(world, family);
}

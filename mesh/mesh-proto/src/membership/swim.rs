//! foca with a queue of timers, and nothing it could wait for.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use bytes::Bytes;
use foca::{
    AccumulatingRuntime, Config, Foca, Member, NoCustomBroadcast, OwnedNotification, PostcardCodec,
    State, Timer,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use verge_model::{Incarnation, Millis, NodeKey};

use super::identity::Identity;
use crate::limits::SWIM_PACKET_BYTES_MAX;

/// Suspicion lasts at least this long: a roadside unit's cellular link may pause for seconds, and a
/// session moves by claim, not because a node is declared down.
const SUSPICION_MIN: Duration = Duration::from_secs(5);

/// Each piece of news is sent at least this often: the preset's few times, in a mesh of a few nodes, let
/// a suspect miss that it is one.
const TRANSMISSIONS_MIN: NonZeroU8 = NonZeroU8::new(10).expect("ten is not zero");

/// What happened to members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SwimEvent {
    Up(Identity),
    Down(Identity),
    /// A member has a new identity; whether it is up is said separately, if that changed.
    Renamed(Identity),
    /// This node was declared down and is back.
    Rejoined,
    /// This node left.
    Left,
}

pub(crate) struct Swim {
    foca: Foca<Identity, PostcardCodec, StdRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Identity>,
    timers: BTreeMap<Millis, Vec<Timer<Identity>>>,
    /// The size the configuration was made for.
    sized_for: usize,
    errors: u64,
}

impl Swim {
    pub(crate) fn new(identity: Identity, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self {
            foca: Foca::new(identity, config(1), rng, PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            sized_for: 1,
            errors: 0,
        }
    }

    pub(crate) fn handle_data(&mut self, data: &[u8], now: Millis) {
        let result = self.foca.handle_data(data, &mut self.runtime);
        self.after(result, now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Millis) {
        let mut due = Vec::new();
        while let Some(first) = self.timers.first_entry() {
            if *first.key() > now {
                break;
            }
            due.extend(first.remove());
        }
        // Late timers are handled in foca's own order, whenever they were due.
        due.sort();
        for timer in due {
            let result = self.foca.handle_timer(timer, &mut self.runtime);
            self.after(result, now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.timers.first_key_value().map(|(due, _)| *due)
    }

    /// Asks a node to take this one in.
    pub(crate) fn announce(&mut self, to: Identity, now: Millis) {
        let result = self.foca.announce(to, &mut self.runtime);
        self.after(result, now);
    }

    /// Someone suspects this node: it refutes.
    ///
    /// `update` may speak of this node only; what it says of others is not believed.
    pub(crate) fn refute(&mut self, update: &[u8], now: Millis) {
        let Ok(update) = postcard::from_bytes::<Member<Identity>>(update) else {
            self.errors += 1;
            return;
        };
        if update.id() == self.foca.identity() && update.state() == State::Suspect {
            let result = self.foca.apply_many(std::iter::once(update), false, &mut self.runtime);
            self.after(result, now);
        }
    }

    /// Members under suspicion, and what to tell them of it.
    pub(crate) fn suspects(&self) -> Vec<(NodeKey, Bytes)> {
        self.foca
            .iter_membership_state()
            .filter(|member| member.state() == State::Suspect)
            .map(|member| {
                let update = postcard::to_stdvec(member).expect("an update is plain data");
                (member.id().node_id.key(), update.into())
            })
            .collect()
    }

    /// A member said itself that it leaves.
    pub(crate) fn declare_down(&mut self, identity: Identity, now: Millis) {
        let down = std::iter::once(Member::down(identity));
        let result = self.foca.apply_many(down, true, &mut self.runtime);
        self.after(result, now);
    }

    pub(crate) fn leave(&mut self, now: Millis) {
        let result = self.foca.leave_cluster(&mut self.runtime);
        self.after(result, now);
    }

    /// Peers know a later life of this node: their knowledge would win for ever.
    pub(crate) fn outrank(&mut self, incarnation: Incarnation, now: Millis) {
        let own = self.foca.identity();
        if own.incarnation > incarnation {
            return;
        }
        let next = Identity { incarnation: incarnation.saturating_add(1), ..own.clone() };
        let result = self.foca.change_identity(next, &mut self.runtime);
        self.after(result, now);
    }

    pub(crate) fn poll_event(&mut self) -> Option<SwimEvent> {
        loop {
            return Some(match self.runtime.to_notify()? {
                OwnedNotification::MemberUp(identity) => SwimEvent::Up(identity),
                OwnedNotification::MemberDown(identity) => SwimEvent::Down(identity),
                OwnedNotification::Rename(_, identity) => SwimEvent::Renamed(identity),
                OwnedNotification::Rejoin(_) => SwimEvent::Rejoined,
                OwnedNotification::Defunct => SwimEvent::Left,
                OwnedNotification::Active | OwnedNotification::Idle => continue,
            });
        }
    }

    pub(crate) fn poll_packet(&mut self) -> Option<(Identity, Bytes)> {
        self.runtime.to_send()
    }

    pub(crate) fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    /// Members up or suspected.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Identity> {
        self.foca.iter_members().map(Member::id)
    }

    /// Packets that were refused.
    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    fn after(&mut self, result: Result<(), foca::Error>, now: Millis) {
        if let Err(error) = result {
            self.errors += 1;
            tracing::debug!(%error, "membership packet refused");
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.entry(now + after).or_default().push(timer);
        }
        let size = self.foca.num_members() + 1;
        // Sizes follow the mesh by fifths, so that one node that flaps changes nothing.
        if size.abs_diff(self.sized_for) * 5 > self.sized_for {
            self.sized_for = size;
            if let Err(error) = self.foca.set_config(config(size)) {
                tracing::warn!(%error, "membership configuration refused");
            }
        }
    }
}

fn config(size: usize) -> Config {
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let mut config = Config::new_lan(NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN));
    config.suspect_to_down_after = config.suspect_to_down_after.max(SUSPICION_MIN);
    config.max_transmissions = config.max_transmissions.max(TRANSMISSIONS_MIN);
    // Memory is bound by names, of which a mesh has few: a dead node's last identity is kept.
    config.remove_down_after = None;
    config.max_packet_size =
        NonZeroUsize::new(SWIM_PACKET_BYTES_MAX).expect("the constant is not zero");
    config
}

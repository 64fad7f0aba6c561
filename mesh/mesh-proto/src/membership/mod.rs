//! Who is there.
//!
//! Two sources tell of a node: SWIM ([`foca`]), which knows its name, its address and whether it is
//! alive, and the node's own greeting, which tells all the rest ([`NodeInfo`]). A node is reported
//! up when both have spoken, and down when SWIM says so. A lost link is no death.
//!
//! ```text
//! unknown ──join, SWIM, greeting──▶ known ──dialled until linked──▶ linked
//!                                     │ SWIM: alive, and greeted ──▶ MemberUp
//!                                     │ SWIM: down, or Leaving   ──▶ MemberDown; dialled on
//!                                     └ forget (operator)        ──▶ unknown
//! ```
//!
//! Known members are on disk, so that a node that restarts without its join addresses finds its
//! mesh again, and so that a session's homes do not depend on who happens to be up.

mod dialer;
mod identity;
mod swim;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::{Incarnation, Millis, NodeId, NodeKey, Role};
use verge_storage::record::MemberRecord;

use self::dialer::{Dialer, Target};
use self::identity::Identity;
use self::swim::{Swim, SwimEvent};
use crate::config::{MeshConfig, NodeInfo};
use crate::crdt::sessions::Candidate;
use crate::effects::{Effects, LinkState};
use crate::limits::{
    ANNOUNCE_PERIOD, DIAL_COURTESY, JOIN_REPORT_PERIOD, MEMBERS_MAX, QUARANTINE, RECONCILE_PERIOD,
};
use crate::output::{Lane, LinkKind, Output};
use crate::wire::Frame;

/// Dials of a join address before it is first reported: some seconds.
const JOIN_REPORT_ATTEMPTS: u32 = 5;

/// A member as the admin API shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberSnapshot {
    /// Its name.
    pub node_id: NodeId,
    /// Where it was last known.
    pub addr: SocketAddr,
    /// Whether the mesh believes it is alive.
    pub up: bool,
    /// What it said of itself, once it greeted this node.
    pub info: Option<NodeInfo>,
}

/// What is on disk of a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredMember {
    addr: SocketAddr,
    info: Option<NodeInfo>,
}

pub(crate) struct Membership {
    own: NodeInfo,
    swim: Swim,
    dialer: Dialer,
    members: BTreeMap<NodeKey, Member>,
    joins: BTreeMap<SocketAddr, Join>,
    quarantined: BTreeMap<NodeKey, Millis>,
    announce_due: Millis,
    reconcile_due: Millis,
    left: bool,
    /// Packets for this peer go on a lane for now.
    reliable_to: Option<NodeKey>,
    packets_dropped: u64,
}

#[derive(Debug)]
struct Member {
    node_id: NodeId,
    addr: SocketAddr,
    info: Option<NodeInfo>,
    /// The last identity SWIM knew it by.
    identity: Option<Identity>,
    up: bool,
    /// `MemberUp` was said, and `MemberDown` not since.
    told: bool,
}

#[derive(Debug, Default)]
struct Join {
    /// Who answered there last.
    node: Option<NodeKey>,
    reported: Option<Millis>,
}

impl Membership {
    pub(crate) fn new(
        config: &MeshConfig,
        restored: Vec<MemberRecord>,
        now: Millis,
        seed: u64,
    ) -> Self {
        let own = config.info();
        let identity = Identity {
            node_id: own.node_id.clone(),
            addr: own.mesh_addr,
            incarnation: own.incarnation,
            renewal: 0,
        };
        let mut this = Self {
            swim: Swim::new(identity, seed),
            dialer: Dialer::new(seed.rotate_left(32)),
            members: BTreeMap::new(),
            joins: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            announce_due: now + ANNOUNCE_PERIOD,
            reconcile_due: now + RECONCILE_PERIOD,
            left: false,
            reliable_to: None,
            packets_dropped: 0,
            own,
        };
        for MemberRecord { node_id, body } in restored {
            let Ok(StoredMember { addr, info }) = postcard::from_bytes(&body) else { continue };
            if node_id != this.own.node_id {
                let member = Member::new(node_id.clone(), addr, info);
                this.members.insert(node_id.key(), member);
                this.want_links(node_id.key(), now);
            }
        }
        for addr in config.join.iter().filter(|addr| **addr != config.advertise) {
            this.joins.insert(*addr, Join::default());
            this.dialer.want(Target::Join(*addr), now);
        }
        this
    }

    /// A link is there; who it is will be said in the greeting.
    pub(crate) fn attached(&mut self, peer: &NodeId, addr: SocketAddr) {
        if let Some(join) = self.joins.get_mut(&addr) {
            join.node = Some(peer.key());
        }
    }

    /// Whether the peer can be told from all others.
    pub(crate) fn check_name(&self, peer: &NodeId) -> Result<(), String> {
        if *peer == self.own.node_id {
            return Err("the address leads back here, or another node has this node's name".into());
        }
        let known = self.members.get(&peer.key()).map(|member| &member.node_id);
        let own = (peer.key() == self.own.key()).then_some(&self.own.node_id);
        match known.or(own).filter(|other| *other != peer) {
            Some(other) => {
                Err(format!("the name '{peer}' has the same key as '{other}': rename the newer"))
            }
            None => Ok(()),
        }
    }

    /// Why the peer may not be talked to, if so.
    pub(crate) fn check(&self, peer: &NodeId, info: &NodeInfo) -> Result<(), String> {
        if info.node_id != *peer {
            return Err(format!(
                "its certificate names '{peer}', but it calls itself '{}'",
                info.node_id
            ));
        }
        let Some(known) = self.members.get(&peer.key()) else {
            return if self.members.len() < MEMBERS_MAX {
                Ok(())
            } else {
                Err(format!("the mesh has {MEMBERS_MAX} members already"))
            };
        };
        match &known.info {
            Some(before)
                if known.up
                    && before.log_id != info.log_id
                    && before.mesh_addr != info.mesh_addr =>
            {
                Err(format!(
                    "two nodes call themselves '{peer}', at {} and {}",
                    before.mesh_addr, info.mesh_addr
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The peer greeted and was accepted.
    pub(crate) fn greeted(&mut self, info: &NodeInfo, now: Millis, fx: &mut Effects) {
        let key = info.key();
        let member = self
            .members
            .entry(key)
            .or_insert_with(|| Member::new(info.node_id.clone(), info.mesh_addr, None));
        let changed = member.info.as_ref() != Some(info) || member.addr != info.mesh_addr;
        member.info = Some(info.clone());
        member.addr = info.mesh_addr;
        if changed {
            member.persist(fx);
        }
        if member.up && (changed || !member.told) {
            member.told = true;
            fx.push(Output::MemberUp(info.clone()));
        }
        if !member.up && !self.left && fx.established(key, LinkKind::Fast) {
            let to = Identity::unknown(info.node_id.clone(), info.mesh_addr);
            self.swim.announce(to, now);
        }
        self.want_links(key, now);
        self.pump(now, fx);
    }

    /// A link is gone.
    pub(crate) fn link_down(&mut self, peer: NodeKey, now: Millis) {
        self.want_links(peer, now);
    }

    /// A peer knows this life or a later one of this node; returns whether it is a later one.
    pub(crate) fn hear_of_self(&mut self, known: Incarnation, now: Millis) -> bool {
        let later = known > self.own.incarnation;
        if later {
            self.swim.outrank(known, now);
        }
        later
    }

    pub(crate) fn handle_datagram(&mut self, bytes: &[u8], now: Millis, fx: &mut Effects) {
        self.swim.handle_data(bytes, now);
        self.pump(now, fx);
    }

    pub(crate) fn handle_timeout(&mut self, now: Millis, fx: &mut Effects) {
        self.quarantined.retain(|_, until| *until > now);
        self.swim.handle_timeout(now);
        if self.announce_due <= now {
            self.announce_due = now + ANNOUNCE_PERIOD;
            self.announce_to_linked(now, fx);
        }
        if self.reconcile_due <= now {
            self.reconcile_due = now + RECONCILE_PERIOD;
            self.reconcile(now, fx);
        }
        self.pump(now, fx);
        while let Some((target, attempts)) = self.dialer.poll_due(now) {
            match target {
                Target::Join(addr) => self.dial_join(addr, attempts, now, fx),
                Target::Member(node, kind) => self.dial_member(node, kind, fx),
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Millis {
        let own = self.announce_due.min(self.reconcile_due);
        let others = [self.swim.poll_timeout(), self.dialer.poll_timeout()];
        others.into_iter().flatten().fold(own, Millis::min)
    }

    /// A peer says it leaves.
    pub(crate) fn handle_leaving(&mut self, peer: NodeKey, now: Millis, fx: &mut Effects) {
        let identity = self.members.get(&peer).and_then(|member| member.identity.clone());
        if let Some(identity) = identity {
            self.swim.declare_down(identity, now);
            self.pump(now, fx);
        }
    }

    /// A peer's SWIM suspects this node, which lives: it says so on the link, where nothing is lost.
    pub(crate) fn handle_suspected(
        &mut self,
        peer: NodeKey,
        update: &[u8],
        now: Millis,
        fx: &mut Effects,
    ) {
        let Some(member) = self.members.get(&peer).filter(|_| !self.left) else { return };
        let to = Identity::unknown(member.node_id.clone(), member.addr);
        self.swim.refute(update, now);
        self.swim.announce(to, now);
        self.reliable_to = Some(peer);
        self.pump(now, fx);
        self.reliable_to = None;
    }

    pub(crate) fn leave(&mut self, now: Millis, fx: &mut Effects) {
        self.left = true;
        self.swim.leave(now);
        self.pump(now, fx);
    }

    /// Forgets a member that will not come back; `false`: it is up, or not known.
    pub(crate) fn forget(&mut self, node: NodeKey, fx: &mut Effects) -> bool {
        if self.members.get(&node).is_none_or(|member| member.up) {
            return false;
        }
        self.members.remove(&node);
        for kind in LinkKind::ALL {
            self.dialer.drop_target(Target::Member(node, kind));
        }
        fx.batch.delete_member(node);
        true
    }

    pub(crate) fn quarantine(&mut self, peer: NodeKey, now: Millis) {
        self.quarantined.insert(peer, now + QUARANTINE);
    }

    pub(crate) fn is_quarantined(&self, peer: NodeKey, now: Millis) -> bool {
        self.quarantined.get(&peer).is_some_and(|until| *until > now)
    }

    /// The nodes of this region that hold sessions, this one included.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let infos = self.members.values().filter_map(|member| member.info.as_ref());
        infos
            .chain([&self.own])
            .filter(|info| info.serves_clients() && info.region == self.own.region)
            .map(|info| Candidate { node: info.key(), regional: info.role == Role::Regional })
            .collect()
    }

    /// The greatest incarnation ever heard of a node.
    pub(crate) fn known_incarnation(&self, node: NodeKey) -> Incarnation {
        let Some(member) = self.members.get(&node) else { return 0 };
        let swim = member.identity.as_ref().map_or(0, |identity| identity.incarnation);
        swim.max(member.info.as_ref().map_or(0, |info| info.incarnation))
    }

    pub(crate) fn info(&self, node: NodeKey) -> Option<&NodeInfo> {
        self.members.get(&node)?.info.as_ref()
    }

    pub(crate) fn is_up(&self, node: NodeKey) -> bool {
        self.members.get(&node).is_some_and(|member| member.up)
    }

    pub(crate) fn snapshot(&self) -> Vec<MemberSnapshot> {
        let of = |member: &Member| MemberSnapshot {
            node_id: member.node_id.clone(),
            addr: member.addr,
            up: member.up,
            info: member.info.clone(),
        };
        self.members.values().map(of).collect()
    }

    pub(crate) fn packets_dropped(&self) -> u64 {
        self.packets_dropped
    }

    pub(crate) fn packets_refused(&self) -> u64 {
        self.swim.errors()
    }

    /// Takes in what SWIM decided, and sends what it wants to say.
    fn pump(&mut self, now: Millis, fx: &mut Effects) {
        while let Some(event) = self.swim.poll_event() {
            match event {
                SwimEvent::Up(identity) => self.on_up(identity, now, fx),
                SwimEvent::Down(identity) => self.on_down(&identity.node_id, fx),
                SwimEvent::Renamed(identity) => self.on_renamed(identity, now, fx),
                SwimEvent::Rejoined => {
                    let renewal = self.swim.identity().renewal;
                    tracing::info!(renewal, "the mesh had declared this node down; it is back");
                }
                SwimEvent::Left => {}
            }
        }
        while let Some((to, bytes)) = self.swim.poll_packet() {
            let peer = to.node_id.key();
            if self.reliable_to == Some(peer) {
                fx.send(peer, Lane::Control, &Frame::Swim(bytes));
            } else if fx.established(peer, LinkKind::Fast) {
                fx.push(Output::Datagram { peer, bytes });
            } else {
                self.packets_dropped += 1;
            }
        }
    }

    fn on_up(&mut self, identity: Identity, now: Millis, fx: &mut Effects) {
        let (name, key) = (identity.node_id.clone(), identity.node_id.key());
        self.on_renamed(identity, now, fx);
        let Some(member) = self.members.get_mut(&key).filter(|known| known.node_id == name) else {
            return;
        };
        member.up = true;
        if let (Some(info), false) = (&member.info, member.told) {
            member.told = true;
            fx.push(Output::MemberUp(info.clone()));
        }
        // It is alive: no reason to be patient.
        for kind in LinkKind::ALL {
            self.dialer.drop_target(Target::Member(key, kind));
        }
        self.want_links(key, now);
    }

    fn on_down(&mut self, name: &NodeId, fx: &mut Effects) {
        let known = self.members.get_mut(&name.key());
        let Some(member) = known.filter(|known| known.node_id == *name) else { return };
        member.up = false;
        if member.told {
            member.told = false;
            fx.push(Output::MemberDown(member.node_id.clone()));
        }
    }

    /// A member's identity is news: its address may be, too.
    fn on_renamed(&mut self, identity: Identity, now: Millis, fx: &mut Effects) {
        let key = identity.node_id.key();
        let full = self.members.len() >= MEMBERS_MAX;
        let member = match self.members.get_mut(&key) {
            Some(member) if member.node_id == identity.node_id => member,
            // A second name with one key: its greeting is refused, and says why.
            Some(_) => return,
            None if full || key == self.own.key() => return,
            None => {
                let member = Member::new(identity.node_id.clone(), identity.addr, None);
                member.persist(fx);
                self.members.entry(key).or_insert(member)
            }
        };
        if member.addr != identity.addr {
            member.addr = identity.addr;
            member.persist(fx);
        }
        member.identity = Some(identity);
        self.want_links(key, now);
    }

    /// Linked peers that are not up are asked to take this node in, and so to say that they live.
    /// Those under suspicion are told, so that lost datagrams alone declare nobody dead.
    fn announce_to_linked(&mut self, now: Millis, fx: &mut Effects) {
        if self.left {
            return;
        }
        for (peer, update) in self.swim.suspects() {
            fx.send(peer, Lane::Control, &Frame::Suspected(update));
        }
        for peer in fx.peers(LinkKind::Fast) {
            let Some(member) = self.members.get(&peer).filter(|member| !member.up) else {
                continue;
            };
            let to = Identity::unknown(member.node_id.clone(), member.addr);
            self.swim.announce(to, now);
        }
    }

    /// Puts right what the table and SWIM might disagree on.
    fn reconcile(&mut self, now: Millis, fx: &mut Effects) {
        let alive: BTreeMap<NodeKey, Identity> =
            self.swim.members().map(|found| (found.node_id.key(), found.clone())).collect();
        let up: BTreeMap<NodeKey, NodeId> = self
            .members
            .iter()
            .filter(|(_, member)| member.up)
            .map(|(key, member)| (*key, member.node_id.clone()))
            .collect();
        for (_, name) in up.iter().filter(|(key, _)| !alive.contains_key(key)) {
            self.on_down(name, fx);
        }
        for (key, identity) in alive {
            if !up.contains_key(&key) {
                self.on_up(identity, now, fx);
            }
        }
    }

    fn want_links(&mut self, node: NodeKey, now: Millis) {
        let Some(member) = self.members.get(&node) else { return };
        if self.left || member.info.as_ref().is_some_and(|info| info.dials_only) {
            return;
        }
        let first = self.own.dials_only || self.own.node_id < member.node_id;
        let due = if first { now } else { now + DIAL_COURTESY };
        for kind in LinkKind::ALL {
            self.dialer.want(Target::Member(node, kind), due);
        }
    }

    fn dial_member(&mut self, node: NodeKey, kind: LinkKind, fx: &mut Effects) {
        let target = Target::Member(node, kind);
        let Some(member) = self.members.get(&node).filter(|_| !self.left) else {
            self.dialer.drop_target(target);
            return;
        };
        match fx.link(node, kind) {
            LinkState::Established => self.dialer.drop_target(target),
            LinkState::Greeting => {}
            LinkState::Down if self.quarantined.contains_key(&node) => {}
            LinkState::Down => {
                let (addr, node) = (member.addr, Some(member.node_id.clone()));
                fx.push(Output::Dial { addr, node, kind });
            }
        }
    }

    fn dial_join(&mut self, addr: SocketAddr, attempts: u32, now: Millis, fx: &mut Effects) {
        let Some(join) = self.joins.get_mut(&addr).filter(|_| !self.left) else {
            self.dialer.drop_target(Target::Join(addr));
            return;
        };
        if join.node == Some(self.own.key()) {
            self.dialer.drop_target(Target::Join(addr));
            return;
        }
        let linked = |node: &NodeKey| fx.link(*node, LinkKind::Fast) != LinkState::Down;
        let there = |member: &&Member| member.addr == addr && linked(&member.node_id.key());
        if join.node.as_ref().is_some_and(linked) || self.members.values().any(|m| there(&m)) {
            self.dialer.rest(Target::Join(addr), now);
            return;
        }
        fx.push(Output::Dial { addr, node: None, kind: LinkKind::Fast });
        let silent = |since: Millis| now.since(since) >= JOIN_REPORT_PERIOD;
        if attempts >= JOIN_REPORT_ATTEMPTS && join.reported.is_none_or(silent) {
            join.reported = Some(now);
            fx.push(Output::JoinUnanswered { addr, attempts });
        }
    }
}

impl Member {
    fn new(node_id: NodeId, addr: SocketAddr, info: Option<NodeInfo>) -> Self {
        Self { node_id, addr, info, identity: None, up: false, told: false }
    }

    fn persist(&self, fx: &mut Effects) {
        let stored = StoredMember { addr: self.addr, info: self.info.clone() };
        let body = postcard::to_stdvec(&stored).expect("a member is plain data");
        let record = MemberRecord { node_id: self.node_id.clone(), body: Bytes::from(body) };
        fx.batch.put_member(&record);
    }
}

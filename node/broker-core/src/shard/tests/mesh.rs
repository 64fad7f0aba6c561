//! Beds joined by a stand-in for their hubs: handover frames pass at once while their link is up,
//! one registry answers every look-up, and nothing is under way to a node that asks for a flush.

use std::collections::{BTreeMap, BTreeSet};

use verge_mesh_proto::RouteHead;
use verge_mesh_proto::crdt::sessions::RegistryEntry;
use verge_mesh_proto::handover::HandoverFrame;
use verge_model::ClientKey;

use super::bed::Bed;
use crate::shard::api::{HubMail, Mail};

pub(super) struct Mesh {
    pub(super) nodes: Vec<Bed>,
    registry: BTreeMap<ClientKey, RegistryEntry>,
    /// Links that are down.
    cut: BTreeSet<(usize, usize)>,
    /// Names of frames that are lost on the way.
    pub(super) lost: Vec<&'static str>,
    /// Whether flushes are not answered for now.
    pub(super) unflushed: bool,
    flushes: Vec<(usize, usize, Mail)>,
    /// Every frame that passed, or would have.
    pub(super) frames: Vec<String>,
}

impl Mesh {
    pub(super) fn new(names: &[&str]) -> Self {
        Self {
            nodes: names.iter().map(|name| Bed::in_mesh(name)).collect(),
            registry: BTreeMap::new(),
            cut: BTreeSet::new(),
            lost: Vec::new(),
            unflushed: false,
            flushes: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// Does something at one node, and lets all nodes run to quiet.
    pub(super) fn at<R>(&mut self, node: usize, act: impl FnOnce(&mut Bed) -> R) -> R {
        let result = act(&mut self.nodes[node]);
        self.settle();
        result
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
        self.tell(a, b, Mail::PeerDown);
    }

    pub(super) fn heal(&mut self, a: usize, b: usize) {
        self.cut.remove(&(a.min(b), a.max(b)));
        self.tell(a, b, Mail::PeerUp);
    }

    pub(super) fn crash(&mut self, node: usize) {
        let bed = self.nodes.remove(node).crash();
        self.nodes.insert(node, bed);
        self.settle();
    }

    pub(super) fn wait(&mut self, millis: u64) {
        let end = self.nodes[0].now + millis;
        loop {
            let due = self.nodes.iter().filter_map(Bed::next_due).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            for node in &mut self.nodes {
                node.wait_until(due.max(node.now));
            }
            self.settle();
        }
        for node in &mut self.nodes {
            node.wait_until(end);
        }
    }

    /// The homes forget everything.
    pub(super) fn forget_registry(&mut self) {
        self.registry.clear();
    }

    /// The filters the homes know of a client's session.
    pub(super) fn registered(&self, client: &str) -> Vec<String> {
        let entry = self.registry.get(&ClientKey::anonymous(client));
        entry.map(|entry| entry.subscriptions().into_keys().collect()).unwrap_or_default()
    }

    fn tell(&mut self, a: usize, b: usize, mail: impl Fn(verge_model::NodeKey) -> Mail) {
        for (node, peer) in [(a, b), (b, a)] {
            let key = self.nodes[peer].id.key();
            self.nodes[node].mail(0, mail(key));
        }
        self.settle();
    }

    fn answer_flushes(&mut self) {
        while let Some((node, shard, mail)) = self.flushes.pop_if(|_| !self.unflushed) {
            self.nodes[node].mail(shard, mail);
        }
    }

    /// What was planned without the owners' routes has arrived.
    pub(super) fn flush(&mut self) {
        self.unflushed = false;
        self.answer_flushes();
        self.settle();
    }

    pub(super) fn settle(&mut self) {
        while let Some(node) = self.nodes.iter().position(|node| !node.hub.is_empty()) {
            let (shard, mail) = self.nodes[node].hub.pop_front().unwrap();
            match mail {
                HubMail::PutRegistry { client, entry } => {
                    let entry = *entry;
                    match self.registry.get_mut(&client) {
                        Some(known) => known.merge(entry).unwrap(),
                        None => {
                            self.registry.insert(client, entry);
                        }
                    }
                }
                HubMail::Lookup { ticket, client, .. } => {
                    let entry = self.registry.get(&client).cloned().map(Box::new);
                    let answer = Mail::LookupAnswer { ticket, entry, complete: true };
                    self.nodes[node].mail(shard, answer);
                }
                HubMail::RouteHead { token, .. } => {
                    let head = RouteHead { incarnation: 1, seq: 1 };
                    self.nodes[node].mail(shard, Mail::RouteHead { token, head });
                }
                HubMail::Flush { owner, head } => {
                    self.flushes.push((node, shard, Mail::Flushed { owner, head }));
                }
                HubMail::Handover { to, frame } => {
                    let to = self.nodes.iter().position(|n| n.id.key() == to).unwrap();
                    let from = self.nodes[node].id.clone();
                    let body = HandoverFrame::decode(&frame).unwrap().body;
                    let name = format!("{body:?}");
                    let name = name.split([' ', '(']).next().unwrap_or_default();
                    self.frames.push(format!("{from}→{} {name}", self.nodes[to].id));
                    let lost = self.lost.contains(&name);
                    if !lost && !self.cut.contains(&(node.min(to), node.max(to))) {
                        let mail = Mail::Handover { from: from.key(), frame };
                        self.nodes[to].mail(0, mail);
                    }
                }
                HubMail::AddRoute(_)
                | HubMail::RemoveRoute(_)
                | HubMail::Barrier
                | HubMail::Transient { .. } => {}
            }
            self.answer_flushes();
        }
    }
}

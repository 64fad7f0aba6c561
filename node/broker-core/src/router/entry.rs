//! Everyone who wants one filter.

use smallvec::SmallVec;
use verge_model::{ClientId, NodeKey};

use super::matches::{Matches, Origin, Sources};
use super::parts::FilterParts;
use super::remote::RemoteNodes;
use super::shared::Group;
use super::subscribers::Subscribers;
use super::{SessionNo, Subscriber};

/// Who wants a filter, under each of its prefixes.
#[derive(Debug, Default)]
pub struct Entry {
    /// Sessions with the bare filter.
    plain: Subscribers,
    /// Sessions with `$local/<filter>`.
    local: Subscribers,
    /// Groups, sorted by name.
    groups: Vec<Group>,
    /// Nodes with subscribers of the bare filter, sorted.
    remotes: SmallVec<[NodeKey; 2]>,
}

/// What a change did to the list it was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Whether the session was in the list.
    pub existed: bool,
    /// Whether the first came or the last went.
    pub edge: bool,
}

impl Entry {
    /// Adds a subscriber.
    pub fn subscribe(&mut self, parts: &FilterParts<'_>, subscriber: Subscriber) -> Change {
        let list = if parts.shared {
            &mut self.group_or_insert(parts).members
        } else if parts.local {
            &mut self.local
        } else {
            &mut self.plain
        };
        let edge = list.is_empty();
        Change { existed: list.insert(subscriber), edge }
    }

    /// Removes a subscriber.
    pub fn unsubscribe(&mut self, parts: &FilterParts<'_>, session: SessionNo) -> Change {
        let Some(list) = self.list_mut(parts) else {
            return Change { existed: false, edge: false };
        };
        let existed = list.remove(session);
        let edge = existed && list.is_empty();
        self.remove_group_if_empty(parts);
        Change { existed, edge }
    }

    /// Says whether a session outlives its connection.
    pub fn set_durable(&mut self, parts: &FilterParts<'_>, session: SessionNo, durable: bool) {
        if let Some(subscriber) = self.list_mut(parts).and_then(|list| list.get_mut(session)) {
            subscriber.durable = durable;
        }
    }

    /// Takes note that a node wants the filter.
    pub fn add_remote(&mut self, parts: &FilterParts<'_>, node: NodeKey) {
        if parts.shared {
            self.group_or_insert(parts).add_remote(node);
        } else if let Err(place) = self.remotes.binary_search(&node) {
            self.remotes.insert(place, node);
        }
    }

    /// Takes note that a node wants the filter no more.
    pub fn remove_remote(&mut self, parts: &FilterParts<'_>, node: NodeKey) {
        if parts.shared {
            if let Ok(place) = self.find_group(parts.text) {
                self.groups[place].remove_remote(node);
            }
            self.remove_group_if_empty(parts);
        } else if let Ok(place) = self.remotes.binary_search(&node) {
            self.remotes.remove(place);
        }
    }

    /// Adds those who get a message of `origin` to `out`.
    pub(super) fn collect(
        &self,
        origin: Origin<'_>,
        publisher: &ClientId,
        nodes: &RemoteNodes,
        out: &mut Matches,
    ) -> Sources {
        let mut sources = Sources::default();
        match origin {
            Origin::Here => {
                sources.lists += collect_list(&self.plain, publisher, out);
                sources.lists += collect_list(&self.local, publisher, out);
                for node in &self.remotes {
                    out.add_remote(*node);
                }
                for group in &self.groups {
                    if let Some(member) = group.next_member() {
                        out.add_local(member);
                        sources += Sources { lists: 1, groups: 1 };
                    } else if let Some(node) = group.next_remote(nodes) {
                        out.add_remote_group(node, group.name.clone());
                    }
                }
            }
            Origin::Forwarded(targets) => {
                if targets.plain {
                    sources.lists += collect_list(&self.plain, publisher, out);
                }
                for name in &targets.groups {
                    let group = self.find_group(name).ok().map(|place| &self.groups[place]);
                    let Some(group) = group.filter(|group| !group.local) else { continue };
                    if let Some(member) = group.next_member() {
                        out.add_local(member);
                        sources += Sources { lists: 1, groups: 1 };
                    }
                }
            }
        }
        sources
    }

    /// Adds the texts of this node's routes for `filter` to `out`.
    pub fn routes(&self, filter: &str, out: &mut Vec<String>) {
        if !self.plain.is_empty() {
            out.push(filter.to_owned());
        }
        let advertised = |group: &&Group| !group.local && !group.members.is_empty();
        out.extend(self.groups.iter().filter(advertised).map(|group| group.name.to_string()));
    }

    /// Whether the route of these parts is one of this node's.
    pub fn has_route(&self, parts: &FilterParts<'_>) -> bool {
        match (parts.shared, parts.local) {
            (_, true) => false,
            (false, false) => !self.plain.is_empty(),
            (true, false) => self
                .find_group(parts.text)
                .is_ok_and(|place| !self.groups[place].members.is_empty()),
        }
    }

    /// Whether nobody wants the filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty()
            && self.local.is_empty()
            && self.groups.is_empty()
            && self.remotes.is_empty()
    }

    fn list_mut(&mut self, parts: &FilterParts<'_>) -> Option<&mut Subscribers> {
        if parts.shared {
            let place = self.find_group(parts.text).ok()?;
            Some(&mut self.groups[place].members)
        } else if parts.local {
            Some(&mut self.local)
        } else {
            Some(&mut self.plain)
        }
    }

    fn find_group(&self, name: &str) -> Result<usize, usize> {
        self.groups.binary_search_by(|group| group.name.as_ref().cmp(name))
    }

    fn group_or_insert(&mut self, parts: &FilterParts<'_>) -> &mut Group {
        let place = self.find_group(parts.text).unwrap_or_else(|place| {
            self.groups.insert(place, Group::new(parts.text, parts.local));
            place
        });
        &mut self.groups[place]
    }

    fn remove_group_if_empty(&mut self, parts: &FilterParts<'_>) {
        if !parts.shared {
            return;
        }
        if let Ok(place) = self.find_group(parts.text)
            && self.groups[place].is_empty()
        {
            self.groups.remove(place);
        }
    }
}

/// Adds a list's subscribers but for a publisher that asked to be left out [MQTT-3.8.3-3]; 1 if
/// there was any.
fn collect_list(list: &Subscribers, publisher: &ClientId, out: &mut Matches) -> usize {
    let before = out.locals.len();
    for subscriber in list.as_slice() {
        if !(subscriber.options.no_local && subscriber.client == *publisher) {
            out.add_local(subscriber);
        }
    }
    usize::from(out.locals.len() > before)
}

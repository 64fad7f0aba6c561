//! Everyone who wants one filter.

use std::sync::Arc;

use smallvec::SmallVec;
use verge_model::{ClientId, NodeKey};
use verge_mqtt_proto::session::StreamTag;

use super::matches::{Matches, Origin, Sources};
use super::parts::FilterParts;
use super::shared::{Ask, Chosen, Group};
use super::strategy::SharedSettings;
use super::subscribers::{Subscribers, Who, who};
use super::{SessionNo, Subscriber};

/// Who wants a filter, under each of its prefixes.
#[derive(Debug, Default)]
pub enum Entry {
    /// Nobody; the filter is about to be forgotten, or was just made.
    #[default]
    Nobody,
    /// One session with the bare filter, and nobody else: most filters have no other.
    One(Subscriber),
    /// Whoever wants it.
    Many(Box<Many>),
}

/// Those who want a filter that more than one session, or another than a session with the bare
/// filter, wants or wanted.
#[derive(Debug, Default)]
pub struct Many {
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
    pub fn subscribe(
        &mut self,
        parts: &FilterParts<'_>,
        subscriber: Subscriber,
        settings: &SharedSettings,
    ) -> Change {
        let is_bare = !parts.shared && !parts.local;
        match self {
            Self::Nobody if is_bare => {
                *self = Self::One(subscriber);
                Change { existed: false, edge: true }
            }
            Self::One(known) if is_bare && who(known) == who(&subscriber) => {
                *known = subscriber;
                Change { existed: true, edge: false }
            }
            Self::Nobody | Self::One(_) | Self::Many(_) => {
                self.many_mut().subscribe(parts, subscriber, settings)
            }
        }
    }

    /// Removes a subscriber.
    pub fn unsubscribe(&mut self, parts: &FilterParts<'_>, of: Who) -> Change {
        match self {
            Self::One(known) if !parts.shared && !parts.local && who(known) == of => {
                *self = Self::Nobody;
                Change { existed: true, edge: true }
            }
            Self::Nobody | Self::One(_) => Change { existed: false, edge: false },
            Self::Many(many) => many.unsubscribe(parts, of),
        }
    }

    /// Says whether a session outlives its connection.
    pub fn set_durable(&mut self, parts: &FilterParts<'_>, session: SessionNo, durable: bool) {
        match self {
            Self::Nobody => {}
            Self::One(known) => {
                let is_bare = !parts.shared && !parts.local;
                if is_bare && who(known) == (session, StreamTag::CONTROL) {
                    known.durable = durable;
                }
            }
            Self::Many(many) => many.set_durable(parts, session, durable),
        }
    }

    /// Says whether a member of a group is connected.
    pub fn set_online(&mut self, parts: &FilterParts<'_>, session: SessionNo, online: bool) {
        if let Self::Many(many) = self {
            many.set_online(parts, session, online);
        }
    }

    /// The group of this whole filter.
    pub fn group(&self, text: &str) -> Option<&Group> {
        self.many().and_then(|many| many.group(text))
    }

    /// Takes note that a node wants the filter.
    pub fn add_remote(
        &mut self,
        parts: &FilterParts<'_>,
        node: NodeKey,
        settings: &SharedSettings,
    ) {
        self.many_mut().add_remote(parts, node, settings);
    }

    /// Takes note that a node wants the filter no more.
    pub fn remove_remote(&mut self, parts: &FilterParts<'_>, node: NodeKey) {
        if let Self::Many(many) = self {
            many.remove_remote(parts, node);
        }
    }

    /// Adds those who get a message of `origin` to `out`.
    pub(super) fn collect(&self, origin: Origin<'_>, ask: &Ask<'_>, out: &mut Matches) -> Sources {
        match self {
            Self::Nobody => Sources::default(),
            Self::One(known) => {
                let wanted = match origin {
                    Origin::Here | Origin::Node => true,
                    Origin::Forwarded(targets) => targets.plain,
                };
                let list = if wanted { std::slice::from_ref(known) } else { &[] };
                Sources { lists: collect_list(list, ask.publisher, out), groups: 0 }
            }
            Self::Many(many) => many.collect(origin, ask, out),
        }
    }

    /// Adds the texts of this node's routes for `filter` to `out`.
    pub fn routes(&self, filter: &Arc<str>, out: &mut Vec<Arc<str>>) {
        match self {
            Self::Nobody => {}
            Self::One(_) => out.push(Arc::clone(filter)),
            Self::Many(many) => many.routes(filter, out),
        }
    }

    /// Whether the route of these parts is one of this node's.
    pub fn has_route(&self, parts: &FilterParts<'_>) -> bool {
        match self {
            Self::Nobody => false,
            Self::One(_) => !parts.shared && !parts.local,
            Self::Many(many) => many.has_route(parts),
        }
    }

    /// Whether nobody wants the filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Nobody => true,
            Self::One(_) => false,
            Self::Many(many) => many.is_empty(),
        }
    }

    fn many(&self) -> Option<&Many> {
        match self {
            Self::Nobody | Self::One(_) => None,
            Self::Many(many) => Some(many),
        }
    }

    fn many_mut(&mut self) -> &mut Many {
        if !matches!(self, Self::Many(_)) {
            let mut many = Box::<Many>::default();
            if let Self::One(known) = std::mem::take(self) {
                many.plain.insert(known);
            }
            *self = Self::Many(many);
        }
        match self {
            Self::Many(many) => many,
            Self::Nobody | Self::One(_) => unreachable!("it has just been made so"),
        }
    }
}

impl Many {
    /// Adds a subscriber.
    fn subscribe(
        &mut self,
        parts: &FilterParts<'_>,
        subscriber: Subscriber,
        settings: &SharedSettings,
    ) -> Change {
        if parts.shared {
            let group = self.group_or_insert(parts, settings);
            let edge = !group.has_members();
            return Change { existed: group.insert(subscriber), edge };
        }
        let list = if parts.local { &mut self.local } else { &mut self.plain };
        let edge = list.is_empty();
        Change { existed: list.insert(subscriber), edge }
    }

    /// Removes a subscriber.
    fn unsubscribe(&mut self, parts: &FilterParts<'_>, who: Who) -> Change {
        if parts.shared {
            let Ok(place) = self.find_group(parts.text) else {
                return Change { existed: false, edge: false };
            };
            let group = &mut self.groups[place];
            let existed = group.remove(who);
            let edge = existed && !group.has_members();
            self.remove_group_if_empty(parts);
            return Change { existed, edge };
        }
        let list = self.list_mut(parts);
        let existed = list.remove(who);
        let edge = existed && list.is_empty();
        Change { existed, edge }
    }

    /// Says whether a session outlives its connection.
    fn set_durable(&mut self, parts: &FilterParts<'_>, session: SessionNo, durable: bool) {
        let who = (session, StreamTag::CONTROL);
        let subscriber = if parts.shared {
            let place = self.find_group(parts.text).ok();
            place.and_then(|place| self.groups[place].get_mut(who))
        } else {
            self.list_mut(parts).get_mut(who)
        };
        if let Some(subscriber) = subscriber {
            subscriber.durable = durable;
        }
    }

    /// Says whether a member of a group is connected.
    fn set_online(&mut self, parts: &FilterParts<'_>, session: SessionNo, online: bool) {
        if let Ok(place) = self.find_group(parts.text) {
            self.groups[place].set_online((session, StreamTag::CONTROL), online);
        }
    }

    /// The group of this whole filter.
    fn group(&self, text: &str) -> Option<&Group> {
        self.find_group(text).ok().map(|place| &self.groups[place])
    }

    /// Takes note that a node wants the filter.
    fn add_remote(&mut self, parts: &FilterParts<'_>, node: NodeKey, settings: &SharedSettings) {
        if parts.shared {
            self.group_or_insert(parts, settings).add_remote(node);
        } else if let Err(place) = self.remotes.binary_search(&node) {
            self.remotes.insert(place, node);
        }
    }

    /// Takes note that a node wants the filter no more.
    fn remove_remote(&mut self, parts: &FilterParts<'_>, node: NodeKey) {
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
    fn collect(&self, origin: Origin<'_>, ask: &Ask<'_>, out: &mut Matches) -> Sources {
        let publisher = ask.publisher;
        let mut sources = Sources::default();
        match origin {
            Origin::Here | Origin::Node => {
                sources.lists += collect_list(self.plain.as_slice(), publisher, out);
                sources.lists += collect_list(self.local.as_slice(), publisher, out);
                let remotes = self.remotes.iter().filter(|_| origin == Origin::Here);
                remotes.for_each(|node| out.add_remote(*node));
                for group in &self.groups {
                    if let Some(turns) = group.turns(ask) {
                        out.add_turns(turns);
                        continue;
                    }
                    out.varies = true;
                    match group.choose(ask) {
                        Some(Chosen::Member(member)) => {
                            out.add_member(member, &group.tag);
                            sources += Sources { lists: 1, groups: 1 };
                        }
                        Some(Chosen::Node(node)) => {
                            out.add_remote_group(node, group.tag.shared_text());
                        }
                        None => {}
                    }
                }
            }
            Origin::Forwarded(targets) => {
                if targets.plain {
                    sources.lists += collect_list(self.plain.as_slice(), publisher, out);
                }
                for name in &targets.groups {
                    let Some(group) = self.group(name).filter(|group| !group.local) else {
                        continue;
                    };
                    if let Some(Chosen::Member(member)) = group.choose(ask) {
                        out.add_member(member, &group.tag);
                        sources += Sources { lists: 1, groups: 1 };
                    }
                }
            }
        }
        sources
    }

    /// Adds the texts of this node's routes for `filter` to `out`.
    fn routes(&self, filter: &Arc<str>, out: &mut Vec<Arc<str>>) {
        if !self.plain.is_empty() {
            out.push(Arc::clone(filter));
        }
        let advertised = |group: &&Group| !group.local && group.has_members();
        out.extend(self.groups.iter().filter(advertised).map(|group| group.tag.shared_text()));
    }

    /// Whether the route of these parts is one of this node's.
    fn has_route(&self, parts: &FilterParts<'_>) -> bool {
        match (parts.shared, parts.local) {
            (_, true) => false,
            (false, false) => !self.plain.is_empty(),
            (true, false) => self.group(parts.text).is_some_and(Group::has_members),
        }
    }

    /// Whether nobody wants the filter.
    fn is_empty(&self) -> bool {
        self.plain.is_empty()
            && self.local.is_empty()
            && self.groups.is_empty()
            && self.remotes.is_empty()
    }

    /// Subscribers outside groups.
    fn list_mut(&mut self, parts: &FilterParts<'_>) -> &mut Subscribers {
        if parts.local { &mut self.local } else { &mut self.plain }
    }

    fn find_group(&self, name: &str) -> Result<usize, usize> {
        self.groups.binary_search_by(|group| group.name().cmp(name))
    }

    fn group_or_insert(
        &mut self,
        parts: &FilterParts<'_>,
        settings: &SharedSettings,
    ) -> &mut Group {
        let place = self.find_group(parts.text).unwrap_or_else(|place| {
            self.groups.insert(place, Group::new(parts.text, parts.local, settings));
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
fn collect_list(list: &[Subscriber], publisher: &ClientId, out: &mut Matches) -> usize {
    let before = out.locals.len();
    for subscriber in list {
        out.varies |= subscriber.options.no_local;
        if !(subscriber.options.no_local && subscriber.client.as_deref() == Some(publisher)) {
            out.add_local(subscriber);
        }
    }
    usize::from(out.locals.len() > before)
}

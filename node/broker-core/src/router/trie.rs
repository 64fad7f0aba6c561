//! Text by levels: filters that meet a topic, or topics that meet a filter.
//!
//! Each level of a filter or topic is one step down. `+` and `#` have places of their own in a
//! node, so that the filters that match a topic are found by walking the topic: at each node the
//! child of that level, and the child for `+`; a `#` on the way matches whatever follows.
//!
//! ```text
//!            root                 a/b/c     meets  a → b → c, a → + → c, a → #
//!             │a
//!             ●───# "a/#"
//!          b╱   ╲+
//!          ●     ●
//!         c│     │c
//!     "a/b/c"   "a/+/c"
//! ```
//!
//! The ways down are one hash table, by node and level; nodes lie side by side, one to a cache line.
//! So a step costs the same however many children a node has, and a node with one child costs no
//! table of its own.
//!
//! A path that shares no more than its beginning with others ends in one node, which keeps all that
//! follows as text: `a/b/c` beside `a/x/y/z` is `a`, `b/c` and `x/y/z`. It is unfolded when another
//! path goes the same way.
//!
//! Walks use a stack of their own, so that no text, however many levels it has, runs out of the
//! thread's.

mod nodes;

use std::hash::BuildHasher;
use std::iter;
use std::ops::ControlFlow;

use rustc_hash::FxBuildHasher;
use smallvec::{SmallVec, smallvec};
use verge_mqtt_proto::topic::level::{FilterLevel, Levels};

use self::nodes::{NONE, Node, Nodes, ROOT};
use crate::spread::Spread;

/// Steps kept without allocation in a walk.
const WALK_INLINE: usize = 16;

/// Values by filter, or by topic.
#[derive(Debug)]
pub struct LevelTrie<V> {
    nodes: Nodes<V>,
    /// The children of all nodes but those for `+`.
    ways: Spread<Way>,
    /// How many values there are.
    len: usize,
}

/// A way down: a child, and the hash of its parent and level.
#[derive(Debug, Clone, Copy)]
struct Way {
    hash: u32,
    child: u32,
}

impl Way {
    /// The hash, drawn out over the bits that tables look at.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl<V> Default for LevelTrie<V> {
    fn default() -> Self {
        Self { nodes: Nodes::default(), ways: Spread::default(), len: 0 }
    }
}

impl<V> LevelTrie<V> {
    /// The value of `path`, made if there is none.
    pub fn get_or_insert_with(&mut self, path: &str, make: impl FnOnce() -> V) -> &mut V {
        let mut at = ROOT;
        let mut multi = false;
        let mut levels = Levels::of(path);
        loop {
            let text = levels.rest();
            let Some(level) = levels.next() else { break };
            match FilterLevel::parse(level) {
                FilterLevel::Exact(level) => {
                    let Some(child) = self.child(at, &self.nodes[at], level) else {
                        at = self.insert_child(at, text.unwrap_or(level));
                        break;
                    };
                    at = child;
                    if let Some(rest) = self.nodes[at].level.rest() {
                        if levels.rest().map(str::as_bytes) == Some(rest) {
                            break;
                        }
                        self.unfold(at);
                    }
                }
                FilterLevel::Single => at = self.single_or_insert(at),
                FilterLevel::Multi => {
                    multi = true;
                    break;
                }
            }
        }
        let place = self.nodes[at].value_mut(multi);
        self.len += usize::from(place.is_none());
        place.get_or_insert_with(make)
    }

    /// The value of `path`, to change it.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut V> {
        let (at, multi) = self.find(path)?;
        self.nodes[at].value_mut(multi).as_mut()
    }

    /// The value of `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&V> {
        let (at, multi) = self.find(path)?;
        let node = &self.nodes[at];
        if multi { node.multi.as_ref() } else { node.here.as_ref() }
    }

    /// Changes the value of `path`, and removes it if `change` says that it is worth nothing then.
    pub fn update<R>(&mut self, path: &str, change: impl FnOnce(&mut V) -> (R, bool)) -> Option<R> {
        let (at, multi) = self.find(path)?;
        let place = self.nodes[at].value_mut(multi);
        let (result, over) = change(place.as_mut()?);
        if over {
            *place = None;
            self.len -= 1;
            self.prune(at);
        }
        Some(result)
    }

    /// Removes the value of `path`.
    pub fn remove(&mut self, path: &str) -> Option<V> {
        let (at, multi) = self.find(path)?;
        let value = self.nodes[at].value_mut(multi).take()?;
        self.len -= 1;
        self.prune(at);
        Some(value)
    }

    /// Visits the value of every filter that wants what is published to `topic`.
    pub fn filters_matching<'t>(&'t self, topic: &str, mut visit: impl FnMut(&'t V)) {
        // "The Server MUST NOT match Topic Filters starting with a wildcard character (# or +) with
        // Topic Names beginning with a $ character." [MQTT-4.7.2-1]
        let dollar = topic.starts_with('$');
        let mut open: SmallVec<[(u32, Levels<'_>); WALK_INLINE]> =
            smallvec![(ROOT, Levels::of(topic))];
        while let Some((at, mut levels)) = open.pop() {
            let node = &self.nodes[at];
            if let Some(rest) = node.level.rest() {
                if let Some(value) = &node.here
                    && meets(Levels::of(text_of(rest)), levels)
                {
                    visit(value);
                }
                continue;
            }
            let wildcards = !(dollar && at == ROOT);
            if let Some(value) = node.multi.as_ref().filter(|_| wildcards) {
                visit(value);
            }
            let Some(level) = levels.next() else {
                if let Some(value) = &node.here {
                    visit(value);
                }
                continue;
            };
            if wildcards && node.single != NONE {
                open.push((node.single, levels.clone()));
            }
            if let Some(child) = self.child(at, node, level) {
                open.push((child, levels));
            }
        }
    }

    /// Visits the value of every topic that `pattern`, a filter without prefix, wants, in the order
    /// of the topics' levels, until `visit` breaks.
    pub fn topics_matching<'t>(
        &'t self,
        pattern: &str,
        mut visit: impl FnMut(&'t V) -> ControlFlow<()>,
    ) {
        // What is left of the pattern; none: everything.
        let mut open: SmallVec<[(u32, Option<Levels<'_>>); WALK_INLINE]> =
            smallvec![(ROOT, Some(Levels::of(pattern)))];
        while let Some((at, wanted)) = open.pop() {
            let node = &self.nodes[at];
            if let Some(rest) = node.level.rest() {
                let wanted = wanted.is_none_or(|wanted| meets(wanted, Levels::of(text_of(rest))));
                if let Some(value) = node.here.as_ref().filter(|_| wanted)
                    && visit(value).is_break()
                {
                    return;
                }
                continue;
            }
            let (ends, deeper) = match wanted {
                None => (true, None),
                Some(mut levels) => match levels.next().map(FilterLevel::parse) {
                    None => (true, Some(levels)),
                    Some(FilterLevel::Multi) => (true, None),
                    Some(FilterLevel::Single) => (false, Some(levels)),
                    Some(FilterLevel::Exact(level)) => {
                        let child = self.child(at, node, level);
                        open.extend(child.map(|child| (child, Some(levels))));
                        continue;
                    }
                },
            };
            if let Some(value) = node.here.as_ref().filter(|_| ends)
                && visit(value).is_break()
            {
                return;
            }
            if ends && deeper.is_some() {
                continue;
            }
            let children = self.children(node);
            let mut children: Vec<_> =
                children.map(|child| (self.nodes[child].level.name(), child)).collect();
            // As above, [MQTT-4.7.2-1].
            children.retain(|(level, _)| !(at == ROOT && level.starts_with(b"$")));
            children.sort_unstable_by(|one, other| other.0.cmp(one.0));
            open.extend(children.into_iter().map(|(_, child)| (child, deeper.clone())));
        }
    }

    /// Visits every value with its path, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(&str, &V)) {
        let mut open = vec![(ROOT, None::<String>)];
        while let Some((at, path)) = open.pop() {
            let node = &self.nodes[at];
            let below = |level: &str| match &path {
                Some(path) => format!("{path}/{level}"),
                None => level.to_owned(),
            };
            if let Some(value) = &node.multi {
                visit(&below("#"), value);
            }
            if node.single != NONE {
                open.push((node.single, Some(below("+"))));
            }
            open.extend(self.children(node).map(|child| {
                let text = text_of(self.nodes[child].level.as_bytes());
                (child, Some(below(text)))
            }));
            if let (Some(path), Some(value)) = (&path, &node.here) {
                visit(path, value);
            }
        }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The node where `path` ends, and whether it ends with `#`.
    fn find(&self, path: &str) -> Option<(u32, bool)> {
        let mut at = ROOT;
        let mut levels = Levels::of(path);
        while let Some(level) = levels.next() {
            let node = &self.nodes[at];
            at = match FilterLevel::parse(level) {
                FilterLevel::Exact(text) => self.child(at, node, text)?,
                FilterLevel::Single if node.single == NONE => return None,
                FilterLevel::Single => node.single,
                FilterLevel::Multi => return Some((at, true)),
            };
            if let Some(rest) = self.nodes[at].level.rest() {
                let same = levels.rest().map(str::as_bytes) == Some(rest);
                return same.then_some((at, false));
            }
        }
        Some((at, false))
    }

    /// The child of `node`, which is the one at `at`, for a level.
    fn child(&self, at: u32, node: &Node<V>, level: &str) -> Option<u32> {
        if node.first == NONE {
            return None;
        }
        let hash = hash(at, level.as_bytes());
        let found = self.ways.get(Way::spread(hash), |way| self.leads(*way, hash, at, level));
        found.map(|way| way.child)
    }

    fn leads(&self, way: Way, hash: u32, from: u32, level: &str) -> bool {
        way.hash == hash && {
            let child = &self.nodes[way.child];
            child.parent == from && child.level.name() == level.as_bytes()
        }
    }

    /// The children of a node but for that for `+`, in no order.
    fn children<'n>(&'n self, node: &Node<V>) -> impl Iterator<Item = u32> + use<'n, V> {
        let some = |at: u32| (at != NONE).then_some(at);
        iter::successors(some(node.first), move |at| some(self.nodes[*at].next))
    }

    /// A new child, for the level that `text` begins with; it keeps what follows.
    fn insert_child(&mut self, at: u32, text: &str) -> u32 {
        let child = self.nodes.insert_child(at, text);
        let way = Way { hash: hash(at, self.nodes[child].level.name()), child };
        self.ways.insert(way, |way| Way::spread(way.hash));
        child
    }

    /// Moves the value of a node that keeps what follows its level to where that leads.
    fn unfold(&mut self, mut at: u32) {
        let node = &mut self.nodes[at];
        let Some(text) = node.level.unfold() else { return };
        let Some(value) = node.here.take() else { return };
        let mut levels = Levels::of(text_of(&text));
        loop {
            let text = levels.rest();
            let Some(level) = levels.next() else { break };
            match FilterLevel::parse(level) {
                FilterLevel::Exact(level) => {
                    at = self.insert_child(at, text.unwrap_or(level));
                    break;
                }
                FilterLevel::Single => at = self.single_or_insert(at),
                FilterLevel::Multi => {
                    self.nodes[at].multi = Some(value);
                    return;
                }
            }
        }
        self.nodes[at].here = Some(value);
    }

    fn single_or_insert(&mut self, at: u32) -> u32 {
        if self.nodes[at].single == NONE {
            self.nodes.insert_single(at);
        }
        self.nodes[at].single
    }

    /// Removes a node that leads nowhere, and those above that led only to it.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at].is_empty() {
            let node = &self.nodes[at];
            let parent = node.parent;
            if self.nodes[parent].single != at {
                let hash = hash(parent, node.level.name());
                self.ways.remove(Way::spread(hash), |way| way.child == at);
            }
            self.nodes.remove(at);
            at = parent;
        }
    }
}

/// Whether a topic's levels are what a filter's levels want, both from below the first.
fn meets(filter: Levels<'_>, mut topic: Levels<'_>) -> bool {
    for level in filter {
        match FilterLevel::parse(level) {
            FilterLevel::Exact(level) if topic.next() == Some(level) => {}
            FilterLevel::Single if topic.next().is_some() => {}
            FilterLevel::Exact(_) | FilterLevel::Single => return false,
            FilterLevel::Multi => return true,
        }
    }
    topic.next().is_none()
}

fn text_of(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("levels are pieces of text")
}

fn hash(parent: u32, level: &[u8]) -> u32 {
    (FxBuildHasher.hash_one((parent, level)) >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: [&str; 12] = [
        "#",
        "+",
        "+/+",
        "/+",
        "sport/#",
        "sport/+",
        "sport/tennis/+",
        "sport/tennis/player1/#",
        "+/tennis/#",
        "sport/+/player1",
        "$SYS/#",
        "$SYS/monitor/+",
    ];

    const TOPICS: [&str; 12] = [
        "/finance",
        "finance",
        "sport",
        "sport/",
        "sport/tennis",
        "sport/tennis/player1",
        "sport/tennis/player1/ranking",
        "sport/tennis/player2",
        "$SYS",
        "$SYS/monitor",
        "$SYS/monitor/Clients",
        "a/$SYS",
    ];

    #[test]
    fn filters_meet_topics_as_the_standard_says_in_both_directions() {
        let filters = trie(&FILTERS);
        let topics = trie(&TOPICS);
        for topic in TOPICS {
            let wanted: Vec<_> = FILTERS.into_iter().filter(|f| meets(f, topic)).collect();
            assert_eq!(matching(&filters, topic), sorted(wanted), "{topic}");
        }
        for filter in FILTERS {
            let wanted: Vec<_> = TOPICS.into_iter().filter(|t| meets(filter, t)).collect();
            let mut found = Vec::new();
            topics.topics_matching(filter, |topic| {
                found.push(*topic);
                ControlFlow::Continue(())
            });
            assert_eq!(sorted(found), sorted(wanted), "{filter}");
        }
    }

    #[test]
    fn topics_come_in_order_and_the_walk_can_end() {
        let topics = trie(&["b", "a/c", "a/b/x", "a", "c"]);
        let mut found = Vec::new();
        topics.topics_matching("#", |topic| {
            found.push(*topic);
            if found.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(found, ["a", "a/b/x", "a/c", "b"]);
    }

    #[test]
    fn removal_leaves_no_node_behind_and_takes_no_other_value() {
        let mut filters = trie(&FILTERS);
        assert_eq!(filters.remove("sport/tennis"), None);
        assert_eq!(filters.remove("sport/x/y"), None);
        for (count, filter) in FILTERS.into_iter().enumerate() {
            assert_eq!(filters.len(), FILTERS.len() - count);
            assert_eq!(filters.remove(filter), Some(filter));
            assert_eq!(filters.get(filter), None);
            for left in &FILTERS[count + 1..] {
                assert_eq!(filters.get(left), Some(left));
            }
        }
        assert!(filters.is_empty());
        assert_eq!((filters.nodes.len(), filters.ways.len()), (1, 0));
    }

    #[test]
    fn paths_are_given_back_as_they_were() {
        let mut found = Vec::new();
        trie(&FILTERS).for_each(|path, filter| {
            assert_eq!(path, *filter);
            found.push(*filter);
        });
        assert_eq!(sorted(found), sorted(FILTERS.to_vec()));
    }

    #[test]
    fn a_path_of_its_own_is_one_node_until_another_goes_its_way() {
        let mut filters = trie(&["a/b/+/c/#"]);
        assert_eq!(filters.nodes.len(), 2);
        for (path, nodes) in [("a/x/y", 4), ("a/b/+/d", 7), ("a/b", 7), ("a/#", 7)] {
            filters.get_or_insert_with(path, || path);
            assert_eq!((filters.nodes.len(), filters.get(path)), (nodes, Some(&path)), "{path}");
        }
        assert_eq!(matching(&filters, "a/b/1/c"), ["a/#", "a/b/+/c/#"]);
        assert_eq!(matching(&filters, "a/b/$/d"), ["a/#", "a/b/+/d"]);
        assert_eq!(matching(&filters, "a/x"), ["a/#"]);
        assert_eq!(filters.get("a/x"), None);
        for path in ["a/x/y", "a/b", "a/b/+/c/#", "a/#", "a/b/+/d"] {
            assert_eq!(filters.remove(path), Some(path));
        }
        assert_eq!((filters.nodes.len(), filters.ways.len()), (1, 0));
    }

    #[test]
    fn sixty_thousand_levels_are_walked_without_recursion() {
        let deep = "/".repeat(60_000);
        let all_single = vec!["+"; 60_001].join("/");
        let mut filters = trie(&[&deep, &all_single]);
        assert_eq!(matching(&filters, &deep).len(), 2);
        filters.remove(&deep);
        filters.remove(&all_single);
        assert_eq!((filters.nodes.len(), filters.ways.len()), (1, 0));
    }

    fn trie<'a>(paths: &[&'a str]) -> LevelTrie<&'a str> {
        let mut trie = LevelTrie::default();
        for path in paths {
            trie.get_or_insert_with(path, || *path);
        }
        trie
    }

    fn matching<'a>(filters: &LevelTrie<&'a str>, topic: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        filters.filters_matching(topic, |filter| found.push(*filter));
        sorted(found)
    }

    fn sorted(mut texts: Vec<&str>) -> Vec<&str> {
        texts.sort_unstable();
        texts
    }

    fn meets(filter: &str, topic: &str) -> bool {
        verge_mqtt_proto::matches(filter, topic)
    }
}

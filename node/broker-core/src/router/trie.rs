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
//! Walks use a stack of their own, so that no text, however many levels it has, runs out of the
//! thread's.

use std::ops::ControlFlow;

use rustc_hash::FxHashMap;
use slab::Slab;
use smallvec::{SmallVec, smallvec};
use verge_mqtt_proto::topic::level::{FilterLevel, Levels};

/// Where the empty path ends; always there.
const ROOT: u32 = 0;
/// In place of a child that is not there.
const NONE: u32 = u32::MAX;
/// Steps kept without allocation in a walk.
const WALK_INLINE: usize = 16;

/// Values by filter, or by topic.
#[derive(Debug)]
pub struct LevelTrie<V> {
    nodes: Slab<Node<V>>,
    /// How many values there are.
    len: usize,
}

#[derive(Debug)]
struct Node<V> {
    children: FxHashMap<Box<str>, u32>,
    /// The child for `+`, or [`NONE`].
    single: u32,
    /// The value of the path that ends here.
    here: Option<V>,
    /// The value of the path that goes on with `#`.
    multi: Option<V>,
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { children: FxHashMap::default(), single: NONE, here: None, multi: None }
    }
}

impl<V> Default for LevelTrie<V> {
    fn default() -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::default());
        debug_assert_eq!(root, ROOT as usize, "an empty slab numbers from 0");
        Self { nodes, len: 0 }
    }
}

impl<V> LevelTrie<V> {
    /// The value of `path`, made if there is none.
    pub fn get_or_insert_with(&mut self, path: &str, make: impl FnOnce() -> V) -> &mut V {
        let mut at = ROOT;
        let mut multi = false;
        for level in Levels::of(path) {
            match FilterLevel::parse(level) {
                FilterLevel::Exact(level) => at = self.child_or_insert(at, level),
                FilterLevel::Single => at = self.single_or_insert(at),
                FilterLevel::Multi => {
                    multi = true;
                    break;
                }
            }
        }
        let node = &mut self.nodes[at as usize];
        let place = if multi { &mut node.multi } else { &mut node.here };
        self.len += usize::from(place.is_none());
        place.get_or_insert_with(make)
    }

    /// The value of `path`, to change it.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut V> {
        let (at, multi) = self.find(path, |_, _| {})?;
        let node = &mut self.nodes[at as usize];
        if multi { node.multi.as_mut() } else { node.here.as_mut() }
    }

    /// The value of `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&V> {
        let (at, multi) = self.find(path, |_, _| {})?;
        let node = &self.nodes[at as usize];
        if multi { node.multi.as_ref() } else { node.here.as_ref() }
    }

    /// Removes the value of `path`, and every node that leads nowhere then.
    pub fn remove(&mut self, path: &str) -> Option<V> {
        let mut way: SmallVec<[(u32, FilterLevel<'_>); WALK_INLINE]> = SmallVec::new();
        let (mut at, multi) = self.find(path, |from, level| way.push((from, level)))?;
        let node = &mut self.nodes[at as usize];
        let value = if multi { node.multi.take() } else { node.here.take() }?;
        self.len -= 1;
        while let Some((parent, level)) = way.pop() {
            if !self.nodes[at as usize].is_empty() {
                break;
            }
            self.nodes.remove(at as usize);
            let node = &mut self.nodes[parent as usize];
            match level {
                FilterLevel::Exact(level) => {
                    node.children.remove(level);
                }
                FilterLevel::Single => node.single = NONE,
                FilterLevel::Multi => unreachable!("# is no step down"),
            }
            at = parent;
        }
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
            let node = &self.nodes[at as usize];
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
            if let Some(child) = node.children.get(level) {
                open.push((*child, levels));
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
            let node = &self.nodes[at as usize];
            let (ends, deeper) = match wanted {
                None => (true, None),
                Some(mut levels) => match levels.next().map(FilterLevel::parse) {
                    None => (true, Some(levels)),
                    Some(FilterLevel::Multi) => (true, None),
                    Some(FilterLevel::Single) => (false, Some(levels)),
                    Some(FilterLevel::Exact(level)) => {
                        open.extend(node.children.get(level).map(|child| (*child, Some(levels))));
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
            let mut children: Vec<_> = node.children.iter().collect();
            // As above, [MQTT-4.7.2-1].
            children.retain(|(level, _)| !(at == ROOT && level.starts_with('$')));
            children.sort_unstable_by(|one, other| other.0.cmp(one.0));
            open.extend(children.into_iter().map(|(_, child)| (*child, deeper.clone())));
        }
    }

    /// Visits every value with its path, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(&str, &V)) {
        let mut open = vec![(ROOT, None::<String>)];
        while let Some((at, path)) = open.pop() {
            let node = &self.nodes[at as usize];
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
            open.extend(node.children.iter().map(|(level, child)| (*child, Some(below(level)))));
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

    /// The node where `path` ends, and whether it ends with `#`; `step` is told each way down.
    fn find<'p>(
        &self,
        path: &'p str,
        mut step: impl FnMut(u32, FilterLevel<'p>),
    ) -> Option<(u32, bool)> {
        let mut at = ROOT;
        for level in Levels::of(path).map(FilterLevel::parse) {
            let node = &self.nodes[at as usize];
            let next = match level {
                FilterLevel::Exact(text) => *node.children.get(text)?,
                FilterLevel::Single if node.single == NONE => return None,
                FilterLevel::Single => node.single,
                FilterLevel::Multi => return Some((at, true)),
            };
            step(at, level);
            at = next;
        }
        Some((at, false))
    }

    fn child_or_insert(&mut self, at: u32, level: &str) -> u32 {
        if let Some(child) = self.nodes[at as usize].children.get(level) {
            return *child;
        }
        let child = self.new_node();
        self.nodes[at as usize].children.insert(level.into(), child);
        child
    }

    fn single_or_insert(&mut self, at: u32) -> u32 {
        if self.nodes[at as usize].single == NONE {
            let child = self.new_node();
            self.nodes[at as usize].single = child;
        }
        self.nodes[at as usize].single
    }

    fn new_node(&mut self) -> u32 {
        let number = self.nodes.insert(Node::default());
        let number = u32::try_from(number).ok().filter(|number| *number != NONE);
        number.expect("four billion nodes do not fit into memory")
    }
}

impl<V> Node<V> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.single == NONE
            && self.here.is_none()
            && self.multi.is_none()
    }
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
        assert_eq!(filters.nodes.len(), 1);
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
    fn sixty_thousand_levels_are_walked_without_recursion() {
        let deep = "/".repeat(60_000);
        let all_single = vec!["+"; 60_001].join("/");
        let mut filters = trie(&[&deep, &all_single]);
        assert_eq!(matching(&filters, &deep).len(), 2);
        filters.remove(&deep);
        filters.remove(&all_single);
        assert_eq!(filters.nodes.len(), 1);
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

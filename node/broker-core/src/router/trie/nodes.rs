//! The nodes of a trie, side by side.

use std::ops::{Index, IndexMut};

/// Where the empty path ends; always there.
pub(super) const ROOT: u32 = 0;
/// In place of a node that is not there.
pub(super) const NONE: u32 = u32::MAX;

/// Nodes in a block, a power of two. Blocks do not move when there are more, and the last of a
/// million nodes' blocks is a small part of them.
const BLOCK: usize = 1 << BLOCK_BITS;
const BLOCK_BITS: u32 = 12;

/// A node.
#[derive(Debug)]
pub(super) struct Node<V> {
    /// What leads here from the parent, empty if it is `+`, and what follows, if nothing else does.
    pub(super) level: Level,
    pub(super) parent: u32,
    /// The child for `+`, or [`NONE`].
    pub(super) single: u32,
    /// One of the other children, or [`NONE`].
    pub(super) first: u32,
    /// Its siblings, or [`NONE`]; of a node that is free, the next that is.
    pub(super) next: u32,
    previous: u32,
    /// The value of the path that ends here.
    pub(super) here: Option<V>,
    /// The value of the path that goes on with `#`.
    pub(super) multi: Option<V>,
}

impl<V> Node<V> {
    fn new(level: Level, parent: u32) -> Self {
        let (single, first, next, previous) = (NONE, NONE, NONE, NONE);
        Self { level, parent, single, first, next, previous, here: None, multi: None }
    }

    /// The value of the path that ends here, or goes on with `#`.
    pub(super) fn value_mut(&mut self, multi: bool) -> &mut Option<V> {
        if multi { &mut self.multi } else { &mut self.here }
    }

    /// Whether it leads to no value.
    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE && self.single == NONE && self.here.is_none() && self.multi.is_none()
    }
}

/// All nodes, by number.
#[derive(Debug)]
pub(super) struct Nodes<V> {
    blocks: Vec<Vec<Node<V>>>,
    /// The first free one, or [`NONE`].
    free: u32,
}

impl<V> Default for Nodes<V> {
    fn default() -> Self {
        let root = Node::new(Level::of(""), NONE);
        Self { blocks: vec![vec![root]], free: NONE }
    }
}

impl<V> Nodes<V> {
    /// How many are in use, the root included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let free = std::iter::successors((self.free != NONE).then_some(self.free), |at| {
            (self[*at].next != NONE).then_some(self[*at].next)
        });
        self.blocks.iter().map(Vec::len).sum::<usize>() - free.count()
    }

    /// A new child for the level that `text` begins with; it keeps what follows.
    pub(super) fn insert_child(&mut self, parent: u32, text: &str) -> u32 {
        let at = self.insert(Node::new(Level::of(text), parent));
        let sibling = std::mem::replace(&mut self[parent].first, at);
        if sibling != NONE {
            self[sibling].previous = at;
            self[at].next = sibling;
        }
        at
    }

    /// A new child for `+`.
    pub(super) fn insert_single(&mut self, parent: u32) {
        let at = self.insert(Node::new(Level::of(""), parent));
        self[parent].single = at;
    }

    /// Takes a node without children from its parent.
    pub(super) fn remove(&mut self, at: u32) {
        let free = Node { next: self.free, ..Node::new(Level::of(""), NONE) };
        let Node { parent, next, previous, .. } = std::mem::replace(&mut self[at], free);
        if self[parent].single == at {
            self[parent].single = NONE;
        } else if previous == NONE {
            self[parent].first = next;
        } else {
            self[previous].next = next;
        }
        if next != NONE {
            self[next].previous = previous;
        }
        self.free = at;
    }

    fn insert(&mut self, node: Node<V>) -> u32 {
        if self.free != NONE {
            let at = self.free;
            self.free = self[at].next;
            self[at] = node;
            return at;
        }
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let blocks = self.blocks.len();
        let last = self.blocks.last_mut().expect("there is one, or it was made");
        let at = (blocks - 1) * BLOCK + last.len();
        last.push(node);
        let at = u32::try_from(at).ok().filter(|at| *at != NONE);
        at.expect("four billion nodes do not fit into memory")
    }
}

impl<V> Index<u32> for Nodes<V> {
    type Output = Node<V>;

    fn index(&self, at: u32) -> &Node<V> {
        &self.blocks[(at >> BLOCK_BITS) as usize][at as usize % BLOCK]
    }
}

impl<V> IndexMut<u32> for Nodes<V> {
    fn index_mut(&mut self, at: u32) -> &mut Node<V> {
        &mut self.blocks[(at >> BLOCK_BITS) as usize][at as usize % BLOCK]
    }
}

/// Longest level kept in its node.
const SHORT_MAX: usize = 14;

/// The text of a level, in 16 bytes; most are shorter. With a slash in it, it is a level and what
/// follows.
#[derive(Debug)]
pub(super) enum Level {
    /// So many of these bytes.
    Short(u8, [u8; SHORT_MAX]),
    /// Boxed twice: a pointer alone fits.
    Long(Box<Box<[u8]>>),
    /// As short, with a slash.
    ShortPath(u8, [u8; SHORT_MAX]),
    /// As long, with a slash.
    LongPath(Box<Box<[u8]>>),
}

impl Level {
    fn of(text: &str) -> Self {
        Self::of_bytes(text.as_bytes())
    }

    fn of_bytes(text: &[u8]) -> Self {
        let is_path = slash(text).is_some();
        let mut bytes = [0; SHORT_MAX];
        let Some(start) = bytes.get_mut(..text.len()) else {
            let text = Box::new(text.into());
            return if is_path { Self::LongPath(text) } else { Self::Long(text) };
        };
        start.copy_from_slice(text);
        let len = u8::try_from(text.len()).expect("it is short");
        if is_path { Self::ShortPath(len, bytes) } else { Self::Short(len, bytes) }
    }

    /// Its text, with what follows.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) | Self::ShortPath(len, bytes) => &bytes[..usize::from(*len)],
            Self::Long(bytes) | Self::LongPath(bytes) => bytes,
        }
    }

    /// Its text alone.
    pub(super) fn name(&self) -> &[u8] {
        let text = self.as_bytes();
        if self.is_path() { &text[..slash(text).unwrap_or(text.len())] } else { text }
    }

    /// What follows it, if that is kept here.
    pub(super) fn rest(&self) -> Option<&[u8]> {
        let text = self.as_bytes();
        self.is_path().then(|| &text[slash(text).map_or(text.len(), |slash| slash + 1)..])
    }

    /// Keeps what follows no more, and gives it.
    pub(super) fn unfold(&mut self) -> Option<Box<[u8]>> {
        let rest = self.rest()?.into();
        *self = Self::of_bytes(self.name());
        Some(rest)
    }

    fn is_path(&self) -> bool {
        match self {
            Self::Short(..) | Self::Long(_) => false,
            Self::ShortPath(..) | Self::LongPath(_) => true,
        }
    }
}

fn slash(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| *byte == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_fits_into_a_cache_line() {
        assert!(size_of::<Node<Box<u8>>>() <= 56, "{}", size_of::<Node<Box<u8>>>());
        for text in ["", "a", "fourteen bytes", "fifteen bytes !", &"long".repeat(99)] {
            assert_eq!(Level::of(text).as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn numbers_are_used_again_and_siblings_stay_linked() {
        let mut nodes = Nodes::<u8>::default();
        let children: Vec<u32> =
            ["a", "b", "c"].map(|level| nodes.insert_child(ROOT, level)).into();
        nodes.insert_single(ROOT);
        for gone in [children[1], children[2], children[0]] {
            nodes.remove(gone);
            let mut at = nodes[ROOT].first;
            while at != NONE {
                assert!(at != gone && nodes[at].parent == ROOT);
                at = nodes[at].next;
            }
        }
        assert_eq!((nodes.len(), nodes[ROOT].first), (2, NONE));
        assert_eq!(nodes.insert_child(ROOT, "d"), children[0]);
        for _ in 0..2 * BLOCK {
            nodes.insert_child(ROOT, "e");
        }
        assert_eq!((nodes.len(), nodes.blocks.len()), (2 * BLOCK + 3, 3));
    }
}

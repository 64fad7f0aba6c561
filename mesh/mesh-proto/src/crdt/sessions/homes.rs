//! Which nodes keep which entries.

use smallvec::SmallVec;
use verge_model::NodeKey;

use crate::limits::{HOMES, REGISTRY_GROUPS};

/// Who keeps the entries of each group.
///
/// Homes are chosen by rendezvous hashing (Thaler and Ravishankar, 1998) per group among the known
/// members of the region, whether up or down: a node that dies keeps its groups, and a node that
/// joins takes each group from at most one other. Regional nodes come first.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    groups: Vec<SmallVec<[NodeKey; HOMES]>>,
}

/// A node that may be a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    pub(crate) node: NodeKey,
    pub(crate) regional: bool,
}

impl Homes {
    pub(crate) fn among(candidates: &[Candidate]) -> Self {
        let mut ranked = candidates.to_vec();
        let choose = |group| {
            ranked.sort_by_key(|candidate| {
                let weight = mix(candidate.node.0 ^ mix(group));
                (!candidate.regional, u64::MAX - weight, candidate.node)
            });
            ranked.iter().take(HOMES).map(|candidate| candidate.node).collect()
        };
        Self { groups: (0..REGISTRY_GROUPS as u64).map(choose).collect() }
    }

    /// The homes of a group, first first.
    pub(crate) fn of(&self, group: u8) -> &[NodeKey] {
        self.groups.get(usize::from(group)).map_or(&[], |homes| homes)
    }

    pub(crate) fn holds(&self, group: u8, node: NodeKey) -> bool {
        self.of(group).contains(&node)
    }
}

/// The finaliser of MurmurHash3.
pub(super) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsus(count: u64) -> Vec<Candidate> {
        (1..=count).map(|node| Candidate { node: NodeKey(node), regional: false }).collect()
    }

    #[test]
    fn regional_nodes_come_first_and_small_regions_use_everyone() {
        let mut candidates = rsus(9);
        candidates[4].regional = true;
        candidates[7].regional = true;
        let homes = Homes::among(&candidates);
        for group in 0..=255 {
            assert_eq!(homes.of(group).len(), 3);
            let mut first = homes.of(group)[..2].to_vec();
            first.sort();
            assert_eq!(first, [NodeKey(5), NodeKey(8)]);
        }
        assert!((0..=255).all(|group| Homes::among(&rsus(2)).of(group).len() == 2));
    }

    #[test]
    fn a_node_that_joins_takes_each_group_from_at_most_one_other() {
        let (before, after) = (Homes::among(&rsus(20)), Homes::among(&rsus(21)));
        let mut moved = 0;
        for group in 0..=255 {
            let kept = before.of(group).iter().filter(|node| after.holds(group, **node)).count();
            assert!(kept >= 2, "group {group}");
            moved += 3 - kept;
        }
        // 3 of 21 groups in expectation: 37 of 256.
        assert!((20..60).contains(&moved), "{moved} groups moved");
    }

    #[test]
    fn homes_do_not_depend_on_the_order_of_candidates() {
        let mut reversed = rsus(11);
        reversed.reverse();
        let (a, b) = (Homes::among(&rsus(11)), Homes::among(&reversed));
        assert!((0..=255).all(|group| a.of(group) == b.of(group)));
    }
}

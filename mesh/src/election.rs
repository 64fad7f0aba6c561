//! Which of two connections stays when a pair of nodes has two of one kind.
//!
//! Both nodes decide alone and must decide alike, whatever order they see the connections in. So the
//! rule uses only what both know from the greeting:
//!
//! | the two connections | stays |
//! |---|---|
//! | reach different processes | the newcomer: the other process is gone |
//! | were dialled by the same side | the later dial |
//! | were dialled by both sides | the one dialled by the smaller node id |

use verge_model::NodeId;

/// What the rule knows of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The peer's process.
    pub(crate) instance: u64,
    /// Whether this side dialled.
    pub(crate) dialled: bool,
    /// The dialling side's count of dials.
    pub(crate) dial_no: u64,
}

/// Whether a connection that was just made replaces the present one.
pub(crate) fn newcomer_stays(own: &NodeId, peer: &NodeId, present: Claim, newcomer: Claim) -> bool {
    if present.instance != newcomer.instance {
        return true;
    }
    if present.dialled == newcomer.dialled {
        return newcomer.dial_no > present.dial_no;
    }
    let dialler = if newcomer.dialled { own } else { peer };
    dialler == own.min(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection as `a` (process 10) and as `b` (process 20) know it.
    #[derive(Clone, Copy)]
    struct Both {
        dialled_by_a: bool,
        dial_no: u64,
    }

    impl Both {
        fn at_a(self) -> Claim {
            Claim { instance: 20, dialled: self.dialled_by_a, dial_no: self.dial_no }
        }

        fn at_b(self) -> Claim {
            Claim { instance: 10, dialled: !self.dialled_by_a, dial_no: self.dial_no }
        }
    }

    #[test]
    fn both_sides_keep_the_same_one_in_every_order() {
        let (a, b): (NodeId, NodeId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let dials = [(true, 1), (true, 2), (false, 1), (false, 2)];
        let all = dials.map(|(dialled_by_a, dial_no)| Both { dialled_by_a, dial_no });
        for (i, one) in all.into_iter().enumerate() {
            for two in all.into_iter().skip(i + 1) {
                let two_stays = [
                    newcomer_stays(&a, &b, one.at_a(), two.at_a()),
                    !newcomer_stays(&a, &b, two.at_a(), one.at_a()),
                    newcomer_stays(&b, &a, one.at_b(), two.at_b()),
                    !newcomer_stays(&b, &a, two.at_b(), one.at_b()),
                ];
                assert!(two_stays.iter().all(|stays| *stays == two_stays[0]), "{two_stays:?}");
            }
        }
    }

    #[test]
    fn a_restarted_peer_is_let_in_although_its_old_connection_looks_alive() {
        let (a, b): (NodeId, NodeId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let old = Claim { instance: 1, dialled: true, dial_no: 9 };
        let new = Claim { instance: 2, dialled: false, dial_no: 1 };
        assert!(newcomer_stays(&a, &b, old, new));
    }
}

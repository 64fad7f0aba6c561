//! `GET /api/v1/ledger?scope=mesh`: the books of every member that answers, added up.
//!
//! Members are asked through the admin addresses they tell each other. What a session's old owner
//! settled as handed over, its new one opened as imported; the difference is on its way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ledger::{BooksAnswer, HolderAnswer, HoldersAnswer, LedgerAnswer, WaitingAnswer};
use crate::mesh::view::MemberView;

/// How long a member may take. One that is slower is named.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(3);

/// Members asked at once; each has a thread meanwhile.
const AT_ONCE: usize = 16;

/// Largest answer that is read: [`HOLDERS_MAX`](super::ledger::HOLDERS_MAX) sessions and a line for
/// each node and class.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// `GET /api/v1/ledger?scope=mesh`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshLedgerAnswer {
    /// All classes together, of all nodes.
    #[serde(flatten)]
    pub all: BooksAnswer,
    /// The same, class by class.
    pub classes: BTreeMap<String, BooksAnswer>,
    /// What moves between nodes with sessions.
    pub handover: HandoverAnswer,
    /// The sessions that hold the most.
    pub holders: HoldersAnswer,
    /// What waits elsewhere than in sessions.
    pub waiting: WaitingAnswer,
    /// Each node that answered.
    pub nodes: Vec<NodeBooks>,
    /// Members that did not answer: their books are missing above.
    pub unanswered: Vec<Unanswered>,
}

/// What moves between nodes with sessions. In the present lives of the nodes `imported` is
/// `handed_over` and `unconfirmed`; a node that was restarted has forgotten its part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandoverAnswer {
    /// Settled by old owners.
    pub handed_over: u64,
    /// Opened by new ones.
    pub imported: u64,
    /// Imported, and still held by the old owner, which is told next: they are held twice.
    pub unconfirmed: i64,
    /// Held by old owners, in the logs of sessions that were taken over.
    pub in_transit: u64,
    /// The greatest of those sessions.
    pub sessions: Vec<HolderAnswer>,
}

/// The books of one node, in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeBooks {
    /// The node.
    pub node_id: String,
    /// Debts opened.
    pub opened: u64,
    /// Debts settled.
    pub settled: u64,
    /// Debts held.
    pub held: u64,
    /// Bytes of those.
    pub held_bytes: u64,
    /// `opened - settled - held`.
    pub balance: i64,
    /// An imbalance that lasts.
    pub imbalance: Option<i64>,
}

/// A member that did not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unanswered {
    /// The node.
    pub node_id: String,
    /// Why.
    pub reason: String,
}

/// Adds to `own` what the other members that serve clients answer.
pub(super) async fn sum(own: LedgerAnswer, members: &[MemberView]) -> MeshLedgerAnswer {
    let (mut answers, mut unanswered) = (vec![own], Vec::new());
    let mut asked = Vec::new();
    for member in members.iter().filter(|member| !member.is_self) {
        let reason = match (member.serves_clients(), member.is_alive(), member.admin) {
            // It has no sessions.
            (false, ..) if member.role.is_some() => continue,
            (_, true, Some(admin)) => {
                asked.push((member.node_id.clone(), admin));
                continue;
            }
            (_, false, _) => "it is down",
            (_, true, None) => "it has not said where its admin API is",
        };
        unanswered.push(Unanswered { node_id: member.node_id.clone(), reason: reason.to_owned() });
    }
    for some in asked.chunks(AT_ONCE) {
        let asking: Vec<_> = some
            .iter()
            .map(|(node, admin)| {
                let (node, admin) = (node.clone(), *admin);
                (node.clone(), tokio::task::spawn_blocking(move || ask(&node, admin)))
            })
            .collect();
        for (node_id, answer) in asking {
            match answer.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(answer) => answers.push(answer),
                Err(reason) => unanswered.push(Unanswered { node_id, reason }),
            }
        }
    }
    unanswered.sort_by(|a, b| a.node_id.cmp(&b.node_id));
    MeshLedgerAnswer { unanswered, ..added(answers) }
}

fn ask(node: &str, admin: SocketAddr) -> Result<LedgerAnswer, String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(MEMBER_TIMEOUT)).build().into();
    let url = format!("http://{admin}/api/v1/ledger");
    let answer = agent.get(url).call().and_then(|mut answer| {
        answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json::<LedgerAnswer>()
    });
    let answer = answer.map_err(|error| format!("{admin}: {error}"))?;
    if answer.node_id != node {
        return Err(format!("another node answers at {admin}"));
    }
    Ok(answer)
}

fn added(mut answers: Vec<LedgerAnswer>) -> MeshLedgerAnswer {
    answers.sort_by(|a, b| a.node_id.cmp(&b.node_id));
    let mut sum = MeshLedgerAnswer::default();
    let mut holders = Vec::new();
    for answer in answers {
        sum.nodes.push(NodeBooks {
            node_id: answer.node_id.clone(),
            opened: answer.all.opened.total,
            settled: answer.all.settled.total,
            held: answer.all.held,
            held_bytes: answer.all.held_bytes,
            balance: answer.all.balance,
            imbalance: answer.imbalance,
        });
        sum.all.add(&answer.all);
        for (class, books) in &answer.classes {
            sum.classes.entry(class.clone()).or_default().add(books);
        }
        let (mine, others) = (&mut sum.waiting, answer.waiting);
        mine.forward_messages += others.forward_messages;
        mine.forward.extend(others.forward);
        mine.uplink_messages += others.uplink_messages;
        mine.delayed_messages += others.delayed_messages;
        mine.delayed_bytes += others.delayed_bytes;
        mine.in_transit_messages += others.in_transit_messages;
        mine.unread_messages_about += others.unread_messages_about;
        for holder in answer.holders.by_messages.into_iter().chain(answer.holders.by_bytes) {
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }
    let (imported, handed_over) = (sum.all.opened.imported, sum.all.settled.handed_over);
    sum.handover = HandoverAnswer {
        handed_over,
        imported,
        unconfirmed: imported.wrapping_sub(handed_over).cast_signed(),
        in_transit: sum.waiting.in_transit_messages,
        sessions: holders.iter().filter(|holder| holder.moves_to.is_some()).cloned().collect(),
    };
    sum.holders = HoldersAnswer::of(holders);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::ledger::{OpenedAnswer, SettledAnswer};

    fn answer(node: &str, imported: u64, handed_over: u64, moving: u64) -> LedgerAnswer {
        let holder = HolderAnswer {
            client: format!("on {node}"),
            node: node.to_owned(),
            state: "sealed".to_owned(),
            moves_to: (moving > 0).then(|| "b".to_owned()),
            messages: moving,
            bytes: 1,
        };
        let by_messages = vec![holder.clone()];
        LedgerAnswer {
            node_id: node.to_owned(),
            all: BooksAnswer {
                opened: OpenedAnswer { imported, total: imported, ..OpenedAnswer::default() },
                settled: SettledAnswer { handed_over, ..SettledAnswer::default() },
                held: 5,
                ..BooksAnswer::default()
            },
            holders: HoldersAnswer { by_messages, by_bytes: vec![holder] },
            waiting: WaitingAnswer { in_transit_messages: moving, ..WaitingAnswer::default() },
            ..LedgerAnswer::default()
        }
    }

    #[test]
    fn what_is_between_two_nodes_is_named() {
        let sum = added(vec![answer("b", 10, 0, 0), answer("a", 0, 7, 3)]);
        assert_eq!((sum.all.held, sum.nodes[0].node_id.as_str()), (10, "a"));
        let HandoverAnswer { handed_over, imported, unconfirmed, in_transit, sessions } =
            sum.handover;
        assert_eq!((handed_over, imported, unconfirmed, in_transit), (7, 10, 3, 3));
        let names: Vec<_> = sessions.iter().map(|session| &*session.client).collect();
        assert_eq!(names, ["on a"]);
        assert_eq!(sum.holders.by_messages.len(), 2, "one that is in both lists is there once");
    }

    #[tokio::test]
    async fn members_that_cannot_be_asked_are_named() {
        let member = |name: &str, state, role: Option<&str>| MemberView {
            node_id: name.to_owned(),
            state,
            role: role.map(str::to_owned),
            listeners: vec!["tcp://127.0.0.1:1".to_owned()],
            ..MemberView::default()
        };
        let members = [
            MemberView { is_self: true, ..member("self", "alive", Some("rsu")) },
            member("away", "down", Some("rsu")),
            member("cloud", "alive", Some("cloud")),
            member("new", "alive", None),
        ];
        let sum = sum(answer("self", 0, 0, 0), &members).await;
        let said: Vec<_> =
            sum.unanswered.iter().map(|one| format!("{}: {}", one.node_id, one.reason)).collect();
        assert_eq!(said, ["away: it is down", "new: it has not said where its admin API is"]);
    }
}

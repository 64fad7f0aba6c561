//! What the homes of a session with many subscriptions are told, how often, and that nothing of it
//! is lost with the node.

use super::bed::Bed;
use super::client::{Client, v5, want};
use super::mesh::Mesh;
use crate::shard::api::HubMail;

/// What one SUBSCRIBE may put on average, in subscriptions: sixteen beside its own, and twice as many
/// while all of them are few.
const PUT_MAX: usize = 33;

#[test]
fn a_subscription_costs_the_same_however_many_came_before() {
    let mut bed = Bed::in_mesh("a");
    // A clean start is served before the homes answered.
    let client = bed.connect(&v5("sub").expiry(600).clean());
    bed.hub.clear();
    let mut last = 0;
    for hundred in 0..10 {
        let mut put = 0;
        for number in 0..100 {
            subscribe(&mut bed, client, hundred * 100 + number);
            for (_, mail) in bed.hub.drain(..) {
                if let HubMail::PutRegistry { entry, .. } = mail {
                    last = entry.subscriptions().len();
                    put += last;
                }
            }
        }
        assert!(put > 0 && put <= 100 * PUT_MAX, "{put} for the hundred from {hundred}00");
    }
    assert!(last > 900, "the homes know most of them: {last}");
}

#[test]
fn the_last_of_many_are_told_when_they_have_waited() {
    let mut mesh = Mesh::new(&["a"]);
    let client = mesh.at(0, |bed| bed.connect(&v5("sub").persistent()));
    (0..101).for_each(|number| mesh.at(0, |bed| subscribe(bed, client, number)));
    let told = mesh.registered("sub").len();
    assert!((90..101).contains(&told), "{told}");
    mesh.wait(200);
    assert_eq!(mesh.registered("sub").len(), 101);
    mesh.at(0, |bed| bed.send(client, client.unsubscribe(2, "f/7")));
    assert_eq!(mesh.registered("sub").len(), 101);
    mesh.wait(200);
    assert_eq!(mesh.registered("sub").len(), 100);
}

#[test]
fn what_was_not_told_before_a_crash_is_told_after_it() {
    let mut mesh = Mesh::new(&["a"]);
    let client = mesh.at(0, |bed| bed.connect(&v5("sub").persistent()));
    (0..100).for_each(|number| mesh.at(0, |bed| subscribe(bed, client, number)));
    mesh.wait(200);
    mesh.at(0, |bed| bed.send(client, client.unsubscribe(2, "f/7")));
    mesh.at(0, |bed| subscribe(bed, client, 100));
    assert!(mesh.registered("sub").contains(&"f/7".to_owned()), "not told yet");
    mesh.crash(0);
    mesh.wait(10);
    let known = mesh.registered("sub");
    assert_eq!(known.len(), 100);
    assert!(!known.contains(&"f/7".to_owned()) && known.contains(&"f/100".to_owned()));
}

fn subscribe(bed: &mut Bed, client: Client, number: usize) {
    let filter: &'static str = Box::leak(format!("f/{number}").into_boxed_str());
    bed.send(client, client.subscribe(1, want(filter, 1)));
    bed.got(client);
}

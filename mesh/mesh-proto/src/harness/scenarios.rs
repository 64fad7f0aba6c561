//! What a mesh must do, whatever the seed.

use bytes::Bytes;
use verge_model::{Claim, Class, ClientKey};

use super::world::World;
use crate::{LinkKind, REPAIR_PERIOD, RegistryEntry, SubscriptionEntry};

const SEEDS: std::ops::Range<u64> = 0..6;

fn settled(nodes: usize, seed: u64) -> World {
    let mut world = World::new(nodes - 1, seed);
    world.run_until(20_000, World::all_up);
    world
}

/// A node waits for what others planned without the routes an owner has now.
fn flush(world: &mut World, node: usize, owner: usize) {
    let (key, head) = (world.key(owner), world.core(owner).route_head());
    world.with(node, |core, _| core.flush(key, head));
}

fn subscription(filter: &str) -> SubscriptionEntry {
    SubscriptionEntry {
        filter: filter.into(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
        id: None,
    }
}

#[test]
fn nodes_that_know_one_address_find_each_other() {
    for seed in SEEDS {
        let mut world = World::new(5, seed);
        let took = world.run_until(20_000, |world| {
            world.all_up() && (0..6).all(|node| world.core(node).peers().len() == 5)
        });
        assert!(took < 10_000, "seed {seed}: {took} ms");
    }
}

#[test]
fn a_dead_node_is_noticed_and_its_return_too() {
    for seed in SEEDS {
        let mut world = settled(4, seed);
        world.crash(2);
        let gone = world.nodes[2].id.clone();
        let noticed = world.run_until(20_000, |world| {
            [0, 1, 3].iter().all(|node| !world.nodes[*node].up.contains_key(&gone))
        });
        assert!(noticed >= 5_000, "seed {seed}: suspicion lasted only {noticed} ms");
        world.restart_in(2, 1_000);
        world.run_until(40_000, World::all_up);
        assert_eq!(world.nodes[0].up[&gone].incarnation, 2);
    }
}

#[test]
fn a_node_that_leaves_is_gone_at_once() {
    let mut world = settled(4, 1);
    world.leave(3);
    let gone = world.nodes[3].id.clone();
    let took = world
        .run_until(1_000, |world| (0..3).all(|node| !world.nodes[node].up.contains_key(&gone)));
    assert!(took <= 200, "{took} ms");
}

#[test]
fn losing_packets_kills_nobody() {
    for seed in SEEDS {
        let mut world = settled(6, seed);
        world.datagram_loss = 0.1;
        for _ in 0..300 {
            world.run(1_000);
            assert!(world.all_up(), "seed {seed}\n{}", world.describe());
        }
    }
}

#[test]
fn routes_are_equal_everywhere_after_links_and_nodes_failed() {
    for seed in SEEDS {
        let mut world = settled(4, seed);
        for round in 0..60 {
            for _ in 0..20 {
                let (node, number) = (world.pick(4), world.pick(40));
                let filter = format!("cam/{number}/#");
                if world.nodes[node].wanted.contains(&filter) {
                    world.unwant(node, &filter);
                } else {
                    world.want(node, &filter);
                }
            }
            let (a, b) = (world.pick(4), world.pick(4));
            if a != b && world.chance(0.5) {
                world.drop_link(a, b, LinkKind::Fast);
            }
            if round % 20 == 10 && world.nodes[a].core.is_some() {
                world.crash(a);
                world.restart_in(a, 700);
            }
            world.run(300);
        }
        world.run_until(60_000, World::routes_equal);
    }
}

#[test]
fn what_was_planned_without_an_owners_routes_has_arrived_when_the_owner_is_flushed() {
    for seed in SEEDS {
        let mut world = settled(4, seed);
        let (giver, owner, cut_off) = (1, 2, 3);
        let flushed = format!("flushed {}", world.nodes[owner].id);
        let told = |world: &World| world.nodes[giver].told.contains(&flushed);
        world.cut(cut_off, giver);
        world.forward(cut_off, giver, Class::Bulk, Bytes::from_static(b"planned before"));
        world.want(owner, "cmd/v");
        flush(&mut world, giver, owner);
        world.run(20_000);
        assert!(!told(&world), "seed {seed}: one node has not answered");
        assert!(world.inbox(giver).is_empty());
        if seed % 2 == 0 {
            world.crash(cut_off);
            world.restart_in(cut_off, 500);
        }
        world.heal();
        world.run_until(120_000, told);
        assert_eq!(world.inbox(giver).len(), 1, "seed {seed}");
        world.nodes[giver].told.clear();
        flush(&mut world, giver, owner);
        assert!(told(&world), "an answer that did once does again");
    }
}

#[test]
fn a_forgotten_member_is_not_waited_for() {
    let mut world = settled(3, 2);
    let flushed = format!("flushed {}", world.nodes[2].id);
    world.crash(1);
    world.want(2, "cmd/v");
    flush(&mut world, 0, 2);
    world.run(40_000);
    assert!(!world.nodes[0].told.contains(&flushed));
    let key = world.key(1);
    world.with(0, |core, _| assert!(core.forget_node(key)));
    assert!(world.nodes[0].told.contains(&flushed));
}

#[test]
fn routes_outlive_their_origin_and_are_replaced_when_it_returns() {
    let mut world = settled(3, 3);
    world.want(1, "old/#");
    world.want(1, "kept/#");
    world.run_until(2_000, World::routes_equal);
    world.crash(1);
    world.crash(2);
    world.restart_in(2, 500);
    world.run(20_000);
    let origin = world.key(1);
    assert_eq!(world.nodes[2].remote[&origin].len(), 2, "kept on disk while the origin is down");
    world.unwant(1, "old/#");
    world.restart_in(1, 0);
    world.run_until(40_000, World::routes_equal);
}

#[test]
fn a_large_set_of_routes_travels_as_a_snapshot_and_changes_meanwhile() {
    let mut world = World::new(1, 5);
    for number in 0..30_000 {
        world.want(0, &format!("tile/{number}/{}", "x".repeat(30)));
    }
    let mut extra = 0;
    while !(world.all_up() && world.routes_equal()) {
        assert!(extra < 2_000, "{}", world.describe().len());
        if extra < 1_000 {
            world.want(0, &format!("extra/{extra}"));
            world.unwant(0, &format!("tile/{}/{}", extra * 7, "x".repeat(30)));
            extra += 1;
        } else {
            extra += 1;
        }
        world.run(10);
    }
    assert_eq!(world.nodes[1].remote[&world.key(0)].len(), world.nodes[0].wanted.len());
}

#[test]
fn forwarded_messages_arrive_once_and_in_order_whatever_fails() {
    for seed in SEEDS {
        let mut world = settled(3, seed);
        let mut next = [[0_u32; 4]; 3];
        for round in 0..120_u32 {
            for (from, sent) in next.iter_mut().enumerate() {
                for _ in 0..world.pick(12) {
                    let class = Class::ALL[world.pick(4)];
                    let number = &mut sent[class as usize];
                    *number += 1;
                    let size = if world.chance(0.02) { 200_000 } else { 40 };
                    let (mut record, to) = (number.to_be_bytes().to_vec(), (from + 1) % 3);
                    record.resize(size, 0);
                    if world.nodes[from].core.is_some() {
                        world.forward(from, to, class, record.into());
                    } else {
                        *number -= 1;
                    }
                }
            }
            let (a, b) = (world.pick(3), world.pick(3));
            if a != b && world.chance(0.3) {
                let kind = LinkKind::ALL[world.pick(2)];
                world.drop_link(a, b, kind);
            }
            // What a crash takes away was never acknowledged to a publisher: let it be committed.
            if round % 30 == 29 {
                world.run(10);
                world.crash(a);
                world.restart_in(a, 800);
            }
            world.run(100);
        }
        let arrived = |world: &World| (0..3).all(|to| complete(world, to, &next));
        world.run_until(60_000, arrived);
        for to in 0..3 {
            check_inbox(&world, to, &next, seed);
        }
        world.run(5_000);
        for node in 0..3 {
            let pending: u64 = world.core(node).peers().iter().map(|p| p.forward_pending).sum();
            assert_eq!(pending, 0, "seed {seed}: all is acknowledged and trimmed");
        }
    }
}

/// As many messages arrived at `to` as were sent to it.
fn complete(world: &World, to: usize, sent: &[[u32; 4]; 3]) -> bool {
    let from = (to + 2) % 3;
    world.inbox(to).len() >= sent[from].iter().map(|count| *count as usize).sum()
}

fn check_inbox(world: &World, to: usize, sent: &[[u32; 4]; 3], seed: u64) {
    let from = (to + 2) % 3;
    let mut seen = [0_u32; 4];
    for (origin, class, record) in world.inbox(to) {
        assert_eq!(origin, world.key(from).0);
        let number = u32::from_be_bytes(record[..4].try_into().unwrap());
        seen[usize::from(class)] += 1;
        assert_eq!(number, seen[usize::from(class)], "seed {seed}: node {to}, class {class}");
    }
    assert_eq!(seen, sent[from], "seed {seed}");
}

#[test]
fn an_acknowledgement_that_is_lost_with_the_other_link_is_said_again() {
    // Telemetry travels on the bulk link, which stands; its acknowledgements on the fast one,
    // which breaks.
    let mut world = settled(2, 3);
    for number in 0..40 {
        world.forward(0, 1, Class::Telemetry, Bytes::from(format!("message {number}")));
        world.run(15 + number);
        world.drop_link(0, 1, LinkKind::Fast);
        world.run_until(20_000, |world| {
            let peers = world.core(0).peers();
            let linked = world.core(0).is_linked(world.key(1), LinkKind::Fast);
            linked && peers.iter().all(|peer| peer.forward_pending == 0)
        });
    }
    assert_eq!(world.inbox(1).len(), 40);
}

#[test]
fn a_wiped_receiver_and_a_wiped_sender_go_on() {
    let mut world = settled(3, 8);
    let send = |world: &mut World, text: &'static str| {
        world.forward(1, 2, Class::Safety, Bytes::from_static(text.as_bytes()));
        world.run(1_000);
    };
    let texts = |world: &World, node: usize| -> Vec<String> {
        let rows = world.inbox(node);
        rows.iter().map(|(.., text)| String::from_utf8(text.to_vec()).unwrap()).collect()
    };
    send(&mut world, "1");
    send(&mut world, "2");
    assert_eq!(texts(&world, 2), ["1", "2"]);
    world.wipe(2);
    world.restart_in(2, 100);
    world.run(5_000);
    send(&mut world, "3");
    assert_eq!(texts(&world, 2), ["3"]);
    world.wipe(1);
    world.restart_in(1, 100);
    world.run(5_000);
    send(&mut world, "4");
    assert_eq!(texts(&world, 2), ["3", "4"], "the new log begins at 1 and is not mistaken");
}

#[test]
fn a_node_that_lost_its_boot_counter_is_told_and_comes_back() {
    let mut world = settled(3, 9);
    for _ in 0..3 {
        world.crash(1);
        world.restart_in(1, 100);
        world.run(10_000);
    }
    world.wipe(1);
    world.restart_in(1, 100);
    world.run(1_000);
    world.run_until(60_000, World::all_up);
    assert!(world.nodes[1].told.contains(&"disk behind 4".to_owned()));
}

#[test]
fn the_registry_converges_and_look_ups_find_the_owner() {
    for seed in SEEDS {
        let mut world = settled(5, seed);
        let mut owners = Vec::new();
        for number in 0..60_u64 {
            let client = ClientKey::anonymous(&format!("obu-{number}"));
            let node = world.pick(5);
            let claim = Claim { epoch: 1, node: world.key(node) };
            let mut entry = RegistryEntry::new(claim, false);
            entry.subscribe(claim, subscription(&format!("to/{number}")));
            let (a, b) = (world.pick(5), world.pick(5));
            if a != b && world.chance(0.3) {
                world.cut(a, b);
            }
            world.put(node, &client, entry.clone());
            world.run(30);
            if world.chance(0.4) {
                let next = world.pick(5);
                let claim = claim.superseded_by(world.key(next));
                entry.claim(claim, false);
                world.put(next, &client, entry);
                owners.push((client, claim));
            } else {
                owners.push((client, claim));
            }
            if world.chance(0.1) {
                world.heal();
            }
            world.run(30);
        }
        world.heal();
        world.run_until(90_000, |world| {
            world.all_up() && (0..5).all(|node| world.core(node).counters().entries_dirty == 0)
        });
        world.run(u64::try_from(REPAIR_PERIOD.as_millis()).unwrap() + 2_000);
        for (ticket, (client, _)) in owners.iter().enumerate() {
            let asker = world.pick(5);
            world.lookup(asker, ticket as u64, client);
        }
        world.run(400);
        let answers: Vec<_> =
            world.nodes.iter_mut().flat_map(|node| std::mem::take(&mut node.lookups)).collect();
        assert_eq!(answers.len(), owners.len());
        for answer in answers {
            let (client, claim) = &owners[usize::try_from(answer.ticket).unwrap()];
            assert_eq!(answer.client, *client);
            assert!(answer.complete, "seed {seed}");
            let entry = answer.entry.unwrap();
            assert_eq!(entry.owner_claim(), *claim, "seed {seed}: {client}");
            assert_eq!(entry.subscriptions().len(), 1);
        }
        for (client, _) in &owners {
            let homes = world.core(0).homes_of(client).to_vec();
            assert_eq!(homes.len(), 3);
            assert_eq!(homes[0], world.key(0), "the regional node comes first");
            let held: Vec<_> =
                (0..5).filter_map(|node| world.core(node).registry_entry(client)).collect();
            assert_eq!(held.len(), 3, "seed {seed}: {client} is kept by its homes only");
            assert!(held.iter().all(|entry| *entry == held[0]), "seed {seed}: {client}");
        }
    }
}

#[test]
fn the_owner_that_loses_a_session_is_told_by_a_home() {
    let mut world = settled(4, 2);
    let client = ClientKey::anonymous("obu");
    let first = Claim { epoch: 1, node: world.key(1) };
    let mut entry = RegistryEntry::new(first, false);
    world.put(1, &client, entry.clone());
    world.run(500);
    entry.claim(first.superseded_by(world.key(2)), true);
    world.put(2, &client, entry);
    world.run(500);
    assert!(world.nodes[1].told.contains(&"superseded obu by 2 clean true".to_owned()));
    assert_eq!(world.nodes[2].told, Vec::<String>::new());
}

#[test]
fn both_sides_of_a_split_claim_and_the_smaller_learns_of_it() {
    for seed in SEEDS {
        let mut world = settled(4, seed);
        let client = ClientKey::anonymous("obu");
        for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            world.cut(a, b);
        }
        let (small, great) =
            (Claim { epoch: 1, node: world.key(1) }, Claim { epoch: 2, node: world.key(2) });
        let mut entry = RegistryEntry::new(small, false);
        entry.subscribe(small, subscription("small"));
        world.put(1, &client, entry);
        let mut entry = RegistryEntry::new(great, false);
        entry.subscribe(great, subscription("great"));
        world.put(2, &client, entry);
        world.run(20_000);
        world.heal();
        world.run_until(60_000, |world| {
            world.nodes[1].told.iter().any(|told| told.starts_with("superseded obu by 2"))
        });
        world.run_until(60_000, |world| (0..4).all(|node| world.core(node).peers().len() == 3));
        world.run(1_000);
        world.lookup(3, 1, &client);
        world.run(500);
        let entry = world.nodes[3].lookups.pop().unwrap().entry.unwrap();
        assert_eq!(entry.owner_claim(), great);
        assert_eq!(entry.open_fragments().collect::<Vec<_>>(), [small, great], "seed {seed}");
    }
}

#[test]
fn a_put_survives_the_putter_and_reaches_homes_that_were_away() {
    let mut world = settled(6, 4);
    let client = ClientKey::anonymous("obu");
    let homes = world.core(0).homes_of(&client).to_vec();
    let away = (0..6).find(|node| !homes.contains(&world.key(*node))).unwrap();
    for other in (0..6).filter(|other| *other != away) {
        world.cut(away, other);
    }
    let claim = Claim { epoch: 1, node: world.key(away) };
    world.put(away, &client, RegistryEntry::new(claim, false));
    world.run(100);
    world.crash(away);
    world.heal();
    world.restart_in(away, 100);
    world.run(60_000);
    for node in 0..6 {
        let held = world.core(node).registry_entry(&client).is_some();
        assert_eq!(held, homes.contains(&world.key(node)), "node {node}");
    }
}

#[test]
fn ended_sessions_are_forgotten_by_every_home() {
    let mut world = settled(4, 6);
    let claim = Claim { epoch: 1, node: world.key(3) };
    for number in 0..50 {
        let client = ClientKey::anonymous(&format!("obu-{number}"));
        let mut entry = RegistryEntry::new(claim, false);
        world.put(3, &client, entry.clone());
        world.run(50);
        entry.end();
        world.put(3, &client, entry);
    }
    world.run(2 * u64::try_from(REPAIR_PERIOD.as_millis()).unwrap() + 1_000);
    for node in 0..4 {
        assert_eq!(world.core(node).counters().entries, 0, "node {node}");
    }
}

#[test]
fn two_large_registries_repair_only_what_differs() {
    let mut world = settled(2, 7);
    let claim = Claim { epoch: 1, node: world.key(0) };
    for number in 0..3_000 {
        let client = ClientKey::anonymous(&format!("obu-{number}"));
        world.put(0, &client, RegistryEntry::new(claim, false));
    }
    world.run(2_000);
    world.cut(0, 1);
    for number in 0..40 {
        let client = ClientKey::anonymous(&format!("obu-{}", number * 70));
        let mut entry = RegistryEntry::new(claim, false);
        let node = number % 2;
        entry.claim(claim.superseded_by(world.key(node)), false);
        world.put(node, &client, entry);
    }
    world.run(10_000);
    world.frame_bytes = 0;
    world.heal();
    world.run_until(60_000, |world| {
        (0..40).all(|number| {
            let client = ClientKey::anonymous(&format!("obu-{}", number * 70));
            let of = |node| world.core(node).registry_entry(&client);
            of(0) == of(1) && of(0).unwrap().owner_claim().epoch == 2
        })
    });
    world.run(1_000);
    assert!(world.frame_bytes < 40_000, "{} bytes for 40 of 3,000 entries", world.frame_bytes);
    world.frame_bytes = 0;
    world.run(u64::try_from(REPAIR_PERIOD.as_millis()).unwrap());
    assert!(world.frame_bytes < 4_000, "{} bytes for none", world.frame_bytes);
}

#[test]
fn frames_for_other_protocols_pass_and_protocol_breakers_are_closed() {
    let mut world = settled(3, 1);
    world.send(0, 1, "takeover");
    world.run(100);
    assert_eq!(world.nodes[1].told, [r#"handover b"takeover""#, r#"uplink b"takeover""#]);
    world.inject(0, 2, Bytes::from_static(&[2, 0xff]));
    world.run(100);
    let told = &world.nodes[2].told;
    assert!(told[0].starts_with("closed r: a frame of kind 2 is malformed"), "{told:?}");
    world.run(30_000);
    assert!(!world.core(2).is_linked(world.key(0), LinkKind::Fast), "quarantined");
    world.run(90_000);
    assert!(world.core(2).is_linked(world.key(0), LinkKind::Fast));
    world.inject(0, 2, Bytes::from_static(&[200, 1]));
    world.run(100);
    assert_eq!(world.core(2).counters().frames_unknown, 1);
}

#[test]
fn security_damaged_frames_break_nothing() {
    for seed in 0..60 {
        let mut world = settled(2, seed);
        let claim = Claim { epoch: 1, node: world.key(0) };
        for number in 0..8 {
            world.want(number % 2, &format!("cam/{number}"));
            let client = ClientKey::anonymous(&number.to_string());
            world.put(number % 2, &client, RegistryEntry::new(claim, false));
            world.forward(0, 1, Class::Control, Bytes::from_static(b"message"));
        }
        world.drop_link(0, 1, LinkKind::Fast);
        world.damage = 0.05;
        world.run(20_000);
        world.damage = 0.0;
        world.run(100_000);
        world.run_until(120_000, |world| world.all_up() && world.core(0).peers().len() == 1);
        world.want(0, "after");
        world.run(1_000);
        assert_eq!(world.core(0).peers()[0].route_lag, Some(0), "seed {seed}");
    }
}

#[test]
fn a_join_address_that_does_not_answer_is_reported_now_and_then() {
    let mut world = World::new(1, 1);
    world.crash(0);
    world.run(180_000);
    let told = &world.nodes[1].told;
    assert!((2..=4).contains(&told.len()), "{told:?}");
    assert_eq!(told[0], "join 10.0.0.0:14600 unanswered");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = settled(4, seed);
        for number in 0..20 {
            world.want(number % 4, &format!("a/{number}"));
            world.forward(number % 4, (number + 1) % 4, Class::Control, Bytes::from_static(b"m"));
            world.drop_link(number % 3, 3, LinkKind::Fast);
            world.run(400);
        }
        world.crash(1);
        world.restart_in(1, 500);
        world.run(20_000);
        world.trace
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}

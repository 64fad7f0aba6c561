//! Wills with a delay: those of clients that die come once, those of clients that return in time
//! never.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::StdRng;
use verge_mqtt_proto::QoS;

use super::{Phase, connect_or_wait, settle};
use crate::client::{Client, Testament};
use crate::time::{SOON, millis, now, pause};

/// Will Delay Interval of those that die, in seconds.
const DELAY_SECS: u32 = 1;

/// Of those that return; longer than any run.
const RETURN_SECS: u32 = 3_600;

/// One death in so many milliseconds, on average.
const EVERY_MILLIS: u64 = 60;

/// Lets clients die and return, and receives their wills.
pub(super) fn run(at: SocketAddr, mut rng: StdRng, phase: &Phase) -> String {
    let mut heir = Client::v5("heir");
    let mut is_subscribed = false;
    while !is_subscribed {
        connect_or_wait(&mut heir, at);
        is_subscribed =
            heir.is_connected() && heir.try_subscribe("wills/#", QoS::ExactlyOnce).is_some();
    }
    // By number: those that must come, those that must not, and how often each came. Of a CONNECT
    // that was not answered nobody knows.
    let (mut owed, mut never) = (BTreeSet::new(), BTreeSet::new());
    let mut came: BTreeMap<u64, u32> = BTreeMap::new();
    let mut number = 0;
    while !phase.finishes() {
        number += 1;
        let mut mortal = Client::v5(&format!("mortal-{number}"));
        let returns = rng.random_ratio(1, 3);
        mortal.testament = Some(Testament {
            topic: "wills/of-all".into(),
            text: number.to_string(),
            delay_secs: if returns { RETURN_SECS } else { DELAY_SECS },
        });
        if mortal.try_connect(at).is_ok() {
            mortal.vanish();
            if returns {
                mortal.testament = None;
                pause(millis(rng.random_range(0..EVERY_MILLIS)));
                let deadline = now() + SOON;
                while !mortal.is_connected() {
                    assert!(now() < deadline, "nobody could return");
                    connect_or_wait(&mut mortal, at);
                }
                mortal.vanish();
                never.insert(number);
            } else {
                owed.insert(number);
            }
        }
        connect_or_wait(&mut heir, at);
        inherit(&mut heir, rng.random_range(0..EVERY_MILLIS), &mut came);
    }
    let deadline = now() + SOON;
    while !owed.iter().all(|number| came.contains_key(number)) {
        let missing: Vec<_> = owed.iter().filter(|number| !came.contains_key(number)).collect();
        assert!(now() < deadline, "wills that did not come: {missing:?}");
        connect_or_wait(&mut heir, at);
        inherit(&mut heir, 20, &mut came);
    }
    // What should not come would come now.
    inherit(&mut heir, 500, &mut came);
    settle(&mut heir, at);
    let doubled: Vec<_> = came.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "wills that came again: {doubled:?}");
    let risen: Vec<_> = never.iter().filter(|number| came.contains_key(number)).collect();
    assert!(risen.is_empty(), "wills of clients that had returned: {risen:?}");
    format!("wills: {} of the dead, {} of clients that returned", owed.len(), never.len())
}

fn inherit(heir: &mut Client, span: u64, came: &mut BTreeMap<u64, u32>) {
    heir.work(millis(span.max(1)));
    while let Some(message) = heir.take() {
        let number = message.text().parse().expect("wills are numbers");
        *came.entry(number).or_default() += 1;
    }
}

//! Checks about the place: whose it is, and what it keeps.

use bytes::Bytes;

use super::{Place, commit, get, node, open, put};
use crate::error::StoreError;
use crate::family::Family;
use crate::identity::FORMAT;
use crate::key::{Key, KeyRange, MetaKey};

pub(super) fn new(place: &mut dyn Place) {
    let store = open(place);
    let identity = store.identity();
    assert_eq!((&identity.node_id, identity.log_id, identity.incarnation), (&node(), 7, 1));
    for family in Family::ALL {
        if family != Family::Meta {
            let page = store.scan(family, &KeyRange::all(), 10).expect("a new family scans");
            assert!(page.rows.is_empty() && page.rest.is_none(), "{family} has rows");
        }
    }
    assert_eq!(store.logs().expect("logs are listed"), []);
    let sizes = store.sizes().expect("sizes are known");
    assert!(sizes.iter().map(|size| size.family).eq(Family::ALL), "a size for each family");
}

pub(super) fn boots(place: &mut dyn Place) {
    for incarnation in 1..=3 {
        let store = place.open(&node(), 7 + u64::from(incarnation)).expect("the place opens");
        assert_eq!(store.identity().incarnation, incarnation);
        assert_eq!(store.identity().log_id, 8, "the first opening's");
    }
}

pub(super) fn wrong_node(place: &mut dyn Place) {
    drop(open(place));
    let other = "rsu-2".parse().expect("this is a node id");
    let error = place.open(&other, 9).err().expect("another node is refused");
    assert!(matches!(error, StoreError::WrongNode { .. }), "{error}");
    assert!(!error.to_string().contains('\n'), "one line: {error}");
    assert_eq!(open(place).identity().incarnation, 2, "the refusal counted no boot");
}

pub(super) fn newer_format(place: &mut dyn Place) {
    let store = open(place);
    let newer = (FORMAT + 1).to_be_bytes();
    commit(&*store, |batch| put(batch, Family::Meta, &MetaKey::Format.encode(), &newer));
    drop(store);
    let error = place.open(&node(), 7).err().expect("a newer format is refused");
    let StoreError::NewerVersion { found, known, .. } = &error else { panic!("{error}") };
    assert_eq!((*found, *known), (FORMAT + 1, FORMAT));
    assert!(!error.to_string().contains('\n'), "one line: {error}");
}

pub(super) fn restart(place: &mut dyn Place) {
    let plain = Family::ALL
        .into_iter()
        .filter(|family| !matches!(family, Family::Meta | Family::Forward | Family::Outbox));
    let store = open(place);
    for (at, family) in plain.clone().enumerate() {
        let value = vec![family.number(); 1 + 1_000 * at];
        commit(&*store, |batch| put(batch, family, &[family.number()], &value));
    }
    let outcome = store.commit(&[], true).expect("an empty group syncs");
    assert_eq!(outcome, []);
    drop(store);
    let store = open(place);
    for (at, family) in plain.enumerate() {
        let value = get(&*store, family, &[family.number()]);
        assert_eq!(value, Some(vec![family.number(); 1 + 1_000 * at]), "{family}");
        let page = store.scan(family, &KeyRange::all(), 10).expect("the family scans");
        let keys: Vec<Bytes> = page.rows.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [Bytes::copy_from_slice(&[family.number()])], "{family} alone");
    }
}

//! Whose a data directory is, and which life of its node this is.

use std::path::Path;

use bytes::Bytes;
use verge_model::{Incarnation, NodeId};

use crate::batch::{Batch, Op};
use crate::error::StoreError;
use crate::family::Family;
use crate::key::{Key, MetaKey};

/// The format this version writes, and the newest it reads.
pub const FORMAT: u32 = 2;

/// Whose store this is, and which life of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node_id: NodeId,
    /// Drawn at random when the directory was made: peers see that a node lost its disk, and that
    /// its logs begin at 1 again.
    pub log_id: u64,
    /// How often the directory was opened, this time included. Synced before anyone sees it.
    pub incarnation: Incarnation,
}

/// What opening a directory comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Whose it is.
    pub identity: Identity,
    /// The earlier format whose rows are to be [migrated](crate::migrate), if they are of one.
    pub migrate_from: Option<u32>,
    /// What to commit after that, synced, before the store is used.
    pub batch: Batch,
}

/// Checks whose directory `dir` is and counts the boot. `get` reads rows of `meta`; `new_log_id` is
/// used if the directory is new.
///
/// # Errors
/// [`StoreError::WrongNode`], [`StoreError::NewerVersion`] and [`StoreError::Damaged`], each one
/// line for the operator; the directory is unchanged.
pub fn boot(
    dir: &Path,
    node_id: &NodeId,
    new_log_id: u64,
    get: impl Fn(&[u8]) -> Result<Option<Bytes>, StoreError>,
) -> Result<Boot, StoreError> {
    let damaged = |detail: &str| StoreError::Damaged { dir: dir.into(), detail: detail.into() };
    let read = |key: MetaKey| get(&key.encode());
    let format = read(MetaKey::Format)?;
    let node = read(MetaKey::Node)?;
    let log_id = read(MetaKey::LogId)?;
    let boots = read(MetaKey::Boots)?;
    let migrating = read(MetaKey::Migrating)?;

    let mut batch = Batch::new();
    let mut put = |key: MetaKey, value: &[u8]| {
        let value = Bytes::copy_from_slice(value);
        batch.push(Op::Put { family: Family::Meta, key: key.encode(), value });
    };
    let mut migrate_from = None;
    let identity = match (format, node, log_id, boots) {
        (None, None, None, None) => {
            put(MetaKey::Format, &FORMAT.to_be_bytes());
            put(MetaKey::Node, node_id.as_str().as_bytes());
            put(MetaKey::LogId, &new_log_id.to_be_bytes());
            Identity { node_id: node_id.clone(), log_id: new_log_id, incarnation: 1 }
        }
        (Some(format), node, log_id, boots) => {
            // The format comes first: nothing else may be understood if it is newer.
            let found = u32_of(&format).ok_or_else(|| damaged("unreadable format"))?;
            if found > FORMAT {
                return Err(StoreError::NewerVersion { dir: dir.into(), found, known: FORMAT });
            }
            let from = match migrating {
                Some(from) => u32_of(&from).ok_or_else(|| damaged("unreadable format"))?,
                None => found,
            };
            if from == 0 || from > found {
                return Err(damaged("unreadable format"));
            }
            migrate_from = (from < FORMAT).then_some(from);
            let found: NodeId = node
                .and_then(|node| std::str::from_utf8(&node).ok()?.parse().ok())
                .ok_or_else(|| damaged("unreadable node id"))?;
            if found != *node_id {
                return Err(StoreError::WrongNode {
                    dir: dir.into(),
                    found,
                    wanted: node_id.clone(),
                });
            }
            let log_id = log_id
                .and_then(|log_id| Some(u64::from_be_bytes((*log_id).try_into().ok()?)))
                .ok_or_else(|| damaged("unreadable log id"))?;
            let incarnation = boots
                .and_then(|boots| u32_of(&boots)?.checked_add(1))
                .ok_or_else(|| damaged("unreadable boot counter"))?;
            Identity { node_id: found, log_id, incarnation }
        }
        (None, ..) => return Err(damaged("no format")),
    };
    put(MetaKey::Boots, &identity.incarnation.to_be_bytes());
    Ok(Boot { identity, migrate_from, batch })
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Rows = BTreeMap<Vec<u8>, Bytes>;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn open(rows: &mut Rows, name: &str, log_id: u64) -> Result<Identity, StoreError> {
        let get = |key: &[u8]| Ok(rows.get(key).cloned());
        let Boot { identity, batch, .. } = boot(Path::new("/d"), &node(name), log_id, get)?;
        for op in batch.ops() {
            let Op::Put { key, value, .. } = op else { panic!("boot only puts, not {op:?}") };
            rows.insert(key.to_vec(), value.clone());
        }
        Ok(identity)
    }

    #[test]
    fn boots_are_counted_and_the_log_id_stays() {
        let mut rows = Rows::new();
        for incarnation in 1..=3 {
            let identity = open(&mut rows, "a", 70 + u64::from(incarnation)).unwrap();
            assert_eq!(identity, Identity { node_id: node("a"), log_id: 71, incarnation });
        }
    }

    #[test]
    fn rows_of_an_earlier_format_and_those_on_their_way_are_to_be_migrated() {
        let mut rows = Rows::new();
        open(&mut rows, "a", 1).unwrap();
        let from = |rows: &Rows| {
            let get = |key: &[u8]| Ok(rows.get(key).cloned());
            boot(Path::new("/d"), &node("a"), 2, get).unwrap().migrate_from
        };
        assert_eq!(from(&rows), None);
        for earlier in crate::migrate::STEPS.iter().map(|step| step.to - 1) {
            let bytes = Bytes::copy_from_slice(&earlier.to_be_bytes());
            let mut old = rows.clone();
            old.insert(b"format".to_vec(), bytes.clone());
            assert_eq!(from(&old), Some(earlier));
            let mut half = rows.clone();
            half.insert(b"migrating".to_vec(), bytes);
            assert_eq!(from(&half), Some(earlier), "of the present format by name only");
        }
    }

    #[test]
    fn a_directory_that_is_not_ours_or_not_whole_is_refused_unchanged() {
        let mut good = Rows::new();
        open(&mut good, "a", 1).unwrap();
        let with = |key: &[u8], value: Option<&[u8]>| {
            let mut rows = good.clone();
            match value {
                Some(value) => rows.insert(key.to_vec(), Bytes::copy_from_slice(value)),
                None => rows.remove(key),
            };
            rows
        };
        let table = [
            (with(b"node", Some(b"b")), "belongs to node 'b', not to 'a'"),
            (with(b"format", Some(&(FORMAT + 1).to_be_bytes())), "newer than format"),
            (with(b"format", Some(&[0; 4])), "unreadable format"),
            (with(b"format", Some(&[2])), "unreadable format"),
            (with(b"format", None), "no format"),
            (with(b"node", Some(b"/")), "unreadable node id"),
            (with(b"node", None), "unreadable node id"),
            (with(b"log_id", Some(b"")), "unreadable log id"),
            (with(b"boots", None), "unreadable boot counter"),
            (with(b"boots", Some(&[0xff; 4])), "unreadable boot counter"),
        ];
        for (mut rows, says) in table {
            let before = rows.clone();
            let error = open(&mut rows, "a", 2).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("/d"), "{error}");
            assert!(!error.contains('\n'));
            assert_eq!(rows, before);
        }
    }
}

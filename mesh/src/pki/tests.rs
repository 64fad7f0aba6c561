//! The authority as its users see it: folders and files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Barrier};
use std::thread;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn keys_are_private_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
    init_ca(&ca).unwrap();
    let node: NodeId = "rsu-1".parse().unwrap();
    let issued = issue_node(&ca, &node, Validity::default(), &out).unwrap();
    for key in [&ca.join("ca.key"), &issued.key] {
        assert_eq!(mode(key), 0o600, "{}", key.display());
    }
    assert_eq!(mode(&ca), 0o700);

    let before = fs::read(&issued.key).unwrap();
    assert!(matches!(init_ca(&ca), Err(PkiError::Exists { .. })));
    let again = issue_node(&ca, &node, Validity::default(), &out);
    assert!(matches!(again, Err(PkiError::Exists { .. })));
    assert_eq!(fs::read(&issued.key).unwrap(), before);
    assert_eq!(index::load(&ca.join("index.tsv")).unwrap().len(), 1, "a refusal issues nothing");
}

#[test]
fn a_folder_of_another_authority_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, out) = (dir.path().join("1"), dir.path().join("2"), dir.path().join("out"));
    init_ca(&one).unwrap();
    init_ca(&two).unwrap();
    issue_client(&one, "a", Validity::default(), &out).unwrap();
    let refused = issue_client(&two, "b", Validity::default(), &out).unwrap_err();
    assert!(refused.to_string().contains("ca.pem: exists"), "{refused}");
    let none = issue_client(&dir.path().join("3"), "c", Validity::default(), &out).unwrap_err();
    assert!(none.to_string().contains("`verge pki init`"), "{none}");
}

#[test]
fn servers_are_named_by_dns_names_and_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
    init_ca(&ca).unwrap();
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let good = names(&["rsu-1.example", "127.0.0.1", "::1"]);
    let issued = issue_server(&ca, &good, Validity::days(1), &out).unwrap();
    assert!(issued.cert.ends_with("rsu-1.example.pem"));
    for bad in [&[][..], &["a b"], &["Verge-Mesh"], &["x", "verge-mesh"]] {
        let refused = issue_server(&ca, &names(bad), Validity::days(1), &out);
        assert!(matches!(refused, Err(PkiError::Name { .. })), "{bad:?}");
    }
}

#[test]
fn a_clients_name_may_hold_what_a_file_name_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
    init_ca(&ca).unwrap();
    let issued = issue_client(&ca, "../fleet/7 ü", Validity::days(1), &out).unwrap();
    assert_eq!(issued.cert, out.join("_.._fleet_7__.pem"));
    for bad in ["", "a\tb", &"x".repeat(65)] {
        let refused = issue_client(&ca, bad, Validity::days(1), &out);
        assert!(matches!(refused, Err(PkiError::Name { .. })), "{bad:?}");
    }
}

#[test]
fn a_revoked_certificate_is_in_the_list_once() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
    init_ca(&ca).unwrap();
    let one = issue_client(&ca, "one", Validity::days(1), &out).unwrap();
    issue_client(&ca, "two", Validity::days(1), &out).unwrap();
    let list = revoke(&ca, &one.cert).unwrap();
    assert_eq!(revoke(&ca, &one.cert).unwrap(), list);

    let crls = pem::read_crls(&list).unwrap();
    let (_, crl) = x509_parser::parse_x509_crl(&crls[0]).unwrap();
    let leaf = &pem::read_certs(&one.cert).unwrap()[0];
    let (_, cert) = x509_parser::parse_x509_certificate(leaf).unwrap();
    let serials: Vec<_> = crl.iter_revoked_certificates().map(|c| c.raw_serial()).collect();
    assert_eq!(serials, [cert.raw_serial()]);

    let foreign = dir.path().join("foreign");
    init_ca(&foreign).unwrap();
    let refused = revoke(&foreign, &one.cert);
    assert!(matches!(refused, Err(PkiError::NotIssued { .. })));
}

#[test]
fn certificates_issued_at_once_are_all_in_the_index() {
    const AT_ONCE: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
    init_ca(&ca).unwrap();
    let threads: Vec<_> = (0..AT_ONCE)
        .map(|n| {
            let (ca, out) = (ca.clone(), out.clone());
            thread::spawn(move || issue_client(&ca, &format!("v{n}"), Validity::days(1), &out))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    assert_eq!(index::load(&ca.join("index.tsv")).unwrap().len(), AT_ONCE);
}

#[test]
fn six_starts_at_once_share_one_development_authority() {
    const AT_ONCE: usize = 6;
    let home = tempfile::tempdir().unwrap();
    let barrier = Arc::new(Barrier::new(AT_ONCE));
    let threads: Vec<_> = (0..AT_ONCE)
        .map(|n| {
            let (barrier, home) = (Arc::clone(&barrier), home.path().to_owned());
            thread::spawn(move || {
                barrier.wait();
                dev_identity(&home, &format!("rsu-{n}").parse().unwrap()).unwrap()
            })
        })
        .collect();
    let identities: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let root = |n: usize| identities[n].roots.roots[0].subject_public_key_info.clone();
    assert!((1..AT_ONCE).all(|n| root(n) == root(0)));

    let left: Vec<_> = fs::read_dir(home.path().join(".verge")).unwrap().collect();
    assert_eq!(left.len(), 1, "losers clean up");
    assert_eq!(mode(&home.path().join(".verge/dev-ca")), 0o700);
    assert_eq!(mode(&home.path().join(".verge/dev-ca/ca.key")), 0o600);
}

#[test]
fn security_a_development_key_that_others_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let key = dev_ca(home.path()).unwrap().join("ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(dev_ca(home.path()), Err(PkiError::Shared { .. })));
}

//! A configuration that is read again while clients are connected.

use std::fs;
use std::net::TcpStream;

use verge_mqtt_proto::QoS;

use crate::certificates::Certificates;
use crate::client::Client;
use crate::node::Node;
use crate::ports;
use crate::programs::{Running, refusal_of, run};
use crate::site::Site;
use crate::time::until;

fn ctl_reload(site: &Site, node: &Node) -> std::process::Command {
    site.verge(["ctl", "reload", "--admin", &node.admin.to_string()])
}

/// Whether `verge pub` is served at a URL with this authority and, if any, as this client.
fn publishes(site: &Site, url: &str, authority: &str, client: Option<&Certificates>) -> bool {
    let mut command = site.verge(["pub", "--url", url, "--ca", authority, "-t", "a", "-m", "new"]);
    command.args(["-q", "1"]);
    if let Some(client) = client {
        command.args(["--cert", &client.cert, "--key", &client.key]);
    }
    run(&mut command).status.success()
}

#[test]
fn listeners_come_and_go_and_their_clients_stay() {
    let site = Site::new();
    let (first, second, third) = (ports::free(), ports::free(), ports::free());
    let before = format!(
        "listeners = [\"tcp://{first}\", \"tcp://{second}\", \"ws://{third}/old\"]\n\
         [session]\nqos_max = 2\n"
    );
    let node = site.configured("reloading", first, &before).started();
    let mut stays = Client::v5("stays");
    stays.connect(second);
    stays.subscribe("s", QoS::AtLeastOnce);

    let fourth = ports::free();
    let after = format!(
        "listeners = [\"tcp://{first}\", \"tcp://{fourth}\", \"ws://{third}/new\"]\n\
         [session]\nqos_max = 1\n[auth]\nallow_anonymous = \"never\"\n"
    );
    site.configure("reloading", &after);
    let said = node.ctl(["reload"]);
    for line in [
        format!("tcp://{second}: closed, its clients stay"),
        format!("tcp://{fourth}: opened"),
        format!("ws://{third}/old: closed"),
        format!("ws://{third}/new: opened"),
        format!("tcp://{first}: other limits"),
        "session.qos_max: from the next start on".to_owned(),
    ] {
        assert!(said.contains(&line) || node.log().contains(&line), "{line} is not in {said}");
    }
    until("the port is free", || TcpStream::connect(second).is_err());
    let listeners = node.get("/api/v1/node")["listeners"].to_string();
    assert!(listeners.contains(&fourth.to_string()) && !listeners.contains(&second.to_string()));
    stays.publish("s", "still here", QoS::AtLeastOnce);
    assert_eq!(stays.next().text(), "still here");
    // No credentials, no connection: at the kept listener and at the new one.
    for addr in [first, fourth] {
        let mut client = Client::v5("anonymous");
        assert!(client.try_connect(addr).is_err(), "{addr}");
    }

    // SIGHUP does the same.
    site.configure("reloading", &before);
    node.hang_up();
    until("the port is served again", || TcpStream::connect(second).is_ok());
    let mut back = Client::v5("back");
    back.connect(second);
    back.publish("s", "and back", QoS::AtLeastOnce);
    assert_eq!(stays.next().text(), "and back");
}

#[test]
fn a_wrong_file_changes_nothing_and_is_told_in_one_line() {
    let site = Site::new();
    let (mqtt, taken) = (ports::free(), ports::free());
    let good = format!("listeners = [\"tcp://{mqtt}\"]\n");
    let node = site.configured("reloading", mqtt, &good).started();
    let _held = std::net::TcpListener::bind(taken).expect("a port that is free");
    for (wrong, says) in [
        ("listeners = [".to_owned(), "not TOML"),
        ("listenrs = []\n".to_owned(), "unknown key"),
        (format!("listeners = [\"tls://{mqtt}\"]\n"), "set tls.cert"),
        (
            format!("listeners = [\"tls://{mqtt}\"]\n[tls]\ncert = \"/no\"\nkey = \"/no\"\n"),
            "tls.cert: /no",
        ),
        (format!("listeners = [\"tcp://{taken}\"]\n"), "port in use"),
    ] {
        site.configure("reloading", &wrong);
        let said = refusal_of(&mut ctl_reload(&site, &node), 1);
        assert!(said.contains(says), "{wrong}: {said}");
        let mut client = Client::v5("served");
        client.connect(mqtt);
        client.disconnect();
    }
    node.hang_up();
    until("the log tells", || node.log().contains("nothing of the configuration was taken over"));
}

#[test]
fn certificates_and_revocations_are_replaced_for_the_next_handshake() {
    let site = Site::new();
    let old = Certificates::of(&site, &["localhost"]);
    let (tls, wss) = (ports::free().port(), ports::free().port());
    let mqtt = ports::free();
    let (cert, key) = (site.path("node.pem"), site.path("node.key"));
    let put = |from: &Certificates| {
        fs::copy(&from.cert, &cert).expect("a file can be copied");
        fs::copy(&from.key, &key).expect("a file can be copied");
    };
    put(&old);
    let toml = |more: &str| {
        format!(
            "listeners = [\"tcp://{mqtt}\", \"tls://localhost:{tls}\", \"wss://localhost:{wss}\"]\n\
             [tls]\ncert = \"{}\"\nkey = \"{}\"\n{more}",
            cert.display(),
            key.display()
        )
    };
    let node = site.configured("reloading", mqtt, &toml("")).started();
    let (tls, wss) = (format!("tls://localhost:{tls}"), format!("wss://localhost:{wss}"));
    let mut sub = site.verge(["sub", "--url", &wss, "--ca", &old.authority, "-t", "a", "-C", "5"]);
    let sub = Running::spawn(&mut sub);
    until("the subscription is there", || node.list("subscriptions").len() == 1);
    assert!(publishes(&site, &tls, &old.authority, None));

    let new = Certificates::of_another(&site, &["localhost"]);
    put(&new);
    assert!(publishes(&site, &tls, &old.authority, None), "not before it is asked for");
    let said = node.ctl(["reload"]);
    assert!(said.contains("certificates were read again"), "{said}");
    for url in [&tls, &wss] {
        assert!(publishes(&site, url, &new.authority, None), "{url}");
        assert!(!publishes(&site, url, &old.authority, None), "{url}");
    }

    // Now clients need a certificate, and then one of them is revoked.
    let (good, bad) =
        (Certificates::of_client(&site, "good"), Certificates::of_client(&site, "bad"));
    let authority = site.path("ca/ca.pem").display().to_string();
    let demand = format!("client_ca = \"{authority}\"\nclient_certificate = \"required\"\n");
    site.configure("reloading", &toml(&demand));
    node.ctl(["reload"]);
    assert!(!publishes(&site, &tls, &new.authority, None), "without a certificate");
    let served = |client: &Certificates| publishes(&site, &wss, &new.authority, Some(client));
    assert!(served(&bad));
    let ca = site.path("ca").display().to_string();
    crate::programs::output_of(&mut site.verge(["pki", "revoke", &bad.cert, "--ca", &ca]));
    let crl = format!("{demand}client_crl = \"{}\"\n", site.path("ca/crl.pem").display());
    site.configure("reloading", &toml(&crl));
    node.ctl(["reload"]);
    assert!(!served(&bad), "it is revoked");
    // One before, one in between, two with the new certificate, one as `bad`: all that was sent.
    let lines = sub.output();
    assert_eq!(lines.lines().count(), 5, "the first client has seen it all: {lines}");
    assert!(served(&good));
}

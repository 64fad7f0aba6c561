//! What is wrong with how a node is started: one line that names it, and status 2.

use std::net::{TcpListener, UdpSocket};

use crate::programs::{output_of, refusal_of};
use crate::site::Site;

#[test]
fn wrong_settings_are_named_with_what_to_do() {
    let site = Site::new();
    let file = site.path("wrong.toml");
    let path = file.display().to_string();
    let refused = |arg: &[&str]| {
        let mut command = site.verge(["run"]);
        refusal_of(command.args(arg), 2)
    };
    for (args, says) in [
        (&["--set", "sesion.qos_max=1"][..], "session.qos_max"),
        (&["--set", "session.qos_maxx=1"], "session.qos_max"),
        (&["--set", "session.qos_max=3"], "session.qos_max"),
        (&["--set", "nothing"], "section.key=VALUE"),
        (&["--role", "cloud"], "verge-cloud run"),
        (&["--listen", "127.0.0.1:1883"], "tcp://"),
        (&["--position", "north"], "--position"),
        (&["--mesh-listen", "127.0.0.1:1"], "mesh.dev=true"),
        (&["--mesh-listen", "192.0.2.1:1", "--set", "mesh.dev=true"], "192.0.2.1"),
        (&["--config", "/no/such/file"], "/no/such/file"),
        (&["--listen", "tls://127.0.0.1:0"], "tls.cert"),
        (&["--node-id", "a b"], "--node-id"),
    ] {
        let said = refused(args);
        assert!(said.contains(says), "{args:?}: {said}");
    }
    for (text, says) in [
        ("[session]\nkeep_alive_mx = \"5s\"\n", "session.keep_alive_max"),
        ("[sesion]\nqos_max = 1\n", "session"),
        ("[session]\nqos_max = \n", "line 2"),
        ("[[listeners]]\nurll = \"tcp://127.0.0.1:0\"\n", "url"),
    ] {
        std::fs::write(&file, text).expect("a file can be written");
        let said = refused(&["--config", &path]);
        assert!(said.contains(&path) && said.contains(says), "{text}: {said}");
        let checked = refusal_of(&mut site.verge(["check", &path]), 2);
        assert_eq!(checked, said, "check says what run would");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let site = Site::new();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port that is free");
    let tcp = tcp.local_addr().expect("it has an address").to_string();
    let held = UdpSocket::bind("127.0.0.1:0").expect("a port that is free");
    let udp = held.local_addr().expect("it has an address").to_string();
    let held_tcp = TcpListener::bind(&tcp);
    let url = format!("tcp://{tcp}");
    let free = "127.0.0.1:0";
    let run = ["run", "--admin", free, "--listen", "tcp://127.0.0.1:0", "--set", "mesh.dev=true"];
    let refused = |args: &[&str]| {
        let mut command = site.verge(run);
        refusal_of(command.args(args), 2)
    };
    let listener = site.verge(["run", "--admin", free, "--listen", &url]);
    let mut listener = listener;
    let said = refusal_of(&mut listener, 2);
    assert!(said.contains(&url) && said.contains("in use"), "{said}");
    let mut admin = site.verge(["run", "--listen", "tcp://127.0.0.1:0", "--admin", &tcp]);
    let said = refusal_of(&mut admin, 2);
    assert!(said.contains(&tcp) && said.contains("--admin"), "{said}");
    let said = refused(&["--mesh-listen", &udp]);
    assert!(said.contains(&udp), "{said}");
    drop((held, held_tcp));
}

#[test]
fn a_data_directory_belongs_to_one_node_at_a_time() {
    let site = Site::new();
    let mut owner = site.node("owner").started();
    let data = site.path("owner.data").display().to_string();
    let run = |name: &str| {
        let listen = ["--listen", "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let mut command = site.verge(["run", "--node-id", name, "--data-dir", &data]);
        refusal_of(command.args(listen), 2)
    };
    let said = run("owner");
    assert!(said.contains(&data), "while its node runs: {said}");
    owner.terminate();
    let said = run("other");
    assert!(said.contains(&data) && said.contains("owner") && said.contains("other"), "{said}");
    std::fs::write(site.path("file"), "x").expect("a file can be written");
    let file = site.path("file").display().to_string();
    let mut command = site.verge(["run", "--data-dir", &file, "--admin", "127.0.0.1:0"]);
    let said = refusal_of(command.args(["--listen", "tcp://127.0.0.1:0"]), 2);
    assert!(said.contains(&file), "{said}");
}

#[test]
fn a_certificate_must_be_the_nodes_own() {
    let site = Site::new();
    let path = |name: &str| site.path(name).display().to_string();
    let (ca, certs) = (path("ca"), path("certs"));
    output_of(&mut site.verge(["pki", "init", "--ca", &ca]));
    let issue = ["pki", "issue", "node", "rsu-1", "--ca", &ca, "--out", &certs];
    let issued = output_of(&mut site.verge(issue));
    let file = |title: &str| {
        let line = issued.lines().find_map(|line| line.strip_prefix(title));
        line.unwrap_or_else(|| panic!("no {title} in {issued}")).trim().to_owned()
    };
    let (cert, key, ca) = (file("certificate"), file("private key"), file("authority"));
    let run = |name: &str, cert: &str, key: &str, ca: &str| {
        let mut command = site.verge(["run", "--node-id", name, "--data-dir", &path("data")]);
        command.args(["--listen", "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--mesh-listen", "127.0.0.1:0", "--set", &format!("mesh.cert={cert}")]);
        command.args(["--set", &format!("mesh.key={key}"), "--set", &format!("mesh.ca={ca}")]);
        refusal_of(&mut command, 2)
    };
    let said = run("rsu-2", &cert, &key, &ca);
    assert!(said.contains("rsu-1") && said.contains("rsu-2"), "{said}");
    let said = run("rsu-1", "missing.pem", &key, &ca);
    assert!(said.contains("missing.pem"), "{said}");
    let said = run("rsu-1", &cert, &cert, &ca);
    assert!(said.contains(&cert), "a certificate is no key: {said}");
}

#[test]
fn an_admin_api_that_does_not_answer_is_one_line() {
    let site = Site::new();
    let addr = crate::ports::free().to_string();
    let said = refusal_of(&mut site.verge(["ctl", "--admin", &addr, "nodes"]), 1);
    assert!(said.contains(&addr) && said.contains("is the node running"), "{said}");
    let nowhere = format!("tcp://{}", crate::ports::free());
    let said = refusal_of(&mut site.verge(["pub", "--url", &nowhere, "-t", "a", "-m", "x"]), 1);
    assert!(said.contains("127.0.0.1"), "{said}");
}

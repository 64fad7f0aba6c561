use std::time::Duration;

use verge_model::Role;

use super::*;
use crate::config::{ConfigError, check};

fn loaded(settings: &[&str]) -> Result<Loaded, ConfigError> {
    let mut loader = Loader::new();
    for setting in settings {
        loader.set(setting)?;
    }
    loader.finish(Role::Rsu)
}

fn file(text: &str) -> Result<Loaded, ConfigError> {
    let file = tempfile::Builder::new().prefix("x").suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), text).unwrap();
    let mut loader = Loader::new();
    loader.file(file.path())?;
    loader.finish(Role::Rsu)
}

#[test]
fn shipped_files_parse_and_fit_together() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge-configs");
    for (name, role) in
        [("rsu.toml", Role::Rsu), ("regional.toml", Role::Regional), ("cloud.toml", Role::Cloud)]
    {
        let mut loader = Loader::new();
        loader.file(&folder.join(name)).unwrap();
        let loaded = loader.finish(Role::Rsu).unwrap_or_else(|error| panic!("{name}: {error}"));
        check(&loaded.config).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(loaded.config.node.role, role, "{name}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    for (setting, key, nearest) in [
        ("sesion.expiry_max=1d", "sesion.expiry_max", "session.expiry_max"),
        ("mesh.joins=127.0.0.1:1", "mesh.joins", "mesh.join"),
        ("handover.hodl=2s", "handover.hodl", "handover.hold"),
        ("mesh.connect_timeout=1s", "mesh.connect_timeout", "session.connect_timeout"),
        ("sesion.x=1", "sesion.x", "sessions"),
        ("node=x", "node", "node.id"),
    ] {
        let said = loaded(&[setting]).unwrap_err().to_string();
        let wanted = format!("--set: unknown key '{key}': the nearest known key is '{nearest}'");
        assert_eq!(said, wanted);
    }
    let said = file("[[listeners]]\nurl = \"tcp://127.0.0.1:1\"\npromis = \"memory\"\n");
    let said = said.unwrap_err().to_string();
    assert!(said.contains("unknown key 'listeners.promis'"), "{said}");
    assert!(said.ends_with("the nearest known key is 'listeners.promise'"), "{said}");
}

#[test]
fn later_layers_win() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "[handover]\nhold = \"1s\"\nlookup = \"1s\"\nlinger = \"1s\"\n")
        .unwrap();
    let mut loader = Loader::new();
    loader.file(file.path()).unwrap();
    let env = [
        ("VERGE__HANDOVER__LOOKUP", "2s"),
        ("VERGE__HANDOVER__LINGER", "2s"),
        ("VERGE_LOG", "debug"),
        ("HOME", "/root"),
    ];
    loader.env(env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    loader.set("handover.linger=3s").unwrap();
    let Loaded { config, sources } = loader.finish(Role::Rsu).unwrap();
    let secs = |text: &crate::config::text::Text<crate::config::text::Span>| text.0.0.as_secs();
    assert_eq!(secs(&config.handover.hold), 1);
    assert_eq!(secs(&config.handover.lookup), 2);
    assert_eq!(secs(&config.handover.linger), 3);
    assert_eq!(config.handover.unreachable_wait.0.0, Duration::from_secs(2));
    assert_eq!(sources["handover.linger"], Source::Set);
    let env = Source::Env("VERGE__HANDOVER__LOOKUP".to_owned());
    assert_eq!(sources["handover.lookup"], env);
}

#[test]
fn the_role_brings_its_profile_wherever_it_was_set() {
    let rsu = loaded(&[]).unwrap().config;
    let regional = loaded(&["queue.bytes_max=5", "node.role=regional"]).unwrap().config;
    assert!(regional.queue.messages_max > rsu.queue.messages_max);
    assert_eq!(regional.queue.bytes_max, 5);
}

#[test]
fn texts_of_the_command_line_take_the_shape_of_their_key() {
    let config = loaded(&[
        "node.id=7",
        "mesh.dev=true",
        "mesh.join=127.0.0.1:1,127.0.0.1:2",
        "uplink.select=#",
        "session.receive_maximum=10",
        "listeners=tcp://127.0.0.1:1,tcp://127.0.0.1:2",
        "node.position=48.1,11.5",
    ])
    .unwrap()
    .config;
    assert_eq!(config.node.id.as_str(), "7");
    assert!(config.mesh.dev && config.mesh.join.len() == 2);
    assert_eq!(config.uplink.select, ["#"]);
    assert_eq!((config.session.receive_maximum, config.listeners.len()), (10, 2));
    assert_eq!(config.node.position.unwrap().0.lat, 48.1);
    let listed = loaded(&["uplink.select=[\"a,b\", \"c\"]"]).unwrap().config;
    assert_eq!(listed.uplink.select, ["a,b", "c"]);
}

#[test]
fn a_value_that_does_not_fit_is_quoted_with_its_place() {
    for (setting, wanted) in [
        ("mesh.dev=yes", "--set: mesh.dev = \"yes\": "),
        ("handover.hold=2", "'2' is not a duration; write 300ms, 2s, 10m, 1h or 7d"),
        ("node.role=rus", "unknown variant `rus`, expected one of `rsu`, `regional`, `cloud`"),
        ("node.position=91,0", "latitude 91 is not between -90 and 90"),
        ("session.receive_maximum=70000", "session.receive_maximum = \"70000\": "),
        ("listeners=sctp://127.0.0.1:80", "'sctp://127.0.0.1:80' is not a listener"),
        ("admin.listen=nowhere", "admin.listen = \"nowhere\": "),
        ("node.id=-x", "node.id = \"-x\": a node id holds letters"),
        ("storage.promise=fsync", "'fsync' is not a promise"),
        ("storage.profile=disk", "'disk' is not a storage profile"),
        ("storage.reserve_bytes=-1", "storage.reserve_bytes"),
    ] {
        let said = loaded(&[setting]).unwrap_err().to_string();
        assert!(said.contains(wanted) && !said.contains('\n'), "{said}");
    }
    let said = file("[mesh]\njoin = \"127.0.0.1:1\"\n").unwrap_err().to_string();
    assert!(said.contains(".toml: mesh.join = \"127.0.0.1:1\": "), "{said}");
    let said = file("[mesh]\njoin = [\n").unwrap_err().to_string();
    assert!(said.contains(".toml: line ") && said.contains("not TOML"), "{said}");
    assert!(loaded(&["mesh.dev"]).unwrap_err().to_string().starts_with("--set mesh.dev: write"));
}

#[test]
fn a_missing_file_is_named() {
    let said = Loader::new().file(Path::new("/nowhere/rsu.toml")).unwrap_err().to_string();
    assert!(said.starts_with("/nowhere/rsu.toml: cannot be read (No such file"), "{said}");
}

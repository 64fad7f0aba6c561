//! The mesh of a run: a process for each roadside unit, one regional node, and the cloud tier.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use verge_mesh::pki;
use verge_model::{LatLon, Role};

use super::ports::Ports;
use super::process::{Process, Spec, Usage};
use super::relay::Relays;
use super::scenario::TOPIC_ROOT;
use super::trace::Site;
use crate::client::{Address, Scheme};

/// The regional node's name.
pub const REGIONAL: &str = "regional";
/// The cloud tier's name.
pub const CLOUD: &str = "cloud";

/// How long a node may take to start. A run of a few dozen nodes on a small machine is slow.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take to end.
const END_WITHIN: Duration = Duration::from_secs(20);
/// How long the cloud tier may take for an answer.
const QUERY_WITHIN: Duration = Duration::from_secs(60);

/// Where a node is reached by clients.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Its name.
    pub id: String,
    /// Its admin API.
    pub admin: SocketAddr,
    /// Its plain listener.
    pub tcp: Address,
    /// Its TLS listener.
    pub tls: Address,
}

/// The programs of a run.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `verge`: this very program.
    pub verge: PathBuf,
    /// `verge-cloud`, which lies beside it.
    pub cloud: PathBuf,
}

impl Programs {
    /// Finds both.
    ///
    /// # Errors
    /// `verge-cloud` is not there.
    pub fn find() -> Result<Self, String> {
        let verge =
            std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
        let cloud = verge.with_file_name("verge-cloud");
        if !cloud.is_file() {
            return Err(format!(
                "{} is missing; build it with `cargo build --release -p verge-cloud`",
                cloud.display()
            ));
        }
        Ok(Self { verge, cloud })
    }
}

/// The processes of a run. Dropping it kills them.
#[derive(Debug)]
pub struct Cluster {
    /// Roadside units, in the order of the list.
    rsus: Vec<Process>,
    regional: Process,
    cloud: Process,
    /// Where clients reach the roadside units, in the order of the list.
    pub sites: Vec<Reach>,
    /// Where clients reach the regional node.
    pub edge: Reach,
    /// The links between all of them.
    pub relays: Relays,
    /// The authority of the TLS listeners' certificates.
    pub ca: PathBuf,
    lake: PathBuf,
    programs: Programs,
    _ports: Ports,
}

/// Addresses and folders, before anything runs.
struct Draft<'a> {
    dir: &'a Path,
    log: &'a str,
    home: PathBuf,
    ports: Ports,
}

impl Cluster {
    /// Makes addresses, folders and certificates below `dir`; nothing runs yet.
    ///
    /// # Errors
    /// A folder, port or certificate cannot be had.
    pub async fn prepare(
        dir: &Path,
        sites: &[Site],
        programs: Programs,
        log: &str,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", dir.display());
        let home = dir.join("home");
        std::fs::create_dir_all(&home).map_err(failed)?;
        let mut draft = Draft { dir, log, home, ports: Ports::new() };
        let dev_ca = pki::dev_ca(&draft.home).map_err(|error| error.to_string())?;

        let cloud_mesh = draft.ports.take().map_err(failed)?;
        let mut relays = Relays::new(cloud_mesh);
        let regional_mesh = draft.ports.take().map_err(failed)?;
        let join = relays.add(regional_mesh).await.map_err(failed)?;

        let edge = draft.reach(REGIONAL).map_err(failed)?;
        let links = Links { listen: regional_mesh, advertise: join, join: None };
        let place = Place { role: Role::Regional, position: middle(sites) };
        let args = draft.node_args(&edge, &place, &links, &dev_ca)?;
        let regional = draft.process(&programs.verge, &edge, args);

        let (mut rsus, mut reaches) = (Vec::new(), Vec::new());
        for site in sites {
            let reach = draft.reach(site.id.as_str()).map_err(failed)?;
            let listen = draft.ports.take().map_err(failed)?;
            let advertise = relays.add(listen).await.map_err(failed)?;
            let links = Links { listen, advertise, join: Some(join) };
            let place = Place { role: Role::Rsu, position: site.position };
            let args = draft.node_args(&reach, &place, &links, &dev_ca)?;
            rsus.push(draft.process(&programs.verge, &reach, args));
            reaches.push(reach);
        }

        let lake = dir.join("lake");
        let reach = draft.reach(CLOUD).map_err(failed)?;
        let advertise = relays.add(cloud_mesh).await.map_err(failed)?;
        let links = Links { listen: cloud_mesh, advertise, join: Some(join) };
        let data_dir = dir.join(CLOUD);
        let mut args = words(&["run", "--node-id", CLOUD]);
        args.extend(words(&["--data-dir", &data_dir.display().to_string()]));
        args.extend(words(&["--lake", &lake.display().to_string()]));
        args.extend(draft.mesh_args(&reach, &links));
        let cloud = draft.process(&programs.cloud, &reach, args);

        let ca = dev_ca.join("ca.pem");
        let _ports = draft.ports;
        Ok(Self { rsus, regional, cloud, sites: reaches, edge, relays, ca, lake, programs, _ports })
    }

    /// Starts every node and waits until all serve.
    ///
    /// # Errors
    /// A node does not start; the message has the end of its log.
    pub async fn start(&mut self) -> Result<(), String> {
        for node in self.nodes_mut() {
            node.spawn()?;
        }
        for node in self.nodes_mut() {
            node.ready(READY_WITHIN).await?;
        }
        Ok(())
    }

    /// Kills a roadside unit with SIGKILL.
    pub async fn kill(&mut self, site: usize) {
        self.rsus[site].kill().await;
    }

    /// Starts a killed roadside unit again, on its data and its ports.
    ///
    /// # Errors
    /// It does not start; the message has the end of its log.
    pub async fn restart(&mut self, site: usize) -> Result<(), String> {
        self.rsus[site].spawn()?;
        self.rsus[site].ready(READY_WITHIN).await
    }

    /// The name and last words of a node that ended without being asked to.
    pub fn casualty(&mut self) -> Option<String> {
        self.nodes_mut().find_map(Process::death)
    }

    /// Ends every node as an operator would, with SIGTERM; what did not end well.
    pub async fn stop(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        for node in self.nodes_mut() {
            if let Err(complaint) = node.terminate(END_WITHIN).await {
                complaints.push(complaint);
            }
        }
        complaints
    }

    /// Name, admin API and use of every node that speaks MQTT.
    pub fn brokers(&self) -> impl Iterator<Item = (&str, SocketAddr, Usage)> {
        let nodes = self.rsus.iter().chain([&self.regional]);
        nodes.map(|node| (node.name(), node.admin(), node.usage()))
    }

    /// What the cloud tier has used.
    #[must_use]
    pub fn cloud_usage(&self) -> Usage {
        self.cloud.usage()
    }

    /// Asks the cloud tier's tables, by the command an analyst would use; the answer is JSON.
    ///
    /// # Errors
    /// The command fails, in its own words.
    pub async fn query(&self, sql: &str) -> Result<Vec<u8>, String> {
        let answer = Command::new(&self.programs.cloud)
            .args(["query", sql, "--format", "json", "--lake"])
            .arg(&self.lake)
            .kill_on_drop(true)
            .output();
        let answer = timeout(QUERY_WITHIN, answer)
            .await
            .map_err(|_| format!("verge-cloud query: no answer within {QUERY_WITHIN:?}"))?
            .map_err(|error| format!("{}: {error}", self.programs.cloud.display()))?;
        if answer.status.success() {
            return Ok(answer.stdout);
        }
        let words = String::from_utf8_lossy(&answer.stderr);
        Err(words.lines().last().unwrap_or("verge-cloud query failed").to_owned())
    }

    fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        // The regional node first: the others join by it.
        [&mut self.regional].into_iter().chain(&mut self.rsus).chain([&mut self.cloud])
    }
}

/// A node's mesh addresses.
struct Links {
    listen: SocketAddr,
    advertise: SocketAddr,
    join: Option<SocketAddr>,
}

struct Place {
    role: Role,
    position: LatLon,
}

impl Draft<'_> {
    fn reach(&mut self, id: &str) -> io::Result<Reach> {
        let mut address = |scheme| -> io::Result<Address> {
            let address = self.ports.take()?;
            Ok(Address {
                scheme,
                host: address.ip().to_string(),
                port: address.port(),
                path: String::new(),
            })
        };
        let (tcp, tls) = (address(Scheme::Tcp)?, address(Scheme::Tls)?);
        Ok(Reach { id: id.to_owned(), admin: self.ports.take()?, tcp, tls })
    }

    fn process(&self, program: &Path, reach: &Reach, args: Vec<String>) -> Process {
        Process::new(Spec {
            name: reach.id.clone(),
            program: program.to_owned(),
            args,
            home: self.home.clone(),
            logs: self.dir.to_owned(),
            admin: reach.admin,
        })
    }

    /// The arguments of `verge run`.
    fn node_args(
        &self,
        reach: &Reach,
        place: &Place,
        links: &Links,
        dev_ca: &Path,
    ) -> Result<Vec<String>, String> {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certs = self.dir.join("tls").join(&reach.id);
        let issued = pki::issue_server(dev_ca, &names, pki::Validity::default(), &certs)
            .map_err(|error| error.to_string())?;
        let data_dir = self.dir.join(&reach.id);
        let mut args = words(&["run", "--node-id", &reach.id, "--role", place.role.as_str()]);
        args.extend(words(&["--data-dir", &data_dir.display().to_string()]));
        args.extend(words(&["--listen", &reach.tcp.to_string()]));
        args.extend(words(&["--listen", &reach.tls.to_string()]));
        // One word, since a southern latitude begins with a dash.
        args.extend(words(&[&format!("--position={}", place.position), "--region", "demo"]));
        args.extend(self.mesh_args(reach, links));
        args.extend(set("tls.cert", &issued.cert.display().to_string()));
        args.extend(set("tls.key", &issued.key.display().to_string()));
        args.extend(set("node.shards", "1"));
        args.extend(set("uplink.select", &format!("{TOPIC_ROOT}/cam/#")));
        Ok(args)
    }

    /// The arguments that every member of the mesh has.
    fn mesh_args(&self, reach: &Reach, links: &Links) -> Vec<String> {
        let mut args = words(&["--mesh-listen", &links.listen.to_string()]);
        if let Some(join) = links.join {
            args.extend(words(&["--join", &join.to_string()]));
        }
        args.extend(words(&["--admin", &reach.admin.to_string()]));
        args.extend(set("log.level", self.log));
        args.extend(set("mesh.dev", "true"));
        args.extend(set("mesh.advertise", &links.advertise.to_string()));
        args
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn set(key: &str, value: &str) -> [String; 2] {
    ["--set".to_owned(), format!("{key}={value}")]
}

/// The middle of all roadside units, of which there is at least one.
fn middle(sites: &[Site]) -> LatLon {
    let count = sites.len() as f64;
    LatLon {
        lat: sites.iter().map(|site| site.position.lat).sum::<f64>() / count,
        lon: sites.iter().map(|site| site.position.lon).sum::<f64>() / count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn every_node_has_ports_and_a_folder_of_its_own_and_knows_the_regional_s_relay() {
        let dir = tempfile::tempdir().unwrap();
        let site = |name: &str, lat| Site {
            id: name.parse().unwrap(),
            position: LatLon { lat, lon: 11.5 },
        };
        let sites = [site("a", 48.0), site("b", 49.0)];
        let programs = Programs { verge: "verge".into(), cloud: "verge-cloud".into() };
        let cluster = Cluster::prepare(dir.path(), &sites, programs, "info").await.unwrap();
        let mut ports: Vec<u16> = cluster
            .sites
            .iter()
            .chain([&cluster.edge])
            .flat_map(|reach| [reach.tcp.port, reach.tls.port, reach.admin.port()])
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 9);
        assert!(cluster.ca.is_file());
        let names: Vec<&str> = cluster.brokers().map(|(name, _, _)| name).collect();
        assert_eq!(names, ["a", "b", "regional"]);
        assert_eq!(middle(&sites).lat, 48.5);
    }
}

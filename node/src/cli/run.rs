//! `verge run`: its options, and the configuration they give with file and environment.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use verge_model::Role;

use crate::config::{self, ConfigError, Loaded, Loader, Source};

/// Options of `verge run`.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// Configuration; without one, anonymous clients of this machine are served
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of the node in the mesh
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    /// Profile of defaults: rsu or regional
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// Directory of everything the node keeps
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where clients connect: tcp://A:P, tls://A:P, ws://A:P/PATH or wss://A:P/PATH; again for more
    #[arg(long, value_name = "URL")]
    pub listen: Vec<String>,
    /// UDP address for links of other nodes
    #[arg(long, value_name = "A:P")]
    pub mesh_listen: Option<String>,
    /// A node to join the mesh by; again for more
    #[arg(long, value_name = "A:P")]
    pub join: Vec<String>,
    /// Address of the admin HTTP API
    #[arg(long, value_name = "A:P")]
    pub admin: Option<String>,
    /// Where the node stands
    #[arg(long, value_name = "LAT,LON", allow_hyphen_values = true)]
    pub position: Option<String>,
    /// The node's region
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Any setting; again for more
    #[arg(long, value_name = "section.key=VALUE")]
    pub set: Vec<String>,
}

impl RunArgs {
    /// The configuration: file, then environment, then these options.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn load(&self, env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
        let mut loader = Loader::new();
        if let Some(file) = &self.config {
            loader.file(file)?;
        }
        loader.env(env);
        for text in &self.set {
            loader.set(text)?;
        }
        let texts = [
            ("--node-id", "node.id", &self.node_id),
            ("--role", "node.role", &self.role),
            ("--data-dir", "node.data_dir", &self.data_dir),
            ("--mesh-listen", "mesh.listen", &self.mesh_listen),
            ("--admin", "admin.listen", &self.admin),
            ("--position", "node.position", &self.position),
            ("--region", "node.region", &self.region),
        ];
        for (option, key, text) in texts {
            if let Some(text) = text {
                loader.flag(option, key, text.as_str());
            }
        }
        let lists = [("--listen", "listeners", &self.listen), ("--join", "mesh.join", &self.join)];
        for (option, key, items) in lists {
            if !items.is_empty() {
                let items: Vec<Value> = items.iter().map(|item| item.as_str().into()).collect();
                loader.flag(option, key, items);
            }
        }
        let loaded = loader.finish(Role::Rsu)?;
        if loaded.config.node.role == Role::Cloud {
            let place = loaded.sources.get("node.role").map_or(String::new(), Source::to_string);
            return Err(ConfigError::Conflict(format!(
                "{place}: node.role = \"cloud\": run this with `verge-cloud run`"
            )));
        }
        config::check(&loaded.config)?;
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &RunArgs) -> Result<Loaded, ConfigError> {
        args.load(std::iter::once(("VERGE__NODE__REGION".to_owned(), "north".to_owned())))
    }

    #[test]
    fn without_options_a_node_serves_this_machine() {
        let config = RunArgs::default().load(std::iter::empty()).unwrap().config;
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].url.0.to_string(), "tcp://127.0.0.1:1883");
        assert!(!config.mesh.is_on());
        assert_eq!(config.node.data_dir, PathBuf::from("./verge-data"));
        assert!(config.admin.listen.ip().is_loopback());
    }

    #[test]
    fn options_win_over_the_environment_and_name_themselves_in_errors() {
        let mut args = RunArgs {
            region: Some("south".to_owned()),
            listen: vec!["tcp://127.0.0.1:7".to_owned(), "tcp://127.0.0.1:8".to_owned()],
            join: vec!["127.0.0.1:9".to_owned()],
            set: vec!["mesh.dev=true".to_owned(), "node.region=west".to_owned()],
            ..RunArgs::default()
        };
        let config = load(&args).unwrap().config;
        assert_eq!((config.node.region.as_str(), config.listeners.len()), ("south", 2));
        assert!(config.mesh.is_on() && config.mesh.dev);

        args.position = Some("north".to_owned());
        let said = load(&args).unwrap_err().to_string();
        assert!(said.starts_with("--position: node.position = \"north\": "), "{said}");
        args.position = None;
        args.role = Some("cloud".to_owned());
        assert!(load(&args).unwrap_err().to_string().contains("verge-cloud run"));
    }
}

//! The command line.
//!
//! Every failure is one line on standard error. Exit status 2 says that what was asked cannot be
//! done as things are set up, or is no SQL; 1 that it was tried and failed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use verge::config::{self, Config, ConfigError, Loader};
use verge_model::Role;

use crate::backup::BackupCommand;
use crate::query::Format;

/// The cloud tier: what nodes select, in Delta tables, and SQL on them.
#[derive(Debug, Parser)]
#[command(name = "verge-cloud", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `verge-cloud`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a mesh and commit what its nodes select
    Run(RunArgs),
    /// Ask the tables of a lake
    ///
    /// Tables are named after their directories; uplinks without a name go to `messages`.
    /// Payloads are binary and shown in hexadecimal: encode(payload, 'base64') shows them so, and
    /// arrow_cast(payload, 'Utf8') as text. The column json has the text of JSON payloads.
    Query(QueryArgs),
    /// Backups of nodes in an object store
    #[command(subcommand)]
    Backup(BackupCommand),
}

/// Options of `verge-cloud run`.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// Configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of the node in the mesh
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    /// Directory of what the node keeps beside the tables
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Directory of the tables, or s3://bucket/prefix
    #[arg(long, value_name = "DIR")]
    pub lake: Option<String>,
    /// UDP address for links of other nodes
    #[arg(long, value_name = "A:P")]
    pub mesh_listen: Option<String>,
    /// A node to join the mesh by; again for more
    #[arg(long, value_name = "A:P")]
    pub join: Vec<String>,
    /// Address of the admin HTTP API
    #[arg(long, value_name = "A:P")]
    pub admin: Option<String>,
    /// Any setting; again for more
    #[arg(long, value_name = "section.key=VALUE")]
    pub set: Vec<String>,
}

/// Options of `verge-cloud query`.
#[derive(Debug, Clone, Args)]
pub struct QueryArgs {
    /// The query
    #[arg(value_name = "SQL")]
    pub sql: String,
    /// Directory of the tables, or s3://bucket/prefix
    #[arg(long, value_name = "DIR")]
    pub lake: Option<String>,
    /// How the answer is written: table, csv or json
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

impl RunArgs {
    /// The configuration: file, then environment, then these options.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn load(&self, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
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
            ("--data-dir", "node.data_dir", &self.data_dir),
            ("--lake", "lake.dir", &self.lake),
            ("--mesh-listen", "mesh.listen", &self.mesh_listen),
            ("--admin", "admin.listen", &self.admin),
        ];
        for (option, key, text) in texts {
            if let Some(text) = text {
                loader.flag(option, key, text.as_str());
            }
        }
        if !self.join.is_empty() {
            let items: Vec<Value> = self.join.iter().map(|item| item.as_str().into()).collect();
            loader.flag("--join", "mesh.join", items);
        }
        let config = loader.finish(Role::Cloud)?.config;
        if config.node.role != Role::Cloud {
            return Err(ConfigError::Conflict(format!(
                "node.role = \"{}\": run this with `verge run`",
                config.node.role
            )));
        }
        config::check(&config)?;
        Ok(config)
    }
}

/// The lake that `query` asks when none is named: the one `run` writes without options.
///
/// # Errors
/// The environment has a setting that is wrong.
pub fn default_lake(env: impl Iterator<Item = (String, String)>) -> Result<String, ConfigError> {
    let mut loader = Loader::new();
    loader.env(env);
    Ok(loader.finish(Role::Cloud)?.config.lake.dir)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(line: &str) -> Result<Config, String> {
        let words = ["verge-cloud", "run"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).map_err(|e| e.to_string())?.command {
            Command::Run(args) => args.load(std::iter::empty()).map_err(|e| e.to_string()),
            Command::Query(_) | Command::Backup(_) => Err("that is no run".to_owned()),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_of_the_contract_parse() {
        let config =
            run("--lake /l --mesh-listen 127.0.0.1:1 --join 127.0.0.1:2 --join 127.0.0.1:3 \
             --admin 127.0.0.1:4 --set mesh.dev=true --set lake.commit_interval=500ms \
             --set node.id=cloud-7")
            .unwrap();
        assert_eq!(config.lake.dir, "/l");
        assert_eq!(config.mesh.join.len(), 2);
        assert_eq!(config.node.id.as_str(), "cloud-7");
        for line in [
            "query SELECT",
            "query SELECT --lake d --format csv",
            "query SELECT --lake d --format json",
        ] {
            let words = std::iter::once("verge-cloud").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in ["", "query", "query SELECT --format xml", "run --nonsense"] {
            let words = std::iter::once("verge-cloud").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn the_example_configuration_is_one() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../edge-configs/cloud.toml");
        let config = run(&format!("--config {file} --lake elsewhere")).unwrap();
        assert!(config.mesh.is_on());
        assert_eq!(config.lake.dir, "elsewhere", "options win over the file");
    }

    #[test]
    fn wrong_settings_are_one_line_that_names_them() {
        for (line, says) in [
            ("--set lake.dirr=x", "'lake.dir'"),
            ("--set lake.commit_interval=soon", "lake.commit_interval"),
            ("--mesh-listen nowhere", "--mesh-listen"),
            ("--set node.role=rsu --set mesh.dev=true", "verge run"),
            ("--config /no/such/file", "/no/such/file"),
        ] {
            let error = run(line).unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{line}: {error}");
        }
    }
}

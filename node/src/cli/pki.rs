//! `verge pki`: certificates for trials. In production they come from your own PKI.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use verge_mesh::pki::{self, Validity};
use verge_model::NodeId;

use super::Failure;

/// The commands of `verge pki`.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Make a certificate authority
    Init {
        /// Its folder
        #[arg(long, value_name = "DIR", default_value = "verge-ca")]
        ca: PathBuf,
    },
    /// Issue a certificate
    Issue {
        /// Whom it is for: a node of the mesh, a TLS listener, or a client
        kind: Kind,
        /// The node id; the listener's DNS names and addresses; the client's name
        #[arg(required = true)]
        names: Vec<String>,
        /// Folder of the authority
        #[arg(long, value_name = "DIR", default_value = "verge-ca")]
        ca: PathBuf,
        /// Folder for certificate and key
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        /// Days it is valid
        #[arg(long, value_name = "N")]
        days: Option<u32>,
    },
    /// Revoke a certificate and write the list of revocations anew
    Revoke {
        /// The certificate
        cert: PathBuf,
        /// Folder of the authority
        #[arg(long, value_name = "DIR", default_value = "verge-ca")]
        ca: PathBuf,
    },
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A node, in the mesh.
    Node,
    /// A listener, towards clients.
    Server,
    /// A client, towards listeners.
    Client,
}

/// Does what is asked and says where the files are.
///
/// # Errors
/// What cannot be done, in one line.
pub fn run(command: &PkiCommand) -> Result<(), Failure> {
    match command {
        PkiCommand::Init { ca } => {
            pki::init_ca(ca).map_err(Failure::setup)?;
            println!("certificate authority in {}", ca.display());
            println!("next: verge pki issue node NAME --ca {}", ca.display());
        }
        PkiCommand::Issue { kind, names, ca, out, days } => {
            let validity = days.map_or_else(Validity::default, Validity::days);
            let issued = match kind {
                Kind::Node => {
                    let node: NodeId = only(names)?.parse().map_err(Failure::setup)?;
                    pki::issue_node(ca, &node, validity, out)
                }
                Kind::Server => pki::issue_server(ca, names, validity, out),
                Kind::Client => pki::issue_client(ca, only(names)?, validity, out),
            }
            .map_err(Failure::setup)?;
            println!("certificate  {}", issued.cert.display());
            println!("private key  {}", issued.key.display());
            println!("authority    {}", issued.ca.display());
        }
        PkiCommand::Revoke { cert, ca } => {
            let list = pki::revoke(ca, cert).map_err(Failure::setup)?;
            println!("revoked; give nodes the list {}", list.display());
        }
    }
    Ok(())
}

fn only(names: &[String]) -> Result<&str, Failure> {
    match names {
        [name] => Ok(name),
        _ => Err(Failure::setup("one name is wanted: only a server has several")),
    }
}

//! From configuration to links: who this node is to others, and where it listens.
//!
//! Shared with `verge-cloud`, which joins the mesh by the same configuration.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use verge_mesh::pki::{self, PkiError};
use verge_mesh::{IdentityError, IdentityFiles, Lane, LinkKind, LinksConfig, MeshIdentity};
use verge_model::NodeId;

use crate::config::sections::MeshSection;

/// Why a node cannot show who it is: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum IdentitySetupError {
    /// Certificate, key or authority cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The development authority cannot be used.
    #[error("mesh.dev = true: {0}")]
    Dev(#[from] PkiError),
    /// There is no place for the development authority.
    #[error("mesh.dev = true: HOME is not set, so there is no place for the development authority")]
    NoHome,
    /// A file is not set.
    #[error("the mesh needs {0}: see `verge pki`, or set mesh.dev=true for nodes on loopback")]
    NotSet(&'static str),
}

/// What the links of a node need.
///
/// # Errors
/// The node has no certificate that can be used.
pub fn links_config(
    section: &MeshSection,
    node: &NodeId,
) -> Result<LinksConfig, IdentitySetupError> {
    let mut config = LinksConfig::new(listen_addr(section), identity(section, node)?);
    config.dev = section.dev;
    Ok(config)
}

fn identity(section: &MeshSection, node: &NodeId) -> Result<MeshIdentity, IdentitySetupError> {
    if section.dev {
        let home = std::env::home_dir().ok_or(IdentitySetupError::NoHome)?;
        return Ok(pki::dev_identity(&home, node)?);
    }
    let needed = |path: &Option<PathBuf>, key| path.clone().ok_or(IdentitySetupError::NotSet(key));
    let files = IdentityFiles {
        cert: needed(&section.cert, "mesh.cert")?,
        key: needed(&section.key, "mesh.key")?,
        ca: needed(&section.ca, "mesh.ca")?,
        crl: section.crl.clone(),
    };
    Ok(MeshIdentity::load(node, &files)?)
}

/// Where links are listened on: as configured, or at any port of the family that is dialled.
#[must_use]
pub fn listen_addr(section: &MeshSection) -> SocketAddr {
    let dialled = section.join.first().map(SocketAddr::ip);
    section.listen.unwrap_or_else(|| match dialled {
        Some(ip) if ip.is_loopback() => SocketAddr::new(ip, 0),
        Some(ip) if ip.is_ipv6() => (Ipv6Addr::UNSPECIFIED, 0).into(),
        Some(_) | None => (Ipv4Addr::UNSPECIFIED, 0).into(),
    })
}

/// What peers are told: where to reach this node, and whether they can.
#[must_use]
pub fn advertised(section: &MeshSection, bound: SocketAddr) -> (SocketAddr, bool) {
    let addr = section.advertise.unwrap_or(bound);
    (addr, section.dials_only || addr.ip().is_unspecified())
}

/// The core's lane as the links name it.
#[must_use]
pub fn lane_of(lane: verge_mesh_proto::Lane) -> Lane {
    match lane {
        verge_mesh_proto::Lane::Safety => Lane::Safety,
        verge_mesh_proto::Lane::Control => Lane::Control,
        verge_mesh_proto::Lane::Telemetry => Lane::Telemetry,
        verge_mesh_proto::Lane::Bulk => Lane::Bulk,
    }
}

/// The links' lane as the core names it.
#[must_use]
pub fn core_lane(lane: Lane) -> verge_mesh_proto::Lane {
    match lane {
        Lane::Safety => verge_mesh_proto::Lane::Safety,
        Lane::Control => verge_mesh_proto::Lane::Control,
        Lane::Telemetry => verge_mesh_proto::Lane::Telemetry,
        Lane::Bulk => verge_mesh_proto::Lane::Bulk,
    }
}

/// The core's kind of link as the links name it.
#[must_use]
pub fn kind_of(kind: verge_mesh_proto::LinkKind) -> LinkKind {
    match kind {
        verge_mesh_proto::LinkKind::Fast => LinkKind::Fast,
        verge_mesh_proto::LinkKind::Bulk => LinkKind::Bulk,
    }
}

/// The links' kind as the core names it.
#[must_use]
pub fn core_kind(kind: LinkKind) -> verge_mesh_proto::LinkKind {
    match kind {
        LinkKind::Fast => verge_mesh_proto::LinkKind::Fast,
        LinkKind::Bulk => verge_mesh_proto::LinkKind::Bulk,
    }
}

#[cfg(test)]
mod tests {
    use verge_model::Role;

    use super::*;
    use crate::config::profile;

    #[test]
    fn a_node_that_only_joins_listens_where_it_can_be_answered() {
        let config = profile::defaults(Role::Rsu, profile::default_node_id());
        let addr_for = |join: &str| {
            listen_addr(&MeshSection { join: vec![join.parse().unwrap()], ..config.mesh.clone() })
        };
        assert_eq!(addr_for("127.0.0.1:7").to_string(), "127.0.0.1:0");
        assert_eq!(addr_for("[::1]:7").to_string(), "[::1]:0");
        assert_eq!(addr_for("192.0.2.1:7").to_string(), "0.0.0.0:0");
        let (_, dials_only) = advertised(&config.mesh, "0.0.0.0:5".parse().unwrap());
        assert!(dials_only, "an address that says nothing cannot be dialled");
    }
}

//! Certificates of trials, as `verge pki` makes them.

use crate::node::Node;
use crate::programs::output_of;
use crate::site::Site;

/// A certificate, and where it is.
pub(crate) struct Certificates {
    /// The chain.
    pub(crate) cert: String,
    /// Its private key.
    pub(crate) key: String,
    /// Who issued it.
    pub(crate) authority: String,
}

impl Certificates {
    /// A server's certificate, of the site's authority.
    pub(crate) fn of(site: &Site, names: &[&str]) -> Self {
        let ca = site.path("ca");
        if !ca.exists() {
            output_of(&mut site.verge(["pki", "init", "--ca", &ca.display().to_string()]));
        }
        Self::issued(site, "server", names)
    }

    fn issued(site: &Site, kind: &str, names: &[&str]) -> Self {
        let ca = site.path("ca").display().to_string();
        let certs = site.path("certs").display().to_string();
        let mut command = site.verge(["pki", "issue", kind]);
        let said = output_of(command.args(names).args(["--ca", &ca, "--out", &certs]));
        let file = |title: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(title));
            line.unwrap_or_else(|| panic!("no {title} in {said}")).trim().to_owned()
        };
        Self { cert: file("certificate"), key: file("private key"), authority: file("authority") }
    }

    /// The node's certificate is this one.
    pub(crate) fn given_to(&self, node: Node) -> Node {
        node.with([&format!("tls.cert={}", self.cert), &format!("tls.key={}", self.key)])
    }
}

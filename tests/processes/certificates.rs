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
        Self::issued(site, "server", names, "certs")
    }

    /// A client's certificate, of the site's authority.
    pub(crate) fn of_client(site: &Site, name: &str) -> Self {
        Self::issued(site, "client", &[name], "certs")
    }

    /// A server's certificate of another authority, which is made for it.
    pub(crate) fn of_another(site: &Site, names: &[&str]) -> Self {
        let (ours, away) = (site.path("ca"), site.path("ca-away"));
        let moved = |from: &std::path::Path, to: &std::path::Path| {
            std::fs::rename(from, to).expect("an authority can be put elsewhere");
        };
        moved(&ours, &away);
        output_of(&mut site.verge(["pki", "init", "--ca", &ours.display().to_string()]));
        let certificates = Self::issued(site, "server", names, "other-certs");
        let other = site.path("other-ca");
        moved(&ours, &other);
        moved(&away, &ours);
        Self { authority: other.join("ca.pem").display().to_string(), ..certificates }
    }

    fn issued(site: &Site, kind: &str, names: &[&str], folder: &str) -> Self {
        let ca = site.path("ca").display().to_string();
        let certs = site.path(folder).display().to_string();
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

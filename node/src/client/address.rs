//! Where a server listens, as text: `tcp://host:port`, `tls://host:port`, `quic://host:port`,
//! `ws://host:port/path`, `wss://host:port/path`.

use std::fmt;
use std::str::FromStr;

use crate::listener::quic::PORT as PORT_QUIC;

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// QUIC.
    Quic,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Scheme {
    /// Whether the server is asked for a path.
    fn has_path(self) -> bool {
        match self {
            Self::Ws | Self::Wss => true,
            Self::Tcp | Self::Tls | Self::Quic => false,
        }
    }
}

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// How it is reached.
    pub scheme: Scheme,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The TCP port; of QUIC the UDP port.
    pub port: u16,
    /// What is asked for by WebSocket, from its `/`; empty for other schemes.
    pub path: String,
}

/// The port registered for MQTT.
const PORT_TCP: u16 = 1883;
/// The port registered for MQTT over TLS.
const PORT_TLS: u16 = 8883;
/// The ports of HTTP and HTTPS, which are those of WebSocket (RFC 6455, section 3).
const PORT_WS: u16 = 80;
/// See [`PORT_WS`].
const PORT_WSS: u16 = 443;
/// What WebSocket servers of MQTT are commonly asked for.
const PATH: &str = "/mqtt";

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!(
                "'{text}' is not a server address; write tcp://HOST[:PORT], tls://HOST[:PORT], \
                 quic://HOST[:PORT], ws://HOST[:PORT][/PATH] or wss://HOST[:PORT][/PATH]"
            )
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let (scheme, default_port) = match scheme {
            "tcp" | "mqtt" => (Scheme::Tcp, PORT_TCP),
            "tls" | "mqtts" | "ssl" => (Scheme::Tls, PORT_TLS),
            "quic" => (Scheme::Quic, PORT_QUIC),
            "ws" => (Scheme::Ws, PORT_WS),
            "wss" => (Scheme::Wss, PORT_WSS),
            _ => return Err(wanted()),
        };
        let (rest, path) = match rest.find('/') {
            Some(slash) if scheme.has_path() => rest.split_at(slash),
            None if scheme.has_path() => (rest, PATH),
            Some(_) | None => (rest.strip_suffix('/').unwrap_or(rest), ""),
        };
        if path.contains(char::is_whitespace) {
            return Err(wanted());
        }
        let (host, port) = split_port(rest).ok_or_else(wanted)?;
        let port = match port {
            None => default_port,
            Some(digits) => digits.parse().map_err(|_| wanted())?,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(wanted());
        }
        Ok(Self { scheme, host: host.to_owned(), port, path: path.to_owned() })
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if after.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match text.split_once(':') {
        // More than one colon and no brackets: an IPv6 address has swallowed the port.
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Tcp => "tcp",
            Scheme::Tls => "tls",
            Scheme::Quic => "quic",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}{}", self.host, self.port, self.path)
        } else {
            write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_are_written() {
        let cases = [
            ("tcp://127.0.0.1:1884", "tcp://127.0.0.1:1884"),
            ("tls://edge.example", "tls://edge.example:8883"),
            ("mqtt://localhost/", "tcp://localhost:1883"),
            ("localhost:1", "tcp://localhost:1"),
            ("mqtts://[::1]", "tls://[::1]:8883"),
            ("tcp://[::1]:7", "tcp://[::1]:7"),
            ("quic://edge.example", "quic://edge.example:14567"),
            ("ws://localhost", "ws://localhost:80/mqtt"),
            ("wss://[::1]:7/", "wss://[::1]:7/"),
            ("wss://edge.example/a/b", "wss://edge.example:443/a/b"),
        ];
        for (text, wanted) in cases {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(wanted.to_owned()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "tcp://", "ftp://a", "tcp://a:b", "tcp://a:70000", "::1", "tcp://[::1", "a b"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}

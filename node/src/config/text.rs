//! Values that configuration files write as text: durations, listener addresses, choices.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A value read by its [`FromStr`] and written by its [`fmt::Display`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Text<T>(pub T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Text<T>
where
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr> Visitor<'_> for TextVisitor<T>
where
    T::Err: fmt::Display,
{
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
        text.parse().map(Text).map_err(E::custom)
    }
}

/// A length of time: `300ms`, `2s`, `10m`, `1h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Units of [`Span`], longest first, each with its milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("'{text}' is not a duration; write 300ms, 2s, 10m, 1h or 7d");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wanted)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wanted())?;
        let (_, millis) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wanted)?;
        number.checked_mul(millis).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(wanted)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let fits = |unit: &&(&str, u64)| millis.is_multiple_of(u128::from(unit.1));
        let (name, unit) = match millis {
            0 => ("s", 1_000),
            _ => UNITS.iter().find(fits).copied().unwrap_or(("ms", 1)),
        };
        write!(f, "{}{name}", millis / u128::from(unit))
    }
}

/// A length of time, or `never` for one without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanOrNever(pub Option<Duration>);

impl SpanOrNever {
    /// Whole seconds; `None` is without end.
    #[must_use]
    pub fn secs(self) -> Option<u32> {
        self.0.map(|span| u32::try_from(span.as_secs()).unwrap_or(u32::MAX - 1))
    }
}

impl FromStr for SpanOrNever {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        let span: Span = text.parse().map_err(|error: String| format!("{error}, or never"))?;
        Ok(Self(Some(span.0)))
    }
}

impl fmt::Display for SpanOrNever {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(span) => Span(span).fmt(f),
            None => f.write_str("never"),
        }
    }
}

/// How clients' bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain TCP.
    Tcp,
    /// TLS on TCP.
    Tls,
    /// QUIC on UDP.
    Quic,
    /// WebSocket on TCP (RFC 6455).
    Ws,
    /// WebSocket on TLS.
    Wss,
}

impl Scheme {
    /// Every scheme and how it is written.
    const ALL: [(Self, &str); 5] = [
        (Self::Tcp, "tcp"),
        (Self::Tls, "tls"),
        (Self::Quic, "quic"),
        (Self::Ws, "ws"),
        (Self::Wss, "wss"),
    ];

    /// As it is written before `://`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(scheme, _)| *scheme == self).map_or("", |(_, name)| name)
    }

    /// Whether a listener of it needs a certificate.
    #[must_use]
    pub fn has_tls(self) -> bool {
        match self {
            Self::Tls | Self::Wss | Self::Quic => true,
            Self::Tcp | Self::Ws => false,
        }
    }

    /// Whether clients speak WebSocket, and ask for a path.
    #[must_use]
    pub fn has_path(self) -> bool {
        match self {
            Self::Ws | Self::Wss => true,
            Self::Tcp | Self::Tls | Self::Quic => false,
        }
    }
}

/// The path of WebSocket listeners that name none; what clients' libraries ask for by default.
pub const WS_PATH: &str = "/mqtt";

/// Where a node listens for clients: `tcp://127.0.0.1:1883`, `tls://[::]:8883`,
/// `ws://0.0.0.0:8083/mqtt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerUrl {
    /// How bytes travel.
    pub scheme: Scheme,
    /// `host:port`; the host is an address or a name that resolves to one of this machine.
    pub authority: String,
    /// What WebSocket clients ask for, from its `/`; empty for other schemes.
    pub path: String,
}

impl FromStr for ListenerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!(
                "'{text}' is not a listener; write tcp://HOST:PORT, tls://HOST:PORT, \
                 quic://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wanted)?;
        let known = Scheme::ALL.into_iter().find(|(_, name)| *name == scheme);
        let (scheme, _) = known.ok_or_else(wanted)?;
        let (authority, path) = match rest.find('/') {
            Some(slash) if scheme.has_path() => rest.split_at(slash),
            None if scheme.has_path() => (rest, WS_PATH),
            Some(_) | None => (rest, ""),
        };
        let (host, port) = authority.rsplit_once(':').ok_or_else(wanted)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wanted());
        }
        // Anything else has to be escaped where a client asks for it.
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)) {
            return Err(wanted());
        }
        Ok(Self { scheme, authority: authority.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for ListenerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.path)
    }
}

/// A network of addresses, or one address: `10.0.0.0/8`, `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// This machine's own addresses.
    #[must_use]
    pub fn loopback() -> [Self; 2] {
        let v4 = IpNet::new_assert(Ipv4Addr::LOCALHOST.into(), 8);
        [Self(v4.trunc()), Self(IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST)))]
    }

    /// Whether an address belongs to it. IPv4 addresses do in whatever form they come.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse().ok().or_else(|| text.parse().ok().map(|ip: IpAddr| IpNet::from(ip)));
        net.map(Self).ok_or_else(|| {
            format!("'{text}' is not a network; write 10.0.0.0/8, fd00::/8 or an address")
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back_as_written() {
        for text in ["0s", "1ms", "300ms", "2s", "90s", "10m", "1h", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
        for text in ["", "5", "s", "2 s", "-1s", "1.5s", "99999999999999999999d", "2w"] {
            assert!(text.parse::<Span>().unwrap_err().contains("not a duration"), "{text}");
        }
        assert_eq!("never".parse(), Ok(SpanOrNever(None)));
    }

    #[test]
    fn networks_know_their_addresses() {
        let of = |text: &str| text.parse::<Network>().unwrap();
        assert!(of("10.0.0.0/8").contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!of("10.0.0.0/8").contains("11.0.0.1".parse().unwrap()));
        assert!(of("fd00::/8").contains("fd12::1".parse().unwrap()));
        assert_eq!(of("192.0.2.1").to_string(), "192.0.2.1/32");
        let loopback = Network::loopback().map(|network| network.to_string());
        assert_eq!(loopback, ["127.0.0.0/8", "::1/128"]);
        for text in ["", "10.0.0.0/33", "ten", "10.0.0.0/8/8"] {
            assert!(text.parse::<Network>().unwrap_err().contains("not a network"), "{text}");
        }
    }

    #[test]
    fn listeners_name_scheme_host_and_port() {
        for text in
            ["tcp://127.0.0.1:1883", "tls://[::1]:8883", "tcp://localhost:0", "quic://[::]:14567"]
        {
            assert_eq!(text.parse::<ListenerUrl>().unwrap().to_string(), text);
        }
        for text in ["127.0.0.1:1883", "tcp://127.0.0.1", "tcp://:1883", "tcp://h:99999", "x://h:1"]
        {
            assert!(text.parse::<ListenerUrl>().unwrap_err().contains("not a listener"), "{text}");
        }
        for (text, wanted) in [
            ("ws://127.0.0.1:80", "ws://127.0.0.1:80/mqtt"),
            ("wss://[::]:443/broker/mqtt", "wss://[::]:443/broker/mqtt"),
            ("ws://localhost:0/", "ws://localhost:0/"),
        ] {
            assert_eq!(text.parse::<ListenerUrl>().unwrap().to_string(), wanted);
        }
        for text in ["ws://h:1/a b", "ws://h:1/a?b", "tcp://h:1/mqtt", "ws://h/mqtt"] {
            assert!(text.parse::<ListenerUrl>().unwrap_err().contains("not a listener"), "{text}");
        }
    }
}

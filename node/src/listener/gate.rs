//! How many clients may be on their way through a listener: at once, at once from one address, and
//! in a second.
//!
//! Whoever is on the way holds a [`Bench`] until its CONNECT is read. A CONNECT beyond the rate is
//! answered here, so that no shard is burdened with it: 0x9F to a 5.0 client, which is told to try
//! again, and Server unavailable (0x03) to one of before, for which there is no better word.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use verge_broker_core::meter::Bucket;
use verge_model::Millis;
use verge_mqtt_proto::codec::PACKET_BYTES_MAX;
use verge_mqtt_proto::{
    Connack, DecodeLimits, Encode, Packet, ProtocolVersion, ReasonCode, decode,
};

use super::{Seat, Seats};

/// Why a client cannot even say who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoBench {
    /// The listener has as many as it takes.
    #[error("too many clients are connecting")]
    Full,
    /// The address has as many as one may have.
    #[error("too many clients of one address are connecting")]
    AddressFull,
}

impl NoBench {
    /// Its name in metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Full => "connecting_full",
            Self::AddressFull => "connecting_address_full",
        }
    }
}

/// What of a listener's terms the gate goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GateTerms {
    /// Most clients on their way at once.
    pub(super) connecting_max: usize,
    /// Most of them from one address; 0 for any.
    pub(super) per_address_max: usize,
    /// Most CONNECTs in a second; 0 for any.
    pub(super) rate_max: u32,
}

/// The gate of one listener.
#[derive(Debug, Default)]
pub(super) struct Gate {
    benches: Seats,
    /// Clients on their way by address. No more entries than benches, and locked for the time of a
    /// look only, once per connection.
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// The rate it was made for, and its bucket. A lock as above.
    rate: Mutex<Option<(u32, Bucket)>>,
}

impl Gate {
    /// A place for a client on its way.
    pub(super) fn take_bench(&self, terms: &GateTerms) -> Result<Bench, NoBench> {
        let seat = self.benches.take(terms.connecting_max).ok_or(NoBench::Full)?;
        Ok(Bench { _seat: seat, address: None })
    }

    /// Counts a place among those of an address, which the client has shown to be its own.
    pub(super) fn count_address(
        &self,
        bench: &mut Bench,
        peer: IpAddr,
        terms: &GateTerms,
    ) -> Result<(), NoBench> {
        if terms.per_address_max == 0 {
            return Ok(());
        }
        let key = neighbourhood(peer);
        let mut addresses = self.addresses.lock();
        let count = addresses.entry(key).or_default();
        if *count >= terms.per_address_max {
            return Err(NoBench::AddressFull);
        }
        *count += 1;
        bench.address = Some(Address { key, addresses: Arc::clone(&self.addresses) });
        Ok(())
    }

    /// Whether one more CONNECT is within the rate.
    pub(super) fn admits(&self, terms: &GateTerms, now: Millis) -> bool {
        if terms.rate_max == 0 {
            return true;
        }
        let mut rate = self.rate.lock();
        let is_known = rate.as_ref().is_some_and(|(made_for, _)| *made_for == terms.rate_max);
        if !is_known {
            *rate = Some((terms.rate_max, Bucket::new(u64::from(terms.rate_max), 1, now)));
        }
        rate.as_mut().is_some_and(|(_, bucket)| bucket.take(1, now))
    }
}

/// What one subscriber of a network has: a whole IPv4 address, or 64 bits of an IPv6 address, of
/// whose rest it may use any.
fn neighbourhood(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(addr) => addr.into(),
        IpAddr::V6(addr) => {
            let [a, b, c, d, ..] = addr.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// The place of a client that has not said who it is; free again when dropped.
#[derive(Debug)]
pub(super) struct Bench {
    _seat: Seat,
    address: Option<Address>,
}

/// A count of [`Gate::addresses`].
#[derive(Debug)]
struct Address {
    key: IpAddr,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Address {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock();
        if let Some(count) = addresses.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.key);
            }
        }
    }
}

/// The answer to a CONNECT beyond the rate; nothing to what is none, or to a client that takes no
/// packet of this size.
pub(super) fn turned_away(first: &[u8], limits: &DecodeLimits) -> BytesMut {
    let mut out = BytesMut::new();
    let Ok(Some((Packet::Connect(connect), _))) = decode(first, ProtocolVersion::V5, limits) else {
        return out;
    };
    let mut connack = Connack::refused(ReasonCode::ConnectionRateExceeded);
    connack.properties.reason_string = Some("too many clients come at once; try again later");
    let limit = connect.properties.maximum_packet_size;
    let limit = limit.and_then(|max| usize::try_from(max).ok()).unwrap_or(PACKET_BYTES_MAX);
    // What is too large is left out [MQTT-3.1.2-24].
    let _ = connack.encode_within(connect.version, limit, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: GateTerms = GateTerms { connecting_max: 3, per_address_max: 2, rate_max: 0 };

    #[test]
    fn security_an_address_has_its_share_of_the_benches_and_gives_them_back() {
        let gate = Gate::default();
        let take = |peer: IpAddr| {
            let mut bench = gate.take_bench(&TERMS)?;
            gate.count_address(&mut bench, peer, &TERMS).map(|()| bench)
        };
        let (one, other): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        let first = take(one).unwrap();
        let second = take(mapped).unwrap();
        assert_eq!(take(one).unwrap_err(), NoBench::AddressFull);
        let third = take(other).unwrap();
        assert_eq!(take(other).unwrap_err(), NoBench::Full);
        drop((first, third));
        let again = take(one).unwrap();
        assert_eq!(take(one).unwrap_err(), NoBench::AddressFull);
        // Behind a proxy all have one address.
        let behind = gate.take_bench(&TERMS).unwrap();
        drop((second, again, behind));
        assert!(gate.addresses.lock().is_empty(), "nothing is remembered of who is gone");
    }

    #[test]
    fn the_addresses_of_one_ipv6_subscriber_are_one() {
        let near = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"].map(|addr| addr.parse().unwrap());
        assert_eq!(neighbourhood(near[0]), neighbourhood(near[1]));
        assert_ne!(neighbourhood(near[0]), neighbourhood("2001:db8:1:3::1".parse().unwrap()));
    }

    #[test]
    fn a_rate_holds_until_it_is_another() {
        let gate = Gate::default();
        let of = |rate_max| GateTerms { rate_max, ..TERMS };
        for (at, rate_max, admitted) in [
            (0, 2, true),
            (0, 2, true),
            (0, 2, false),
            (500, 2, true),
            (500, 2, false),
            (500, 1, true),
            (500, 1, false),
            (500, 0, true),
        ] {
            assert_eq!(gate.admits(&of(rate_max), Millis(at)), admitted, "{rate_max} at {at}");
        }
    }

    #[test]
    fn each_version_is_told_in_its_words() {
        let limits = DecodeLimits::default();
        let v4 = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c";
        assert_eq!(turned_away(v4, &limits)[..], b"\x20\x02\0\x03"[..]);
        let v5 = b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01c";
        let out = turned_away(v5, &limits);
        assert_eq!(out[2..4], [0, 0x9F], "0x9F Connection rate exceeded (3.2.2.2)");
        assert!(out.ends_with(b"try again later"));
        let small = b"\x10\x13\0\x04MQTT\x05\x02\0\x3c\x05\x27\0\0\0\x05\0\x01c";
        assert_eq!(turned_away(small, &limits)[..], b"\x20\x03\0\x9f\0"[..], "no words fit");
        assert!(turned_away(b"\xc0\0", &limits).is_empty(), "PINGREQ");
    }
}

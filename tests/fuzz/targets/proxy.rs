//! Headers of the PROXY protocol: any bytes are refused or believed, and only a name that the proxy
//! says it verified is a client's.
#![no_main]

#[path = "../../../node/src/listener/proxy/checksum.rs"]
mod checksum;
#[path = "../../../node/src/listener/proxy/header.rs"]
#[allow(dead_code, reason = "what is said of a client is the listener's")]
mod header;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let proxy = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    if let Ok(source) = header::source(input, proxy) {
        assert!(
            source.is_known || source.peer == proxy,
            "an unknown client has the proxy's address"
        );
        assert!(source.subject.is_none_or(|name| !name.is_empty()));
    }
});

//! Scenarios with rumqttc: judge TRANSPORT PORT AUTHORITY
//!
//! A line for each, "ok NAME" or "not ok NAME: why"; the last is "done".

use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport};

/// In which what takes a moment must have happened; long, since a busy machine is no failure.
const SOON: Duration = Duration::from_secs(120);

/// How long the client waits for a connection, in seconds; by itself it would wait five.
const CONNECT_SECS: u64 = 60;

/// Larger than what these scenarios send.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Where the node is, and whom its clients trust.
struct Server {
    transport: String,
    port: u16,
    authority: Vec<u8>,
}

impl Server {
    /// The host as rumqttc wants it: a URL for WebSocket.
    fn host(&self) -> String {
        match &*self.transport {
            scheme @ ("ws" | "wss") => format!("{scheme}://localhost:{}/mqtt", self.port),
            _ => "localhost".to_owned(),
        }
    }

    fn transport(&self) -> Transport {
        let tls =
            TlsConfiguration::Simple { ca: self.authority.clone(), alpn: None, client_auth: None };
        match &*self.transport {
            "tls" => Transport::tls_with_config(tls),
            "ws" => Transport::Ws,
            "wss" => Transport::wss_with_config(tls),
            _ => Transport::Tcp,
        }
    }
}

type Failed = Box<dyn std::error::Error>;

mod v4 {
    use rumqttc::{
        AsyncClient, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Packet, Publish, QoS,
    };

    use super::*;

    const VERSION: &str = "3.1.1";

    fn options(server: &Server, id: &str, keep: bool) -> MqttOptions {
        let mut options = MqttOptions::new(id, server.host(), server.port);
        options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX).set_clean_session(!keep);
        options
    }

    fn patient(options: MqttOptions) -> (AsyncClient, EventLoop) {
        let (client, mut events) = AsyncClient::new(options, 100);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_SECS);
        events.set_network_options(network);
        (client, events)
    }

    fn will(topic: &str) -> LastWill {
        LastWill::new(topic, "gone", QoS::AtLeastOnce, false)
    }

    fn topic(message: &Publish) -> String {
        message.topic.clone()
    }

    include!("cases.rs");
}

mod v5 {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};
    use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

    use super::*;

    const VERSION: &str = "5.0";

    fn options(server: &Server, id: &str, keep: bool) -> MqttOptions {
        let mut options = MqttOptions::new(id, server.host(), server.port);
        let size = u32::try_from(PACKET_BYTES_MAX).ok();
        options.set_session_expiry_interval(keep.then_some(600)).set_max_packet_size(size);
        options.set_clean_start(!keep);
        options
    }

    fn patient(mut options: MqttOptions) -> (AsyncClient, EventLoop) {
        options.set_connection_timeout(CONNECT_SECS);
        AsyncClient::new(options, 100)
    }

    fn will(topic: &str) -> LastWill {
        LastWill::new(topic, "gone", QoS::AtLeastOnce, false, None)
    }

    fn topic(message: &Publish) -> String {
        String::from_utf8_lossy(&message.topic).into_owned()
    }

    include!("cases.rs");

    /// Properties and a shared subscription, which only 5.0 has.
    pub(super) async fn more(server: &Server) {
        told("properties", with_properties(server)).await;
    }

    async fn with_properties(server: &Server) -> Result<(), Failed> {
        use rumqttc::v5::mqttbytes::v5::PublishProperties;
        let (one, mut events) = client(server, "properties", false);
        subscribed(&one, &mut events, "$share/g/rumqttc/p").await?;
        let pair = ("name".to_owned(), "value".to_owned());
        let properties = PublishProperties {
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("answers".to_owned()),
            correlation_data: Some(vec![1, 2].into()),
            user_properties: vec![pair.clone(), pair],
            ..PublishProperties::default()
        };
        let qos = QoS::AtLeastOnce;
        one.publish_with_properties("rumqttc/p", qos, false, "x", properties.clone()).await?;
        let message = next(&mut events).await?;
        let got = message.properties.unwrap_or_default();
        same(&got.content_type, &properties.content_type)?;
        same(&got.response_topic, &properties.response_topic)?;
        same(&got.correlation_data, &properties.correlation_data)?;
        same(&got.user_properties, &properties.user_properties)
    }
}

/// Whether two values are the same.
fn same<T: PartialEq + std::fmt::Debug>(got: &T, wanted: &T) -> Result<(), Failed> {
    if got == wanted { Ok(()) } else { Err(format!("{got:?}, not {wanted:?}").into()) }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let (Some(transport), Some(port), Some(authority)) = (args.next(), args.next(), args.next())
    else {
        return Err("judge TRANSPORT PORT AUTHORITY".into());
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Over plain TCP there is none.
    let authority = std::fs::read(authority).unwrap_or_default();
    let server = Server { transport, port: port.parse()?, authority };
    v4::all(&server).await;
    v5::all(&server).await;
    v5::more(&server).await;
    println!("done");
    Ok(())
}

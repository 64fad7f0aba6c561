//! The HTTP request a WebSocket connection begins with (RFC 6455, section 4.2), and its answers.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::listener::accept::farewell;

/// Largest request: browsers with their cookies stay below, and servers commonly stop here.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Subprotocols of MQTT, the one to prefer first. The standard's is `mqtt` [MQTT-6.0.0-4]; the
/// others are what clients older than it ask for.
const SUBPROTOCOLS: [&str; 3] = ["mqtt", "mqttv3.1.1", "mqttv3.1"];

/// A request that was granted.
#[derive(Debug)]
pub(in crate::listener) struct Granted {
    /// What was read beyond the request: frames.
    pub(in crate::listener) rest: Vec<u8>,
    /// A web page asked that this machine did not serve, so the browser being here says nothing
    /// about who asks.
    pub(in crate::listener) foreign_page: bool,
}

/// Reads the request for `path` and answers it.
///
/// # Errors
/// The stream failed, or the request was refused: the client was told why in one line.
pub(in crate::listener) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    path: &str,
) -> io::Result<Granted> {
    let mut head = Vec::new();
    let answer = loop {
        if head.len() >= HEAD_BYTES_MAX {
            break Err(Refusal::TooLarge);
        }
        let mut room = (&mut *stream).take((HEAD_BYTES_MAX - head.len()) as u64);
        let before = head.len();
        if room.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Who sends a request byte by byte does not have it parsed as often.
        if before > 0 && !head[before..].contains(&b'\n') {
            continue;
        }
        match answer(&head, path) {
            Ok(None) => {}
            Ok(Some(answer)) => break Ok(answer),
            Err(refusal) => break Err(refusal),
        }
    };
    match answer {
        Ok(Answer { size, response, foreign_page }) => {
            stream.write_all(&response).await?;
            stream.flush().await?;
            Ok(Granted { rest: head.split_off(size), foreign_page })
        }
        Err(refusal) => {
            stream.write_all(refusal.response(path).as_bytes()).await?;
            farewell(stream).await;
            Err(io::Error::new(io::ErrorKind::InvalidData, refusal))
        }
    }
}

/// What a request that is granted is told.
#[derive(Debug)]
struct Answer {
    /// Bytes of the request.
    size: usize,
    response: Vec<u8>,
    foreign_page: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the request is larger than {HEAD_BYTES_MAX} bytes")]
    TooLarge,
    #[error("no such path")]
    Path,
    #[error("the client offers no subprotocol of MQTT [MQTT-6.0.0-3]")]
    Subprotocol,
    #[error("another version of WebSocket than 13")]
    Version,
    #[error("not a WebSocket request: {0}")]
    Malformed(String),
}

impl Refusal {
    fn response(&self, path: &str) -> String {
        let (status, more) = match self {
            Self::TooLarge => ("431 Request Header Fields Too Large", ""),
            Self::Path => ("404 Not Found", ""),
            // RFC 6455, 4.4
            Self::Version => ("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n"),
            Self::Subprotocol | Self::Malformed(_) => ("400 Bad Request", ""),
        };
        let line = format!("{self}; this is an MQTT broker, ask for {path} by WebSocket\n");
        let length = line.len();
        format!(
            "HTTP/1.1 {status}\r\n{more}Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{line}"
        )
    }
}

/// The answer to a request, once all of it has come.
fn answer(head: &[u8], path: &str) -> Result<Option<Answer>, Refusal> {
    let Some((size, request)) = Request::try_parse(head).map_err(|error| malformed(&error))? else {
        return Ok(None);
    };
    if request.uri().path() != path {
        return Err(Refusal::Path);
    }
    let mut response = create_response(&request).map_err(|error| malformed(&error))?;
    let offered = request.headers().get_all("Sec-WebSocket-Protocol");
    let offered: Vec<&str> = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let chosen = SUBPROTOCOLS.into_iter().find(|known| offered.contains(known));
    let chosen = HeaderValue::from_static(chosen.ok_or(Refusal::Subprotocol)?);
    response.headers_mut().insert("Sec-WebSocket-Protocol", chosen);
    let origin = request.headers().get("Origin");
    let foreign_page = origin.is_some_and(|origin| !is_of_this_machine(origin.as_bytes()));
    let mut out = Vec::new();
    write_response(&mut out, &response).map_err(|error| malformed(&error))?;
    Ok(Some(Answer { size, response: out, foreign_page }))
}

fn malformed(error: &WsError) -> Refusal {
    if let WsError::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) = error {
        return Refusal::Version;
    }
    // Headers beyond what the parser has room for.
    if let WsError::Capacity(CapacityError::TooManyHeaders) = error {
        return Refusal::TooLarge;
    }
    Refusal::Malformed(error.to_string())
}

/// Whether a page's origin (RFC 6454) is this machine by name or address.
fn is_of_this_machine(origin: &[u8]) -> bool {
    let Ok(origin) = str::from_utf8(origin) else { return false };
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[&str]) -> Vec<u8> {
        let lines = lines.iter().map(|line| format!("{line}\r\n"));
        format!("{}\r\n", lines.collect::<String>()).into_bytes()
    }

    /// The request of RFC 6455, section 1.2, with other lines.
    fn with(changes: &[(&str, &str)]) -> Vec<u8> {
        let mut lines = vec![
            ("GET", "/mqtt HTTP/1.1"),
            ("Host:", "broker.example"),
            ("Upgrade:", "websocket"),
            ("Connection:", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Key:", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version:", "13"),
            ("Sec-WebSocket-Protocol:", "chat, mqtt"),
        ];
        for (name, value) in changes {
            lines.retain(|(known, _)| known != name);
            lines.insert(if *name == "GET" { 0 } else { lines.len() }, (name, value));
        }
        let lines: Vec<String> =
            lines.iter().map(|(name, value)| format!("{name} {value}")).collect();
        request(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn said(head: &[u8]) -> String {
        let answer = answer(head, "/mqtt").unwrap().unwrap();
        assert_eq!(answer.size, head.len());
        String::from_utf8(answer.response).unwrap().to_lowercase()
    }

    #[test]
    fn mqtt_6_0_0_4_the_subprotocol_mqtt_is_chosen() {
        let text = said(&with(&[]));
        assert!(text.starts_with("http/1.1 101 switching protocols\r\n"), "{text}");
        assert!(text.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{text}");
        for (offered, chosen) in [
            ("mqtt", "mqtt"),
            ("mqttv3.1, mqtt", "mqtt"),
            ("mqttv3.1", "mqttv3.1"),
            ("mqttv3.1,mqttv3.1.1", "mqttv3.1.1"),
        ] {
            let text = said(&with(&[("Sec-WebSocket-Protocol:", offered)]));
            assert!(text.contains(&format!("sec-websocket-protocol: {chosen}\r\n")), "{text}");
        }
    }

    #[test]
    fn requests_are_refused_with_a_line_that_says_why() {
        let refusal = |changes: &[(&str, &str)]| answer(&with(changes), "/mqtt").unwrap_err();
        assert_eq!(refusal(&[("GET", "/other HTTP/1.1")]), Refusal::Path);
        assert_eq!(refusal(&[("Sec-WebSocket-Protocol:", "chat")]), Refusal::Subprotocol);
        assert_eq!(refusal(&[("Sec-WebSocket-Version:", "8")]), Refusal::Version);
        for change in [
            ("Upgrade:", "h2c"),
            ("Connection:", "close"),
            ("Sec-WebSocket-Key:", "short"),
            ("GET", "/mqtt HTTP/1.0"),
        ] {
            assert!(matches!(refusal(&[change]), Refusal::Malformed(_)), "{change:?}");
        }
        let text = Refusal::Path.response("/mqtt");
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n"), "{text}");
        let body = text.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body, "no such path; this is an MQTT broker, ask for /mqtt by WebSocket\n");
    }

    #[test]
    fn security_garbage_and_thousands_of_headers_are_no_request() {
        assert!(matches!(answer(b"\x10\x20MQTT", "/mqtt"), Err(Refusal::Malformed(_))));
        let many: Vec<String> = (0..10_000).map(|number| format!("X-{number}: y")).collect();
        let mut lines = vec!["GET /mqtt HTTP/1.1"];
        lines.extend(many.iter().map(String::as_str));
        assert!(matches!(answer(&request(&lines), "/mqtt"), Err(Refusal::TooLarge)));
        let whole = with(&[]);
        for size in 0..whole.len() {
            assert!(answer(&whole[..size], "/mqtt").unwrap().is_none(), "{size} bytes");
        }
    }

    #[test]
    fn security_pages_of_other_machines_are_told_apart() {
        for origin in ["http://localhost:8080", "https://127.0.0.1", "http://[::1]:80"] {
            assert!(is_of_this_machine(origin.as_bytes()), "{origin}");
        }
        for origin in ["https://evil.example", "null", "http://localhost.evil.example:1", "\u{fe}"]
        {
            assert!(!is_of_this_machine(origin.as_bytes()), "{origin}");
        }
        let foreign = answer(&with(&[("Origin:", "https://evil.example")]), "/mqtt");
        assert!(foreign.unwrap().unwrap().foreign_page);
    }
}

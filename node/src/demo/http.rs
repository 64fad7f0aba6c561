//! A GET of a few kilobytes from an admin API.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The body of a GET that is answered with 200.
///
/// # Errors
/// In one line: no answer in time, another status, or no HTTP.
pub async fn get(address: SocketAddr, path: &str, within: Duration) -> Result<Vec<u8>, String> {
    let failed = |detail: String| format!("http://{address}{path}: {detail}");
    let answer = timeout(within, exchange(address, path)).await;
    let answer = answer
        .map_err(|_| failed(format!("no answer within {within:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else { return Err(failed("the answer is not HTTP".to_owned())) };
    let head = String::from_utf8_lossy(&answer[..end]);
    let line = head.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) != Some("200") {
        return Err(failed(format!("answered '{line}'")));
    }
    Ok(answer[end + 4..].to_vec())
}

/// The JSON of a GET.
///
/// # Errors
/// As [`get`], or the body is not the JSON that was wanted.
pub async fn get_json<T: DeserializeOwned>(
    address: SocketAddr,
    path: &str,
    within: Duration,
) -> Result<T, String> {
    let body = get(address, path, within).await?;
    serde_json::from_slice(&body).map_err(|error| format!("http://{address}{path}: {error}"))
}

/// As HTTP/1.0, where an answer ends with its connection and comes in one piece.
async fn exchange(address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    #[tokio::test(flavor = "current_thread")]
    async fn a_body_is_read_to_its_end() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":[1,2]}";
        let found: Result<serde_json::Value, String> =
            ask(answer, |address| async move { get_json(address, "/x", WITHIN).await }).await;
        assert_eq!(found, Ok(serde_json::json!({"a": [1, 2]})));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn other_statuses_and_other_protocols_are_told_in_a_line() {
        let cases = [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "answered 'HTTP/1.1 503"),
            ("HTTP/1.1 200 OK\r\n\r\nnot json", "/x: expected"),
            ("\x20\x02\x00\x00", "not HTTP"),
        ];
        for (answer, wanted) in cases {
            let found: Result<u64, String> =
                ask(answer, |address| async move { get_json(address, "/x", WITHIN).await }).await;
            let error = found.unwrap_err();
            assert!(error.contains(wanted), "{error:?}, not {wanted:?}");
        }
    }

    async fn ask<T, F: Future<Output = T>>(
        answer: &'static str,
        client: impl FnOnce(SocketAddr) -> F,
    ) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).await.unwrap();
            assert!(request[..count].starts_with(b"GET /x HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(client(address), server).0
    }
}

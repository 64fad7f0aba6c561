//! The transport against the library's own client, through pipes of any size.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

const MAX: usize = 1 << 20;

/// A server's end, and the client of it.
async fn pair(pipe_bytes: usize) -> (Ws<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (server, client) = duplex(pipe_bytes);
    let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    (Ws::new(server, MAX), client)
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

fn numbers(count: usize) -> Vec<u8> {
    (0..count).map(|number| (number % 251) as u8).collect()
}

#[test]
fn every_write_is_one_binary_frame_however_small_the_pipe() {
    run(async {
        for pipe_bytes in [3, 64, 1 << 17] {
            let (mut server, mut client) = pair(pipe_bytes).await;
            let sizes = [1, 125, 126, 65_535, 65_536, 100_000];
            let writing = async {
                for size in sizes {
                    server.write_all(&numbers(size)).await.unwrap();
                }
                server.shutdown().await.unwrap();
            };
            let reading = async {
                for size in sizes {
                    let message = client.next().await.unwrap().unwrap();
                    assert_eq!(message, Message::Binary(numbers(size).into()), "{size} bytes");
                }
                let Message::Close(Some(close)) = client.next().await.unwrap().unwrap() else {
                    panic!("no Close with a code")
                };
                assert_eq!(u16::from(close.code), 1_000);
            };
            tokio::join!(writing, reading);
        }
    });
}

#[test]
fn payload_comes_as_it_was_sent_and_pings_are_answered_between_frames() {
    run(async {
        for pipe_bytes in [5, 1 << 17] {
            let (mut server, mut client) = pair(pipe_bytes).await;
            let all = numbers(150_000);
            let sent = all.clone();
            let talking = async {
                for part in sent.chunks(7_000) {
                    client.send(Message::Binary(Bytes::copy_from_slice(part))).await.unwrap();
                    client.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
                    let pong = client.next().await.unwrap().unwrap();
                    assert_eq!(pong, Message::Pong(Bytes::from_static(b"there?")));
                }
                client.close(None).await.unwrap();
                // The answer to the Close, and the end.
                assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
            };
            let listening = async {
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                server.shutdown().await.unwrap();
                assert!(got == all, "{} bytes came", got.len());
            };
            tokio::join!(talking, listening);
        }
    });
}

#[test]
fn security_text_is_refused_with_close_1003_and_nothing_after_it_counts() {
    run(async {
        let (mut server, mut client) = pair(1 << 16).await;
        client.send(Message::Binary(Bytes::from_static(b"good"))).await.unwrap();
        client.send(Message::text("bad")).await.unwrap();
        client.send(Message::Binary(Bytes::from_static(b"late"))).await.unwrap();
        let mut got = Vec::new();
        let error = server.read_to_end(&mut got).await.unwrap_err();
        let violation = error.get_ref().unwrap().downcast_ref::<Violation>();
        // What came with it in one read goes with it, as when a TCP connection is reset.
        assert_eq!((violation, got.len()), (Some(&Violation::Text), 0));
        server.shutdown().await.unwrap();
        let Some(Ok(Message::Close(Some(close)))) = client.next().await else { panic!("no Close") };
        assert_eq!(u16::from(close.code), 1_003);
        assert!(matches!(client.next().await, None | Some(Err(Error::ConnectionClosed))));
        assert!(server.write_all(b"more").await.is_err(), "there is no frame after a Close");
    });
}

#[test]
fn security_pings_without_end_are_owed_one_answer() {
    run(async {
        let (mut server, client) = pair(1 << 20).await;
        let mut stream = client.into_inner();
        // Pings of 125 bytes whose answers nobody reads.
        let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[1; 125]].concat();
        stream.write_all(&ping.repeat(8_000)).await.unwrap();
        stream.write_all(&[0x82, 0x81, 0, 0, 0, 0, 7]).await.unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [7]);
        assert!(server.control.capacity() <= 256, "{}", server.control.capacity());
    });
}

#[test]
fn security_an_idle_connection_costs_less_than_two_hundred_bytes() {
    assert!(size_of::<Ws<()>>() <= 200, "{}", size_of::<Ws<()>>());
}

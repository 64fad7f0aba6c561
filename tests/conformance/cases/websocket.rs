//! Control Packets in WebSocket frames (6). The exchange before them is each transport's own.

use std::io::ErrorKind;
use std::net::TcpStream;

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::bytes::{PINGREQ, publish, subscribe};
use crate::wire::received::{Packet, packet_size};
use crate::wire::stream::tcp;
use crate::wire::stream::websocket::{BINARY, CONTINUATION, FINAL, TEXT, WebSocket};

behaviours! {
    a_text_frame_ends_the_connection { 5: ["6.0.0-1"], 4: ["6.0.0-1"] }
    packets_come_in_binary_frames { 5: ["6.0.0-1"], 4: ["6.0.0-1"] }
    frames_need_not_begin_or_end_with_a_packet { 5: ["6.0.0-2"], 4: ["6.0.0-2"] }
    the_subprotocol_is_mqtt { 5: ["6.0.0-3", "6.0.0-4"], 4: ["6.0.0-3", "6.0.0-4"] }
}

/// A connection whose frames are made by hand.
fn socket(bench: &Bench) -> WebSocket<TcpStream> {
    WebSocket::open(tcp(bench.nodes.open.ways.ws))
}

/// Sends bytes in one binary frame.
fn send(socket: &mut WebSocket<TcpStream>, bytes: &[u8]) {
    socket.send_frame(FINAL | BINARY, bytes).expect("the node reads");
}

/// The next packets, which must come in binary frames.
fn receive(bench: &Bench, socket: &mut WebSocket<TcpStream>, count: usize) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut input = Vec::new();
    while packets.len() < count {
        let (first, payload) = socket.receive_frame().expect("a frame comes");
        assert!([FINAL | BINARY, BINARY, CONTINUATION, FINAL].contains(&first), "{first:x}");
        input.extend(payload);
        while let Some(size) = packet_size(&input).filter(|size| input.len() >= *size) {
            let rest = input.split_off(size);
            packets.push(Packet::read(&input, bench.version));
            input = rest;
        }
    }
    packets
}

fn a_text_frame_ends_the_connection(bench: &Bench) {
    let mut socket = socket(bench);
    send(&mut socket, &bench.connect("text").bytes());
    receive(bench, &mut socket, 1);
    socket.send_frame(FINAL | TEXT, &PINGREQ).expect("the node reads");
    loop {
        match socket.receive_frame() {
            // A close frame, and perhaps a DISCONNECT, may come; an answer may not.
            Ok((_, payload)) => assert_ne!(payload, [0xD0, 0], "PINGRESP"),
            Err(error) => {
                let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                return assert!(ends.contains(&error.kind()), "{error}");
            }
        }
    }
}

fn packets_come_in_binary_frames(bench: &Bench) {
    let topic = bench.topic("frames");
    let mut socket = socket(bench);
    send(&mut socket, &bench.connect("frames").bytes());
    send(&mut socket, &subscribe(bench.version, 1, &[], &[(&topic, 0)]));
    send(&mut socket, &publish(bench.version, 0, &topic, 0, &[], "x".repeat(40_000)));
    let packets = receive(bench, &mut socket, 3);
    // A message may come before the SUBACK of its subscription.
    let is_whole = |packet: &Packet| matches!(packet, Packet::Publish(publish) if publish.payload.len() == 40_000);
    assert!(packets.iter().any(is_whole), "the message comes whole");
}

fn frames_need_not_begin_or_end_with_a_packet(bench: &Bench) {
    let topic = bench.topic("frames");
    let all = [
        bench.connect("frames").bytes(),
        subscribe(bench.version, 1, &[], &[(&topic, 0)]),
        publish(bench.version, 0, &topic, 0, &[], "x"),
        PINGREQ.to_vec(),
    ]
    .concat();
    for size in [1, 7, 13, all.len()] {
        let mut socket = socket(bench);
        for part in all.chunks(size) {
            send(&mut socket, part);
        }
        assert_eq!(receive(bench, &mut socket, 4).len(), 4, "frames of {size} bytes");
    }
    // One message of several frames, some of them empty.
    let mut socket = socket(bench);
    socket.send_frame(BINARY, &all[..5]).expect("the node reads");
    socket.send_frame(CONTINUATION, &[]).expect("the node reads");
    socket.send_frame(FINAL | CONTINUATION, &all[5..]).expect("the node reads");
    assert_eq!(receive(bench, &mut socket, 4).len(), 4);
}

fn the_subprotocol_is_mqtt(bench: &Bench) {
    for offered in ["mqtt", "chat, mqtt", "mqtt, mqttv3.1"] {
        let socket = WebSocket::offering(tcp(bench.nodes.open.ways.ws), offered);
        assert_eq!(socket.protocol.as_deref(), Some("mqtt"), "{offered}");
    }
}

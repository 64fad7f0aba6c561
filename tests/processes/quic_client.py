"""A QUIC client of hand-made MQTT bytes, on aioquic: what the scenarios of quic_*.py are told with.

Nothing here is shared with the broker, so that what they agree on is the protocol.
"""

import asyncio
import ssl
import struct

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

SOON = 20
"""Seconds in which what takes a moment must have happened."""

QUIET = 0.4
"""Seconds in which what must not come would have come."""

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)


def varint(number):
    out = b""
    while True:
        number, digit = divmod(number, 128)
        out += bytes([digit | (0x80 if number else 0)])
        if not number:
            return out


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(value)) + value


def packet(kind, body, flags=0):
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def connect(name, clean=True, keep_alive=60, expiry=0, version=5, will=None):
    """CONNECT; `will` is a topic and a payload."""
    flags = (0x02 if clean else 0) | (0x04 if will else 0)
    body = text("MQTT") + bytes([version, flags]) + struct.pack(">H", keep_alive)
    if version == 5:
        properties = b"\x11" + struct.pack(">I", expiry) if expiry else b""
        body += varint(len(properties)) + properties
    body += text(name)
    if will:
        body += (b"\x00" if version == 5 else b"") + text(will[0]) + text(will[1])
    return packet(CONNECT, body)


def publish(topic, payload, qos=0, id=None, dup=False, retain=False):
    body = text(topic) + (struct.pack(">H", id) if qos else b"") + b"\x00" + payload
    return packet(PUBLISH, body, qos << 1 | (8 if dup else 0) | int(retain))


def subscribe(id, filter, qos=0):
    return packet(SUBSCRIBE, struct.pack(">H", id) + b"\x00" + text(filter) + bytes([qos]), 2)


def unsubscribe(id, filter):
    return packet(UNSUBSCRIBE, struct.pack(">H", id) + b"\x00" + text(filter), 2)


def ack(kind, id):
    return packet(kind, struct.pack(">H", id), 2 if kind == PUBREL else 0)


PING = packet(PINGREQ, b"")
GOODBYE = packet(DISCONNECT, b"")


class Packet:
    """A packet as it came, in the layout of 5.0."""

    def __init__(self, first, body):
        self.kind, self.flags, self.body = first >> 4, first & 15, body
        self.qos, self.dup, self.retain = first >> 1 & 3, bool(first & 8), bool(first & 1)
        self.id = self.reason = None
        if self.kind == PUBLISH:
            size = struct.unpack(">H", body[:2])[0]
            self.topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
            if self.qos:
                self.id, rest = struct.unpack(">H", rest[:2])[0], rest[2:]
            # Property lengths of a byte are all that comes here.
            self.payload = rest[1 + rest[0] :]
        elif self.kind == CONNACK:
            self.present, self.reason = bool(body[0]), body[1]
        elif self.kind == DISCONNECT:
            self.reason = body[0] if body else 0
        elif self.kind in (SUBACK, UNSUBACK):
            # Before 5.0 there is nothing between the identifier and the codes.
            codes = body[2:] if len(body) == 3 else body[3 + body[2] :]
            self.id, self.reason = struct.unpack(">H", body[:2])[0], codes[0]
        elif len(body) >= 2:
            self.id = struct.unpack(">H", body[:2])[0]
            self.reason = body[2] if len(body) > 2 else 0

    def __repr__(self):
        return f"<packet {self.kind} flags {self.flags} {self.body!r}>"


class Client(QuicConnectionProtocol):
    """A connection, its streams, and what came on each."""

    def __init__(self, quic, **more):
        super().__init__(quic, **more)
        self.inputs, self.ends, self.resets, self.stops = {}, set(), {}, {}
        self.closed, self.handshake = None, None
        self.news = asyncio.Event()
        self.dropping = False
        self.sent = []

    def quic_event_received(self, event):
        if isinstance(event, events.StreamDataReceived):
            self.inputs[event.stream_id] = self.inputs.get(event.stream_id, b"") + event.data
            if event.end_stream:
                self.ends.add(event.stream_id)
        elif isinstance(event, events.StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, events.StopSendingReceived):
            self.stops[event.stream_id] = event.error_code
        elif isinstance(event, events.ConnectionTerminated):
            self.closed = event
        elif isinstance(event, events.HandshakeCompleted):
            self.handshake = event
        self.news.set()

    def transmit(self):
        """Sends what is due; keeps a copy, or drops it all."""
        outer = self
        real = self._transport

        class Tap:
            def sendto(self, data, addr):
                if not outer.dropping:
                    outer.sent.append(bytes(data))
                    real.sendto(data, addr)

        self._transport = Tap()
        try:
            super().transmit()
        finally:
            self._transport = real

    async def until(self, what, is_so):
        """Waits until it is so."""
        async with asyncio.timeout(SOON):
            while not is_so():
                assert self.closed is None or what == "closed", f"{what}: {self.closed}"
                self.news.clear()
                await self.news.wait()

    def send(self, stream, *packets, end=False):
        self._quic.send_stream_data(stream, b"".join(packets), end)
        self.transmit()

    def open(self, *packets, uni=False):
        """A new stream, opened by what is sent on it."""
        stream = self._quic.get_next_available_stream_id(is_unidirectional=uni)
        self.send(stream, *packets)
        return stream

    def reset(self, stream, code=0):
        self._quic.reset_stream(stream, code)
        self.transmit()

    def whole(self, stream):
        """The length of the first packet that came, if it is whole, and of its header."""
        data = self.inputs.get(stream, b"")
        length, size = 0, 1
        while True:
            if size >= len(data):
                return None
            length |= (data[size] & 0x7F) << 7 * (size - 1)
            size += 1
            if not data[size - 1] & 0x80:
                break
        return (size + length, size) if len(data) >= size + length else None

    async def next(self, stream=0):
        """The next packet of a stream."""
        await self.until(f"a packet on stream {stream}", lambda: self.whole(stream))
        size, header = self.whole(stream)
        data = self.inputs[stream]
        self.inputs[stream] = data[size:]
        return Packet(data[0], data[header:size])

    async def expect(self, kind, stream=0):
        came = await self.next(stream)
        assert came.kind == kind, f"{came} and not {kind} on stream {stream}"
        return came

    async def is_quiet(self, *streams):
        """Nothing comes on these streams for a while."""
        await asyncio.sleep(QUIET)
        for stream in streams:
            assert not self.inputs.get(stream), f"{self.inputs} on stream {stream}"

    async def connected(self, name, **more):
        """Opens stream 0 and waits for CONNACK; true if there is a session."""
        assert self.open(connect(name, **more)) == 0
        connack = await self.expect(CONNACK)
        assert connack.reason == 0, connack
        return connack.present

    async def subscribed(self, stream, filter, qos=0, id=1):
        self.send(stream, subscribe(id, filter, qos))
        suback = await self.expect(SUBACK, stream)
        assert (suback.id, suback.reason) == (id, qos), suback

    async def is_served(self, stream=0):
        self.send(stream, PING)
        await self.expect(PINGRESP, stream)

    async def is_closed(self, code):
        """The server closes the connection with this code."""
        await self.until("closed", lambda: self.closed is not None)
        assert self.closed.error_code == code, self.closed

    async def ends_well(self):
        """Says DISCONNECT; the server ends the stream, then the connection with code 0."""
        self.send(0, GOODBYE, end=True)
        await self.until("closed", lambda: self.closed is not None)
        assert self.closed.error_code == 0, self.closed

    async def moves(self):
        """Goes on from another port, without a word to the server."""
        old = self._transport
        old.close()
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self._transport.get_extra_info("sockname")[1]

    def vanishes(self):
        """Is gone without a word."""
        self.dropping = True
        self._transport.close()


class Server:
    """Where the server is, and whom its clients trust."""

    host = "127.0.0.1"

    def __init__(self, port, ca):
        self.port, self.ca = port, ca
        self.tickets = []

    def configuration(self, alpn="mqtt", identity=None, ticket=None):
        made = QuicConfiguration(is_client=True, alpn_protocols=[alpn] if alpn else None)
        made.server_name = "localhost"
        made.load_verify_locations(self.ca)
        made.verify_mode = ssl.CERT_REQUIRED
        made.session_ticket = ticket
        if identity:
            made.load_cert_chain(*identity)
        return made

    async def dial(self, complete=True, **more):
        """A client, after its handshake unless it is not to be waited for."""
        quic = QuicConnection(
            configuration=self.configuration(**more),
            session_ticket_handler=self.tickets.append,
        )
        loop = asyncio.get_running_loop()
        _, client = await loop.create_datagram_endpoint(
            lambda: Client(quic), local_addr=(self.host, 0)
        )
        # An IPv6 path is known by four values.
        client.connect((self.host, self.port) + ((0, 0) if ":" in self.host else ()))
        if complete:
            await client.until("handshake", lambda: client.handshake is not None)
        return client

    async def client(self, name, **more):
        """A client that is connected in both senses."""
        client = await self.dial()
        await client.connected(name, **more)
        return client

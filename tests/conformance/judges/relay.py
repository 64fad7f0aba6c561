"""Lets a client of plain TCP reach a listener of another transport, or cuts what it says into bytes.

    relay.py tcp|tls|ws|wss|quic HOST PORT [--ca FILE] [--cut]

Prints the port it listens on. --cut sends every byte of a client in a segment or frame of its own,
up to the first 2,000 of each read, since a large message would take for ever. Over QUIC, which needs
aioquic, each client has a connection of its own and speaks on its first stream.

An end is carried as what it was: a client that says no more ends the stream, and hears the rest of
what the server says; one that breaks its connection breaks the other; so with the server.
"""

import argparse
import asyncio
import os
import ssl

CUT_BYTES_MAX = 2_000

END_SECS = 10
"""Within which a server closes after its client has said its last."""


def frame(opcode, payload):
    """A masked WebSocket frame (RFC 6455, 5.2)."""
    size, mask = len(payload), os.urandom(4)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65_536:
        head = bytes([0x80 | opcode, 0xFE]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0xFF]) + size.to_bytes(8, "big")
    stream = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + mask + mixed.to_bytes(size, "big")


async def upgrade(reader, writer):
    writer.write(
        b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    fields = head.lower().split("\r\n")
    assert " 101 " in fields[0] and "sec-websocket-protocol: mqtt" in fields, head


async def payload(reader):
    """The next bytes out of WebSocket frames; none at the end."""
    while True:
        first, size = await reader.readexactly(2)
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        data = await reader.readexactly(size)
        if first & 15 == 8:
            return b""
        assert first & 15 in (0, 2, 9, 10), f"a frame that is not binary: {first:x}"
        if data and first & 15 in (0, 2):
            return data


async def quic(host, port, ca):
    """A QUIC connection, as reader and writer of its first stream."""
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.quic import events
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import QuicConnection

    class Connection(QuicConnectionProtocol):
        def quic_event_received(self, event):
            readers = self._stream_readers.values()
            broken = isinstance(event, events.ConnectionTerminated) and event.error_code
            if broken or isinstance(event, events.StreamReset):
                for reader in readers:
                    reader.set_exception(ConnectionResetError())
            else:
                super().quic_event_received(event)

        def connection_lost(self, error):
            pass

    # As long as the server's own, so that only MQTT's keep alive ends a client.
    settings = QuicConfiguration(is_client=True, alpn_protocols=["mqtt"], idle_timeout=1800)
    settings.server_name = "localhost"
    settings.load_verify_locations(ca)
    loop = asyncio.get_running_loop()
    made = lambda: Connection(QuicConnection(configuration=settings))
    _, connection = await loop.create_datagram_endpoint(made, local_addr=("127.0.0.1", 0))
    connection.connect((host, port))
    try:
        await connection.wait_connected()
    except ConnectionError:
        connection._transport.close()
        raise
    return connection, *await connection.create_stream()


class Relay:
    def __init__(self, args):
        self.args = args
        self.web = args.transport in ("ws", "wss")
        self.tls = None
        if args.transport in ("tls", "wss"):
            self.tls = ssl.create_default_context(cafile=args.ca)

    async def serve(self):
        server = await asyncio.start_server(self.join, "127.0.0.1", 0, backlog=512)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def dial(self):
        """The connection of QUIC, if it is one, and its reader and writer."""
        host, port = self.args.host, self.args.port
        if self.args.transport == "quic":
            return await quic(host, port, self.args.ca)
        name = "localhost" if self.tls else None
        far = await asyncio.open_connection(host, port, ssl=self.tls, server_hostname=name)
        if self.web:
            await upgrade(*far)
        return None, *far

    async def join(self, reader, writer):
        connection = far = None
        try:
            connection, source, far = await self.dial()
            up = asyncio.ensure_future(self.up(reader, far))
            down = asyncio.ensure_future(self.down(source, writer))
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            if up.done() and up.result():
                await asyncio.wait([down], timeout=END_SECS)
            if up.done() and not up.result() and not connection:
                far.transport.abort()
            if down.done() and not down.result():
                writer.transport.abort()
            for way in (up, down):
                way.cancel()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            if connection:
                connection.close(error_code=1)
                connection._transport.close()
            elif far:
                far.close()

    async def up(self, near, far):
        """Carries what the client says; whether it ended in order."""
        try:
            while data := await near.read(65_536):
                cut = CUT_BYTES_MAX if self.args.cut else 0
                parts = [data[k : k + 1] for k in range(min(cut, len(data)))] + [data[cut:]]
                for part in filter(None, parts):
                    far.write(frame(2, part) if self.web else part)
                    await far.drain()
            if self.web:
                far.write(frame(8, (1000).to_bytes(2, "big")))
            elif self.tls:
                # Nothing of TLS ends one direction only.
                far.close()
            else:
                far.write_eof()
            await far.drain()
            return True
        except OSError:
            return False

    async def down(self, far, near):
        """Carries what the server says; whether it ended in order."""
        try:
            while data := await (payload(far) if self.web else far.read(65_536)):
                near.write(data)
                await near.drain()
            return True
        except (OSError, asyncio.IncompleteReadError):
            return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("transport", choices=["tcp", "tls", "ws", "wss", "quic"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--ca")
    parser.add_argument("--cut", action="store_true")
    asyncio.run(Relay(parser.parse_args()).serve())

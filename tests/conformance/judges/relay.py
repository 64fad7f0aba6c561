"""Lets a client of plain TCP reach a listener of another transport, or cuts what it says into bytes.

    relay.py tcp|tls|ws|wss HOST PORT [--ca FILE] [--cut]

Prints the port it listens on. --cut sends every byte of a client in a segment or frame of its own,
up to the first 2,000 of each read, since a large message would take for ever.
"""

import argparse
import asyncio
import os
import ssl

CUT_BYTES_MAX = 2_000


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

    async def join(self, reader, writer):
        try:
            name = "localhost" if self.tls else None
            far = await asyncio.open_connection(
                self.args.host, self.args.port, ssl=self.tls, server_hostname=name
            )
            if self.web:
                await upgrade(*far)
            ways = self.up(reader, far[1]), self.down(far[0], writer)
            await asyncio.wait(
                [asyncio.ensure_future(way) for way in ways], return_when=asyncio.FIRST_COMPLETED
            )
            far[1].close()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def up(self, near, far):
        try:
            while data := await near.read(65_536):
                cut = CUT_BYTES_MAX if self.args.cut else 0
                parts = [data[k : k + 1] for k in range(min(cut, len(data)))] + [data[cut:]]
                for part in filter(None, parts):
                    far.write(frame(2, part) if self.web else part)
                    await far.drain()
            if self.web:
                far.write(frame(8, (1000).to_bytes(2, "big")))
            await far.drain()
        except OSError:
            pass

    async def down(self, far, near):
        try:
            while data := await (payload(far) if self.web else far.read(65_536)):
                near.write(data)
                await near.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("transport", choices=["tcp", "tls", "ws", "wss"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--ca")
    parser.add_argument("--cut", action="store_true")
    asyncio.run(Relay(parser.parse_args()).serve())

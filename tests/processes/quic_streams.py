"""Several streams: quic_streams.py PORT CA SCENARIO [ARGUMENT...]

The rules are those of the brokers and clients that were first; docs/quic.md has them.
Each scenario ends with "ok", or with the assertion that failed.
"""

import asyncio
import sys

from quic_client import *


async def subscribe_and_publish(server):
    """What a stream subscribes to comes on it, whoever publishes, and is acknowledged on it."""
    client = await server.client("multi")
    one = client.open(subscribe(1, "s/1", 2))
    two = client.open(subscribe(1, "s/2", 1))
    assert (one, two) == (4, 8)
    assert (await client.expect(SUBACK, one)).reason == 2
    assert (await client.expect(SUBACK, two)).reason == 1
    # The same packet identifier is under way on three streams.
    for stream in (0, one, two):
        client.send(stream, publish("s/1", b"for one %d" % stream, 2, 5))
    for stream in (0, two):
        assert (await client.expect(PUBREC, stream)).id == 5
    came = {}
    for _ in range(4):
        packet = await client.next(one)
        came.setdefault(packet.kind, []).append(packet)
    assert [p.id for p in came[PUBREC]] == [5]
    assert {p.payload for p in came[PUBLISH]} == {b"for one 0", b"for one 4", b"for one 8"}
    for stream in (0, one, two):
        client.send(stream, ack(PUBREL, 5))
    for stream in (0, two):
        assert (await client.expect(PUBCOMP, stream)).id == 5
    assert (await client.expect(PUBCOMP, one)).id == 5
    for packet in came[PUBLISH]:
        client.send(one, ack(PUBREC, packet.id))
        assert (await client.expect(PUBREL, one)).id == packet.id
        client.send(one, ack(PUBCOMP, packet.id))
    client.send(0, publish("s/2", b"for two", 1, 6))
    assert (await client.expect(PUBACK)).id == 6
    packet = await client.expect(PUBLISH, two)
    assert packet.payload == b"for two" and packet.qos == 1
    client.send(two, ack(PUBACK, packet.id))
    # No stream of the server's making, and nothing where nobody subscribed.
    await client.is_quiet(0, one, two)
    assert set(client.inputs) == {0, one, two}, client.inputs
    await client.is_served(one)
    await client.ends_well()


async def subscriptions(server):
    """A filter on two streams is two subscriptions; each is the stream's own to end."""
    client = await server.client("dup")
    one, two = client.open(subscribe(1, "d", 0)), client.open(subscribe(1, "d", 0))
    for stream in (one, two):
        await client.expect(SUBACK, stream)
    client.send(0, publish("d", b"twice"))
    for stream in (one, two):
        assert (await client.expect(PUBLISH, stream)).payload == b"twice"
    # Retained messages come to each subscription.
    client.send(0, publish("kept", b"here", retain=True))
    for stream in (one, two):
        client.send(stream, subscribe(2, "kept"))
        kinds = {(await client.next(stream)).kind, (await client.next(stream)).kind}
        assert kinds == {SUBACK, PUBLISH}, kinds
    # Another stream has no such subscription.
    three = client.open(unsubscribe(1, "d"))
    assert (await client.expect(UNSUBACK, three)).reason == 0x11
    client.send(one, unsubscribe(3, "d"))
    assert (await client.expect(UNSUBACK, one)).reason == 0
    client.send(0, publish("d", b"once"))
    assert (await client.expect(PUBLISH, two)).payload == b"once"
    # On the control stream, where it has none of its own, it is every stream's.
    client.send(0, unsubscribe(4, "d"))
    assert (await client.expect(UNSUBACK)).reason == 0
    client.send(0, publish("d", b"never"))
    await client.is_quiet(0, one, two, three)
    # A stream that ends takes its subscriptions with it.
    client.send(two, subscribe(5, "e"))
    await client.expect(SUBACK, two)
    client.send(two, b"", end=True)
    await client.until("the server ends it too", lambda: two in client.ends)
    client.send(0, publish("e", b"never"), publish("kept", b"", retain=True))
    await client.expect(PUBLISH, one)
    await client.is_quiet(0, one, two, three)
    await client.ends_well()


async def faults(server):
    """What a stream does wrong ends it, and not the connection."""
    client = await server.client("faulty")
    keeps = client.open(subscribe(1, "k"))
    await client.expect(SUBACK, keeps)
    wrongs = {
        b"\x3f\x04\x00\x01ab": 0x81,  # QoS 3
        b"\x30\xff\xff\xff\x7f": 0x95,  # larger than the server takes
        connect("again"): 0x82,
        GOODBYE: 0x82,
        packet(PUBLISH, b"\x00\x00\x00x"): None,  # no topic and no alias: some reason
    }
    for data, code in wrongs.items():
        stream = client.open(data)
        await client.until("a reset", lambda: {stream} <= set(client.resets) & set(client.stops))
        assert client.resets[stream] == client.stops[stream]
        assert code is None or client.resets[stream] == code, (data, client.resets[stream])
    # FIN inside a packet.
    stream = client.open(publish("k", b"half")[:4])
    client.send(stream, b"", end=True)
    await client.until("a reset", lambda: stream in client.resets)
    assert client.resets[stream] == 0xBA
    # The client's own reset is answered with its code.
    stream = client.open(subscribe(1, "r"))
    await client.expect(SUBACK, stream)
    client.reset(stream, 77)
    await client.until("a reset", lambda: stream in client.resets)
    assert client.resets[stream] == 77
    await client.is_served()
    client.send(0, publish("k", b"still"), publish("r", b"never"))
    assert (await client.expect(PUBLISH, keeps)).payload == b"still"
    await client.ends_well()


async def unidirectional(server):
    """Publishing on one-way streams: acknowledged on the control stream, in its scope."""
    client = await server.client("uni")
    await client.subscribed(0, "u", 0)
    for number in range(200):
        stream = client.open(publish("u", b"%d" % number, 2, number + 1), uni=True)
        client.send(stream, b"", end=True)
        seen = {}
        for _ in range(2):
            came = await client.next()
            seen[came.kind] = came
        assert seen[PUBLISH].payload == b"%d" % number and seen[PUBREC].id == number + 1
        client.send(0, ack(PUBREL, number + 1))
        assert (await client.expect(PUBCOMP)).id == number + 1
    stream = client.open(subscribe(1, "x"), uni=True)
    await client.until("a stop", lambda: stream in client.stops)
    assert client.stops[stream] == 0x82
    await client.is_served()
    await client.ends_well()


async def before_connack(server):
    """Streams opened before CONNECT wait for CONNACK; those of a refused client come to nothing."""
    client = await server.dial()
    quic = client._quic
    assert quic.get_next_available_stream_id() == 0
    quic.send_stream_data(0, b"")
    for stream in (4, 8, 12, 16):
        quic.send_stream_data(stream, subscribe(1, f"b/{stream}", 0))
    client.transmit()
    await client.is_quiet(4, 8, 12, 16)
    client.send(0, connect("nano"))
    assert (await client.expect(CONNACK)).reason == 0
    for stream in (4, 8, 12, 16):
        assert (await client.expect(SUBACK, stream)).reason == 0
        client.send(16, publish(f"b/{stream}", b"x"))
        assert (await client.expect(PUBLISH, stream)).topic == f"b/{stream}"
    await client.ends_well()


async def keeps_alive(server):
    """Packets on any stream keep the connection alive."""
    client = await server.client("alive", keep_alive=1)
    stream = client.open(PING)
    for _ in range(8):
        await client.expect(PINGRESP, stream)
        await asyncio.sleep(0.5)
        client.send(stream, PING)
    await client.ends_well()


async def detached(server):
    """Subscriptions of streams outlive a lost connection, if the session does."""
    client = await server.client("roamer", clean=False, expiry=300)
    stream = client.open(subscribe(1, "t/a", 1))
    await client.expect(SUBACK, stream)
    # QoS 2, of which the client hears nothing any more.
    client.send(stream, publish("t/b", b"exactly", 2, 9))
    await client.expect(PUBREC, stream)
    client.vanishes()
    watcher = await server.client("watcher")
    await watcher.subscribed(0, "t/b", 2)
    watcher.send(0, publish("t/a", b"meanwhile", 1, 1))
    await watcher.expect(PUBACK)

    client = await server.dial()
    assert await client.connected("roamer", clean=False, expiry=300), "there is a session"
    came = await client.expect(PUBLISH)
    assert came.payload == b"meanwhile"
    client.send(0, ack(PUBACK, came.id))
    # What it repeats on the control stream was routed before.
    client.send(0, publish("t/b", b"exactly", 2, 9, dup=True))
    assert (await client.expect(PUBREC)).id == 9
    client.send(0, ack(PUBREL, 9))
    await client.expect(PUBCOMP)
    await watcher.is_quiet(0)
    # The same filter on a new stream takes the subscription over.
    stream = client.open(subscribe(1, "t/a", 1))
    await client.expect(SUBACK, stream)
    watcher.send(0, publish("t/a", b"later", 1, 2))
    came = await client.expect(PUBLISH, stream)
    client.send(stream, ack(PUBACK, came.id))
    await client.is_quiet(0, stream)
    await client.ends_well()
    await watcher.ends_well()


async def stalled(server):
    """A stream that is not read is given up; the control stream and others go on meanwhile."""
    client = await server.client("lazy")
    lazy, other = client.open(subscribe(1, "l", 0)), client.open(subscribe(1, "o", 0))
    await client.expect(SUBACK, lazy)
    await client.expect(SUBACK, other)
    # Its window is never widened again.
    grants = client._quic._write_stream_limits
    client._quic._write_stream_limits = lambda builder, space, stream: (
        None if stream.stream_id == lazy else grants(builder=builder, space=space, stream=stream)
    )
    for _ in range(60):
        client.send(0, publish("l", b"x" * 60_000))
        await client.is_served()
    client.send(0, publish("o", b"y"))
    assert (await client.expect(PUBLISH, other)).payload == b"y"
    # It must be heard of: one that is out of reach keeps its streams.
    async with asyncio.timeout(2 * SOON):
        while lazy not in client.resets:
            await client.is_served()
            await asyncio.sleep(0.2)
    assert client.resets[lazy] == 0xBC, client.resets
    client.send(0, publish("o", b"z"))
    assert (await client.expect(PUBLISH, other)).payload == b"z"
    await client.ends_well()


async def flood(server):
    """Streams opened and reset as fast as they can be, and packets without end."""
    victim = await server.client("victim")
    await victim.subscribed(0, "v", 0)
    client = await server.client("flood")
    for round in range(200):
        for _ in range(8):
            stream = client.open(subscribe(1, "f")[:3])
            client.reset(stream, 1)
        await client.is_served()
        if round % 50 == 0:
            victim.send(0, publish("v", b"%d" % round))
            assert (await victim.expect(PUBLISH)).payload == b"%d" % round
    # Large packets that never end, on as many streams as are granted.
    streams = [client.open(PING) for _ in range(8)]
    for stream in streams:
        await client.expect(PINGRESP, stream)
    data = publish("f", b"x" * 1_000_000)[:900_000]
    for stream in streams:
        client.send(stream, data)
    await client.until("some are reset", lambda: 0x97 in client.resets.values())
    await victim.is_served()
    await client.is_served()
    await client.ends_well()
    await victim.ends_well()


async def main():
    port, ca, scenario, *arguments = sys.argv[1:]
    await globals()[scenario](Server(int(port), ca), *arguments)
    print("ok")


if __name__ == "__main__":
    asyncio.run(main())

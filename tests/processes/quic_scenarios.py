"""One stream, and how connections begin and end: quic_scenarios.py PORT CA SCENARIO [ARGUMENT...]

Each ends with "ok", or with the assertion that failed.
"""

import asyncio
import sys

from quic_client import *


async def told():
    """Waits to be told to go on; acknowledgements go on meanwhile, else the path seems slow."""
    await asyncio.to_thread(sys.stdin.readline)


async def qos(server):
    """MQTT 5.0 and 3.1.1 on stream 0: QoS 0, 1 and 2 both ways."""
    client = await server.client("single")
    await client.subscribed(0, "q/#", 2)
    client.send(0, publish("q/0", b"zero"), publish("q/1", b"one", 1, 7), publish("q/2", b"two", 2, 8))
    kinds, got = [], {}
    while len(got) < 3 or not {PUBACK, PUBREC} <= set(kinds):
        came = await client.next()
        kinds.append(came.kind)
        if came.kind == PUBLISH:
            got[came.topic] = (came.payload, came.qos, came.id)
    assert {topic: value[:2] for topic, value in got.items()} == {
        "q/0": (b"zero", 0),
        "q/1": (b"one", 1),
        "q/2": (b"two", 2),
    }, got
    client.send(0, ack(PUBREL, 8), ack(PUBACK, got["q/1"][2]), ack(PUBREC, got["q/2"][2]))
    last = {(await client.next()).kind, (await client.next()).kind}
    assert last == {PUBCOMP, PUBREL}, last
    client.send(0, ack(PUBCOMP, got["q/2"][2]))
    await client.ends_well()

    client = await server.dial()
    client.open(connect("old", version=4))
    assert (await client.expect(CONNACK)).reason == 0
    client.send(0, packet(SUBSCRIBE, b"\x00\x01" + text("q/old") + b"\x00", 2))
    await client.expect(SUBACK)
    client.send(0, packet(PUBLISH, text("q/old") + b"plain"))
    assert (await client.expect(PUBLISH)).body.endswith(b"plain")
    await client.ends_well()


async def ends(server):
    """How connections end, and whether the Will is published."""
    watcher = await server.client("watcher")
    await watcher.subscribed(0, "will/#", 1)

    async def will():
        came = await watcher.expect(PUBLISH)
        return came.topic

    # Stream 0 ends, without DISCONNECT: code 1, and the Will.
    client = await server.client("fin", will=("will/fin", b""))
    client.send(0, b"", end=True)
    await client.is_closed(1)
    assert await will() == "will/fin"
    # It is reset.
    client = await server.client("reset", will=("will/reset", b""))
    client.reset(0, 9)
    await client.is_closed(1)
    assert await will() == "will/reset"
    # The whole connection is closed.
    client = await server.client("close", will=("will/close", b""))
    client.close()
    assert await will() == "will/close"
    # DISCONNECT, with the connection closed behind it: no Will.
    client = await server.client("goodbye", will=("will/goodbye", b""))
    client.send(0, GOODBYE)
    client.close()
    # DISCONNECT in order: no Will, and the server's end with code 0.
    client = await server.client("polite", will=("will/polite", b""))
    await client.ends_well()
    await watcher.is_quiet(0)
    # A refused CONNECT: CONNACK arrives before the connection is closed.
    client = await server.dial()
    client.open(connect("strange", version=7))
    assert (await client.expect(CONNACK)).reason == 0x84
    await client.is_closed(0)
    # Taken over: DISCONNECT arrives before.
    first = await server.client("twice")
    second = await server.client("twice")
    assert (await first.expect(DISCONNECT)).reason == 0x8E
    await first.is_closed(0)
    await second.is_served()
    await second.ends_well()
    await watcher.ends_well()


async def going_down(server, name):
    """The server is asked to go down: it says so."""
    client = await server.client(name)
    print("connected", flush=True)
    assert (await client.expect(DISCONNECT)).reason == 0x8B
    await client.is_closed(0)


async def migrates(server):
    """The client's port changes, once and often; the session does not notice."""
    client = await server.client("roamer", expiry=60)
    await client.subscribed(0, "m", 1)
    for step in range(3):
        port = await client.moves()
        client.send(0, publish("m", b"%d" % step, 1, step + 1))
        kinds = {}
        for _ in range(2):
            came = await client.next()
            kinds[came.kind] = came
        assert kinds[PUBLISH].payload == b"%d" % step and PUBACK in kinds, kinds
        client.send(0, ack(PUBACK, kinds[PUBLISH].id))
    await client.is_served()
    print("port", port, flush=True)
    sys.stdin.readline()
    await client.ends_well()


async def moves_too_often(server):
    """More changes of address than a vehicle could cause."""
    client = await server.client("hopper")
    for _ in range(40):
        if client.closed is not None:
            break
        await client.moves()
        client.send(0, PING)
        try:
            await client.expect(PINGRESP)
        except AssertionError:
            pass
    await client.is_closed(1)


async def early(server):
    """0-RTT: CONNACK comes before the handshake is complete; a ticket serves once."""
    first = await server.client("early")
    await first.until("a ticket", lambda: server.tickets)
    await first.is_served()
    await first.ends_well()
    ticket = server.tickets[-1]

    second = await server.dial(complete=False, ticket=ticket)
    second.open(connect("early"), subscribe(1, "early", 0), publish("early", b"x", 1, 1))
    flight = list(second.sent)
    # The server hears nothing more of it, least of all the end of the handshake.
    second.dropping = True
    assert (await second.expect(CONNACK)).reason == 0
    assert (await second.expect(SUBACK)).reason == 0
    second.dropping = False
    kinds = {(await second.next()).kind, (await second.next()).kind}
    assert kinds == {PUBLISH, PUBACK}, kinds
    await second.is_served()
    assert second.handshake.session_resumed and second.handshake.early_data_accepted

    # The same first flight again, from elsewhere: the connection it made is not disturbed.
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", server.port)
    )
    for datagram in flight:
        transport.sendto(datagram)
    await second.is_quiet(0)
    await second.is_served()

    # A used ticket: a full handshake, and what was sent early is sent again.
    third = await server.dial(complete=False, ticket=ticket)
    third.open(connect("late"))
    assert (await third.expect(CONNACK)).reason == 0
    assert not third.handshake.session_resumed and not third.handshake.early_data_accepted
    await third.ends_well()
    await second.ends_well()


async def certificates(server, mode, cert, key, revoked_cert, revoked_key):
    """Client certificates: shown, refused, missing, and remembered by a ticket."""
    good, revoked = (cert, key), (revoked_cert, revoked_key)
    client = await server.dial(identity=good)
    await client.connected("car")
    await client.until("a ticket", lambda: server.tickets)
    print("connected", flush=True)
    sys.stdin.readline()
    ticket = server.tickets[-1]
    await client.ends_well()
    # Early data of a client whose certificate is remembered.
    client = await server.dial(complete=False, ticket=ticket, identity=good)
    client.open(connect("car"))
    client.dropping = True
    assert (await client.expect(CONNACK)).reason == 0
    client.dropping = False
    await client.is_served()
    await client.ends_well()

    client = await server.dial(complete=False, identity=revoked)
    client.open(connect("thief"))
    await client.is_closed(0x12C)  # certificate_revoked
    client = await server.dial(complete=False)
    if mode == "required":
        client.open(connect("nobody"))
        await client.is_closed(0x174)  # certificate_required
    else:
        await client.until("handshake", lambda: client.handshake is not None)
        await client.connected("nobody")
        await client.ends_well()


async def revoked_later(server, cert, key):
    """A ticket is worth no more than the certificate it remembers."""
    client = await server.dial(identity=(cert, key))
    await client.connected("car")
    await client.until("a ticket", lambda: server.tickets)
    print("connected", flush=True)
    sys.stdin.readline()
    # Who is connected stays; who comes back does not come in, early or late.
    await client.is_served()
    late = await server.dial(complete=False, ticket=server.tickets[-1], identity=(cert, key))
    late.open(connect("car"))
    await late.until("closed", lambda: late.closed is not None)
    # In a handshake an application's code is replaced by this one, RFC 9000 section 10.2.3.
    assert late.closed.error_code in (1, 0x0C), late.closed
    assert 0 not in late.inputs, late.inputs
    late = await server.dial(complete=False, identity=(cert, key))
    await late.is_closed(0x12C)  # certificate_revoked
    await client.is_served()
    await client.ends_well()


async def wrong_alpn(server):
    for alpn in ("h3", None):
        client = await server.dial(complete=False, alpn=alpn)
        await client.is_closed(0x178)  # no_application_protocol


async def garbage(server):
    """What is no MQTT on stream 0."""
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\xff\xff", PING, b"\x00\x00"):
        client = await server.dial()
        client.open(data)
        await client.until("closed", lambda: client.closed is not None)
    # And after CONNECT: DISCONNECT says why.
    client = await server.client("odd")
    client.send(0, b"\xf7\xff\xff\xff\xff")
    assert (await client.expect(DISCONNECT)).reason == 0x81
    await client.is_closed(0)


async def silent(server, count):
    """Handshakes without CONNECT, and stream 0 without an end of it."""
    clients = [await server.dial() for _ in range(int(count))]
    for client in clients[::2]:
        client.open(connect("slow")[:5])
    await asyncio.gather(*(client.is_closed(1) for client in clients))


async def half_open(server, count):
    """Handshakes that are begun and left: beyond some, everybody must show an address first."""
    first = await server.client("before")
    assert first._quic._retry_count == 0
    for _ in range(int(count)):
        client = await server.dial(complete=False)
        client.vanishes()
        await asyncio.sleep(0)
    client = await server.client("after")
    assert client._quic._retry_count == 1, "the server asks for a Retry"
    await client.is_served()
    await client.ends_well()
    await first.is_served()
    await first.ends_well()


async def too_many(server, count):
    """All places of clients on their way are taken: one more is refused before its handshake."""
    for _ in range(int(count)):
        client = await server.dial(complete=False)
        client.vanishes()
        await asyncio.sleep(0)
    client = await server.dial(complete=False)
    await client.is_closed(0x2)  # CONNECTION_REFUSED, RFC 9000 section 20.1


async def overloaded(server, count):
    """One address has all the places it may have: code 2, after the handshake."""
    silent = [await server.dial() for _ in range(int(count))]
    client = await server.dial()
    await client.is_closed(2)
    # They are served all the same.
    for number, client in enumerate(silent):
        await client.connected(f"patient-{number}")
        await client.ends_well()
    await (await server.client("later")).ends_well()


async def too_fast(server):
    """More CONNECTs than the listener takes in a second: told in MQTT, and ended in order."""
    for version, reason in ((5, 0x9F), (4, 0x03)):
        while True:
            client = await server.dial()
            client.open(connect("fast", version=version))
            connack = await client.expect(CONNACK)
            if connack.reason:
                break
        assert connack.reason == reason, connack
        await client.is_closed(0)


async def families(server):
    """One socket for both families of addresses."""
    clients = {}
    for host in ("127.0.0.1", "::1"):
        server.host = host
        clients[host] = await server.client(f"by {host}")
        await clients[host].subscribed(0, "both", 1)
    clients["::1"].send(0, publish("both", b"hello", 1, 1))
    for client in clients.values():
        kinds = {(await client.next()).kind}
        if client is clients["::1"]:
            kinds.add((await client.next()).kind)
        assert PUBLISH in kinds, kinds
    print("connected", flush=True)
    await told()
    for client in clients.values():
        await client.ends_well()


async def reloaded(server):
    """Two clients over a reload that closes their listener: they stay, and no other comes."""
    client = await server.client("stays")
    await client.subscribed(0, "r", 1)
    print("connected", flush=True)
    await told()
    client.send(0, publish("r", b"after", 1, 1))
    kinds = {(await client.next()).kind, (await client.next()).kind}
    assert kinds == {PUBLISH, PUBACK}, kinds
    data = client.open(subscribe(2, "r/data"))
    await client.expect(SUBACK, data)
    print("served", flush=True)
    await told()
    await client.ends_well()


async def longest_keep_alive(server):
    """What QUIC's idle timeout cannot hold is not granted."""
    for wanted in (0, 65535):
        client = await server.dial()
        client.open(connect("long", keep_alive=wanted))
        connack = await client.expect(CONNACK)
        assert b"\x13\x04\xb0" in connack.body, connack  # Server Keep Alive, 1200
        await client.ends_well()


async def keep_alive(server):
    """A client that says nothing is ended with 0x8D."""
    client = await server.client("quiet", keep_alive=1)
    assert (await client.expect(DISCONNECT)).reason == 0x8D
    await client.is_closed(0)


async def main():
    port, ca, scenario, *arguments = sys.argv[1:]
    await globals()[scenario](Server(int(port), ca), *arguments)
    print("ok")


if __name__ == "__main__":
    asyncio.run(main())

"""Scenarios with aiomqtt: clients_aiomqtt.py TRANSPORT PORT AUTHORITY

A line for each, "ok NAME" or "not ok NAME: why"; the last is "done".
"""

import asyncio
import ssl
import sys

import aiomqtt

TRANSPORT, PORT, AUTHORITY = sys.argv[1], int(sys.argv[2]), sys.argv[3]
SOON = 30
VERSIONS = {"3.1.1": aiomqtt.ProtocolVersion.V311, "5.0": aiomqtt.ProtocolVersion.V5}


def client(version, **more):
    if TRANSPORT in ("tls", "wss"):
        more["tls_context"] = ssl.create_default_context(cafile=AUTHORITY)
    if TRANSPORT in ("ws", "wss"):
        more.update(transport="websockets", websocket_path="/mqtt")
    return aiomqtt.Client("localhost", PORT, protocol=version, **more)


async def receive(client, count):
    messages = []
    async for message in client.messages:
        messages.append(message)
        if len(messages) == count:
            return messages


async def every_qos(version):
    async with client(version) as one:
        await one.subscribe("aio/qos/#", qos=2)
        for qos in 0, 1, 2:
            for number in range(20):
                await one.publish(f"aio/qos/{qos}", str(number), qos=qos)
        messages = await receive(one, 60)
        for qos in 0, 1, 2:
            of = [message for message in messages if message.topic.value == f"aio/qos/{qos}"]
            assert [message.payload for message in of] == [b"%d" % n for n in range(20)]
            assert all(message.qos == qos for message in of)


async def large_messages(version):
    async with client(version) as one:
        await one.subscribe("aio/large", qos=1)
        payload = bytes(range(256)) * 1_000
        await one.publish("aio/large", payload, qos=1)
        [message] = await receive(one, 1)
        assert message.payload == payload


async def retained_and_removed(version):
    async with client(version) as one, client(version) as other:
        await one.publish("aio/kept", "kept", qos=1, retain=True)
        await other.subscribe("aio/kept")
        [message] = await receive(other, 1)
        assert (message.payload, message.retain) == (b"kept", True)
        await one.publish("aio/kept", b"", qos=1, retain=True)


async def a_will_is_published(version):
    async with client(version) as witness:
        await witness.subscribe("aio/will", qos=1)
        will = aiomqtt.Will("aio/will", "gone", qos=1)
        mortal = client(version, will=will)
        await mortal.__aenter__()
        mortal._client._sock_close()
        [message] = await receive(witness, 1)
        assert message.payload == b"gone"


async def main():
    for name, version in VERSIONS.items():
        for scenario in every_qos, large_messages, retained_and_removed, a_will_is_published:
            try:
                await asyncio.wait_for(scenario(version), SOON)
                print(f"ok {scenario.__name__} {name}")
            except Exception as error:
                print(f"not ok {scenario.__name__} {name}: {error!r}")
    print("done")


asyncio.run(main())

"""Scenarios with Eclipse Paho's client: paho_scenarios.py PORT SCENARIO [ARGUMENT...]

Each ends with "ok", or with the assertion that failed.
"""

import queue
import ssl
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT = int(sys.argv[1])
SOON = 30
"""Seconds in which what takes a moment must have happened."""

V311, V5 = mqtt.MQTTv311, mqtt.MQTTv5


class Client:
    """A client with its own thread, whose events can be waited for."""

    def __init__(self, name, version, keeps=False, port=PORT, tls=None, will=None, path=None):
        self.version, self.keeps, self.port = version, keeps, port
        clean = {} if version == V5 else {"clean_session": not keeps}
        if path:
            clean["transport"] = "websockets"
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=version, **clean)
        if path:
            self.paho.ws_set_options(path=path)
        self.paho.on_connect = lambda c, u, flags, reason, p: self.connected.put((flags, reason))
        self.paho.on_subscribe = lambda c, u, mid, reasons, p: self.subscribed.put(reasons)
        self.paho.on_message = lambda c, u, message: self.messages.put(message)
        self.connected, self.subscribed = queue.Queue(), queue.Queue()
        self.messages = queue.Queue()
        if tls:
            self.paho.tls_set(ca_certs=tls)
        if will:
            self.paho.will_set(*will[:3], properties=will[3])

    def connect(self):
        """Connects; true if the server has the session."""
        more = {}
        if self.version == V5:
            more["clean_start"] = not self.keeps
            more["properties"] = Properties(PacketTypes.CONNECT)
            more["properties"].SessionExpiryInterval = 3600 if self.keeps else 0
        self.paho.connect("127.0.0.1", self.port, **more)
        self.paho.loop_start()
        flags, reason = self.connected.get(timeout=SOON)
        assert not reason.is_failure, reason
        return flags.session_present

    def subscribe(self, topic, qos):
        self.paho.subscribe(topic, qos)
        reasons = self.subscribed.get(timeout=SOON)
        assert [reason.value for reason in reasons] == [qos], reasons

    def publish(self, topic, payload, qos, properties=None):
        self.paho.publish(topic, payload, qos, properties=properties).wait_for_publish(SOON)

    def next(self):
        return self.messages.get(timeout=SOON)

    def texts(self, count):
        return [self.next().payload.decode() for _ in range(count)]

    def nothing_for(self, seconds):
        try:
            message = self.messages.get(timeout=seconds)
        except queue.Empty:
            return
        raise AssertionError(f"unexpected: {message.topic} {message.payload}")

    def disconnect(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def vanish(self):
        """Ends the connection without DISCONNECT."""
        self.paho.loop_stop()
        self.paho.socket().close()


def both(scenario):
    for version in V311, V5:
        scenario(version)


def qos2(version):
    """Every message once and in order, at QoS 2 both ways."""
    one, other = Client("one", version), Client("other", version)
    for client in one, other:
        client.connect()
        client.subscribe("to/" + client.paho._client_id.decode(), 2)
    sent = [str(number) for number in range(200)]
    # Beyond 20 in flight paho queues messages itself, and may send one that comes later first.
    under_way = []
    for text in sent:
        for pair in under_way[-8:-7]:
            for published in pair:
                published.wait_for_publish(SOON)
        under_way.append((one.paho.publish("to/other", text, 2), other.paho.publish("to/one", text, 2)))
    for client in one, other:
        assert client.texts(len(sent)) == sent
        client.nothing_for(0.3)
        client.disconnect()


def resume(version):
    """A session is resumed with its subscription and what was queued, at each QoS in order."""
    name = f"resuming-{version}"
    client = Client(name, version, keeps=True)
    assert not client.connect()
    client.subscribe("queued/#", 2)
    client.disconnect()
    publisher = Client("publisher", version)
    publisher.connect()
    sent = [str(number) for number in range(60)]
    for number, text in enumerate(sent):
        publisher.publish("queued/x", text, 1 + number % 2)
    client = Client(name, version, keeps=True)
    assert client.connect(), "session present"
    messages = [client.next() for _ in sent]
    for qos in 1, 2:
        texts = [message.payload.decode() for message in messages if message.qos == qos]
        assert texts == sent[qos - 1 :: 2], (qos, texts)
    client.nothing_for(0.3)
    publisher.publish("queued/x", "live", 2)
    assert client.texts(1) == ["live"]
    for each in client, publisher:
        each.disconnect()


def shared():
    """Each message goes to one of the group, and both get some."""
    group = [Client(f"member-{number}", V5) for number in range(2)]
    for member in group:
        member.connect()
        member.subscribe("$share/crew/jobs/#", 1)
    publisher = Client("publisher", V5)
    publisher.connect()
    sent = {str(number) for number in range(100)}
    for text in sent:
        publisher.publish("jobs/x", text, 1)
    deadline = time.monotonic() + SOON
    while sum(member.messages.qsize() for member in group) < len(sent):
        assert time.monotonic() < deadline, "not all jobs were given to someone"
        time.sleep(0.02)
    time.sleep(0.3)
    done = [member.texts(member.messages.qsize()) for member in group]
    assert sorted(done[0] + done[1]) == sorted(sent)
    assert all(done), [len(texts) for texts in done]
    for each in [*group, publisher]:
        each.disconnect()


def properties():
    """What a publisher says with a message, its subscriber gets, in order."""
    client = Client("reader", V5)
    client.connect()
    client.subscribe("letters/#", 2)
    for qos in 0, 1, 2:
        said = Properties(PacketTypes.PUBLISH)
        said.UserProperty = [("lane", "2"), ("lane", "3"), ("", "empty name"), ("ü", "ß")]
        said.ContentType = "application/json"
        said.ResponseTopic = "answers/reader"
        said.CorrelationData = b"\x00\x01\xff"
        said.PayloadFormatIndicator = 1
        client.publish("letters/x", "{}", qos, said)
        got = client.next()
        assert got.qos == qos
        assert got.properties.UserProperty == said.UserProperty, got.properties
        assert got.properties.ContentType == "application/json"
        assert got.properties.ResponseTopic == "answers/reader"
        assert got.properties.CorrelationData == b"\x00\x01\xff"
        assert got.properties.PayloadFormatIndicator == 1
    client.disconnect()


def expiry():
    """A message that expired is not delivered; one that did not says what is left of its time."""
    client = Client("late", V5, keeps=True)
    client.connect()
    client.subscribe("news/#", 1)
    client.disconnect()
    publisher = Client("publisher", V5)
    publisher.connect()
    for text, seconds in ("stale", 1), ("fresh", 1000):
        lives = Properties(PacketTypes.PUBLISH)
        lives.MessageExpiryInterval = seconds
        publisher.publish("news/x", text, 1, lives)
    time.sleep(2.2)
    client = Client("late", V5, keeps=True)
    assert client.connect()
    got = client.next()
    assert got.payload == b"fresh"
    assert 900 < got.properties.MessageExpiryInterval < 1000, got.properties
    client.nothing_for(0.3)
    for each in client, publisher:
        each.disconnect()


def will_delay():
    """A delayed will waits, and is forgotten if its client comes back in time."""
    witness = Client("witness", V5)
    witness.connect()
    witness.subscribe("wills/#", 1)
    delay = Properties(PacketTypes.WILLMESSAGE)
    delay.WillDelayInterval = 2

    def mortal():
        client = Client("mortal", V5, keeps=True, will=("wills/mortal", "gone", 1, delay))
        client.connect()
        return client

    began = time.monotonic()
    mortal().vanish()
    assert witness.texts(1) == ["gone"]
    assert time.monotonic() - began >= 1.9, "the will waits for its delay"
    mortal().vanish()
    back = mortal()
    witness.nothing_for(3)
    for each in back, witness:
        each.disconnect()


def tls(port, ca, other_ca):
    """The authority that issued the listener's certificate is enough; another is not."""
    for version in V311, V5:
        client = Client("secret", version, port=int(port), tls=ca)
        client.connect()
        client.subscribe("vault", 2)
        client.publish("vault", "x" * 100_000, 2)
        assert client.next().payload == b"x" * 100_000
        client.disconnect()
    try:
        Client("stranger", V5, port=int(port), tls=other_ca).connect()
    except ssl.SSLCertVerificationError:
        return
    raise AssertionError("a certificate of another authority was taken")


def ws(port, path, ca=None):
    """Messages of any size, both ways, in WebSocket; another path is refused."""
    for version in V311, V5:
        one = Client("one", version, port=int(port), tls=ca, path=path)
        other = Client("other", version, port=int(port), tls=ca, path=path)
        for client in one, other:
            client.connect()
        other.subscribe("to/other", 2)
        sent = ["x" * size for size in (0, 1, 100, 125, 126, 127, 65_500, 65_535, 65_536, 300_000)]
        sent += [str(number) for number in range(300)]
        for qos in 0, 1, 2:
            for text in sent:
                one.paho.publish("to/other", text, qos)
                # At QoS 0 nothing waits for a client that reads slowly.
                assert qos or other.texts(1) == [text]
            assert not qos or other.texts(len(sent)) == sent, qos
        other.nothing_for(0.3)
        for client in one, other:
            client.disconnect()
    try:
        Client("lost", V5, port=int(port), tls=ca, path=path + "/no").connect()
    except mqtt.WebsocketConnectionError:
        return
    raise AssertionError("another path was served")


SCENARIOS = {
    "qos2": lambda: both(qos2),
    "resume": lambda: both(resume),
    "shared": shared,
    "properties": properties,
    "expiry": expiry,
    "will_delay": will_delay,
    "tls": tls,
    "ws": ws,
}

SCENARIOS[sys.argv[2]](*sys.argv[3:])
print("ok")

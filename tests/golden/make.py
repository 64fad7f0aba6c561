#!/usr/bin/env python3
"""Makes data directories of a version of Verge, for the tests that open them with later ones.

    python3 tests/golden/make.py target/release/verge tests/golden/format-1

Run it once for each stored format, with the last node that writes that format, and commit what it
makes. Nothing is random: what is in the directories is said below and checked in
tests/processes/formats.rs.

`alone` is a node outside any mesh, killed twice, so that rows lie in table files and in the
write-ahead log. `road-a` and `road-b` are two nodes of a mesh, killed in the middle of a handover.
"""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

NEVER = 0xFFFFFFFF
CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK = 2, 3, 4, 5, 6, 7, 9


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">H", len(value)) + value


def varint(number):
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


class Client:
    """A client that acknowledges only what it is told to."""

    def __init__(self, port, name, v5=True, will=None, clean=False):
        self.v5, self.buffer = v5, b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        flags = (0x02 if clean else 0) | ((0x04 | 1 << 3) if will else 0)
        body = text("MQTT") + bytes([5 if v5 else 4, flags]) + struct.pack(">H", 0)
        if v5:
            properties = b"" if clean else b"\x11" + struct.pack(">I", NEVER)
            body += varint(len(properties)) + properties
        body += text(name)
        if will:
            topic, payload, delay = will
            properties = b"\x18" + struct.pack(">I", delay)
            body += varint(len(properties)) + properties + text(topic) + text(payload)
        self.send(0x10, body)
        kind, _, body = self.packet()
        assert kind == CONNACK and body[1] == 0, (kind, body)
        self.present = body[0] == 1

    def send(self, first, body):
        self.socket.sendall(bytes([first]) + varint(len(body)) + body)

    def packet(self):
        """The next packet: kind, flags, body."""
        while True:
            length, shift = 0, 0
            for at, byte in enumerate(self.buffer[1:5]):
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    end = 2 + at + length
                    if len(self.buffer) >= end:
                        whole, self.buffer = self.buffer[:end], self.buffer[end:]
                        return whole[0] >> 4, whole[0] & 0x0F, whole[2 + at :]
                    break
            more = self.socket.recv(65536)
            assert more, "the connection ended"
            self.buffer += more

    def subscribe(self, topic, qos, identifier=None):
        properties = b"" if identifier is None else b"\x0b" + varint(identifier)
        head = struct.pack(">H", 1) + (varint(len(properties)) + properties if self.v5 else b"")
        self.send(0x82, head + text(topic) + bytes([qos]))
        kind, _, body = self.packet()
        assert kind == SUBACK and body[-1] == qos, (kind, body)

    def publish(self, topic, payload, qos=1, packet_id=1, retain=False, properties=b""):
        """Publishes, and waits for PUBACK or PUBREC."""
        body = text(topic) + (struct.pack(">H", packet_id) if qos else b"")
        if self.v5:
            body += varint(len(properties)) + properties
        self.send(0x30 | qos << 1 | retain, body + payload.encode())
        if qos:
            kind, _, body = self.packet()
            assert kind == (PUBACK if qos == 1 else PUBREC), (kind, body)
            assert len(body) == 2 or body[2] in (0, 0x10), body

    def release(self, packet_id):
        self.send(0x62, struct.pack(">H", packet_id))
        kind, _, body = self.packet()
        assert kind == PUBCOMP, (kind, body)

    def vanish(self):
        self.socket.close()

    def leave(self):
        self.send(0xE0, b"")
        self.socket.close()


class Node:
    """A process of Verge."""

    def __init__(self, program, name, place, args):
        self.mqtt, self.admin, self.mesh = free(), free(), free(socket.SOCK_DGRAM)
        self.data = os.path.join(place, name)
        self.log = open(os.path.join(place, name + ".log"), "ab")
        self.env = dict(os.environ, HOME=place)
        self.args = [program, "run", "--node-id", name, "--data-dir", self.data]
        self.args += ["--listen", f"tcp://127.0.0.1:{self.mqtt}"]
        self.args += ["--admin", f"127.0.0.1:{self.admin}"]
        for setting in ["node.shards=2", "storage.promise=buffered", "session.expiry_max=never"]:
            self.args += ["--set", setting]
        self.args += ["--set", "session.v3_expiry=never"] + args

    def start(self):
        self.process = subprocess.Popen(
            self.args, env=self.env, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )
        for _ in range(400):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5)
                return self
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the node does not serve")

    def get(self, path):
        answer = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/api/v1/{path}", timeout=5)
        return json.load(answer)

    def until(self, path, is_so):
        for _ in range(400):
            if is_so(self.get(path)):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{path} does not come to say it: {self.get(path)}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def free(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def alone(program, place):
    config = os.path.join(place, "alone.toml")
    with open(config, "w") as file:
        file.write('[[topics]]\nfilter = "a/urgent"\nclass = "safety"\n')
    node = Node(program, "alone", place, ["--config", config, "--set", "uplink.select=up/#"]).start()
    q1, q2 = Client(node.mqtt, "q1"), Client(node.mqtt, "q2", v5=False)
    q1.subscribe("a/#", 1, identifier=7)
    q2.subscribe("a/#", 2)
    q1.leave()
    q2.leave()
    busy = Client(node.mqtt, "busy")
    busy.subscribe("busy/#", 2)
    for name in ["g1", "g2"]:
        member = Client(node.mqtt, name)
        member.subscribe("$share/g/jobs/#", 1)
        member.leave()
    pub = Client(node.mqtt, "pub", clean=True)
    # In flight to `busy`: 1 without PUBACK, 2 without PUBREC, 3 without PUBCOMP.
    for number, qos in [(1, 1), (2, 2), (3, 2)]:
        pub.publish(f"busy/{number}", str(number), qos)
        if qos == 2:
            pub.release(1)
        kind, _, body = busy.packet()
        assert kind == PUBLISH, kind
    topic_end = 2 + len("busy/3")
    third = body[topic_end : topic_end + 2]
    busy.send(0x50, third)
    kind, _, body = busy.packet()
    assert kind == PUBREL and body[:2] == third, (kind, body)
    busy.vanish()
    for number in range(1, 11):
        pub.publish("a/first", str(number))
    for number in range(1, 7):
        pub.publish("jobs/x", str(number))
    for number in range(1, 6):
        pub.publish(f"r/{number}", f"retained {number}", retain=True)
        pub.publish("up/x", str(number))
    pub.publish("r/2", "", retain=True)
    node.kill()

    node.start()
    pub = Client(node.mqtt, "pub", clean=True)
    # In flight from `half`: PUBREC was sent, PUBREL did not come.
    half = Client(node.mqtt, "half")
    half.publish("a/half", "1", qos=2, packet_id=77)
    half.vanish()
    for number in range(11, 21):
        pub.publish("a/first", str(number))
    for number in range(4, 7):
        pub.publish(f"busy/{number}", str(number), qos=1)
    pub.publish("a/urgent", "1")
    pub.publish("a/stale", "1", properties=b"\x02" + struct.pack(">I", 1))
    pub.publish("a/lasting", "1", properties=b"\x02" + struct.pack(">I", 4_000_000_000))
    every = b"\x01\x01" + b"\x03" + text("text/plain") + b"\x08" + text("re/ply")
    every += b"\x09" + text(b"\x00\x01\xff") + b"\x26" + text("k") + text("v")
    pub.publish("a/properties", "1", properties=every)
    pub.publish("a/large", "0" * 2_999 + "1")
    pub.publish("r/1", "retained again", retain=True, properties=every)
    pub.publish("$delayed/60/a/later", "1")
    wanda = Client(node.mqtt, "wanda", will=("a/will", "1", 2))
    wanda.vanish()
    time.sleep(0.3)
    ledger = node.get("ledger")
    node.kill()
    print("alone:", json.dumps(ledger))


def road(program, place):
    dev = ["--set", "mesh.dev=true", "--set", "handover.linger=1h"]
    b = Node(program, "road-b", place, dev)
    b.args += ["--role", "regional", "--mesh-listen", f"127.0.0.1:{b.mesh}"]
    a = Node(program, "road-a", place, dev)
    a.args += ["--mesh-listen", f"127.0.0.1:{a.mesh}", "--join", f"127.0.0.1:{b.mesh}"]
    b.start()
    a.start()
    for node in [a, b]:
        node.until("members", lambda all: sum(one["linked"] is True for one in all["items"]) >= 1)
    waiter = Client(b.mqtt, "waiter")
    waiter.subscribe("to-b/#", 1)
    waiter.leave()
    mover = Client(a.mqtt, "mover")
    mover.subscribe("move/#", 2)
    mover.leave()
    wanted = {"to-b/#", "move/#"}
    for node in [a, b]:
        node.until("routes", lambda all: wanted <= {one["filter"] for one in all["items"]})
    pub = Client(a.mqtt, "pub", clean=True)
    for number in range(1, 201):
        pub.publish("move/x", str(number))
    # From here the log of `mover` at a is sealed, and b pulls it until it is killed.
    mover = Client(b.mqtt, "mover")
    b.kill()
    assert mover.present
    pub.publish("r/road", "retained", retain=True)
    for number in range(1, 11):
        pub.publish("to-b/x", str(number))
    sessions = a.get("sessions")
    ledger = a.get("ledger")
    a.kill()
    print("road-a:", json.dumps(sessions), json.dumps(ledger))


def main():
    program, out = os.path.abspath(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as place:
        alone(program, place)
        road(program, place)
        os.makedirs(out)
        for name in ["alone", "road-a", "road-b"]:
            os.makedirs(os.path.join(out, name))
            for dir, _, files in os.walk(os.path.join(place, name)):
                for file in files:
                    # Logs for people, and settings that are not read at open.
                    if file in ("LOG", "LOCK") or file.startswith(("LOG.", "OPTIONS-")):
                        continue
                    assert dir == os.path.join(place, name), dir
                    shutil.copy(os.path.join(dir, file), os.path.join(out, name, file))


main()

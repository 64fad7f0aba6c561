"""Many connections at once: crowd.py PORT COUNT slow|silent|connect

slow: each sends a byte of a CONNECT every second. silent: none says anything. connect: each sends
its CONNECT and waits for the answer. Ends with status 0 when every one was answered or closed, and
prints how many were answered, and how many closed without an answer.
"""

import resource
import selectors
import socket
import struct
import sys
import time

port, count, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connect(number):
    client_id = f"crowd-{number}".encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(client_id)) + client_id
    return b"\x10" + bytes([len(body)]) + body


selector = selectors.DefaultSelector()
waiting = {}
for number in range(count):
    each = socket.socket()
    each.setblocking(False)
    each.connect_ex(("127.0.0.1", port))
    waiting[each] = connect(number)
    events = selectors.EVENT_WRITE if how == "connect" else selectors.EVENT_READ
    selector.register(each, events)

answered = closed = sent = 0
held = []
deadline = time.monotonic() + 60
while waiting:
    assert time.monotonic() < deadline, f"{len(waiting)} hang"
    if how == "slow" and sent < time.monotonic() - 1:
        sent = time.monotonic()
        for each, rest in waiting.items():
            try:
                # Never the last byte.
                each.send(rest[:1])
                waiting[each] = rest[1:] if len(rest) > 2 else rest[:1] * 2
            except OSError:
                pass
    for key, events in selector.select(0.2):
        each = key.fileobj
        try:
            if events & selectors.EVENT_WRITE:
                each.send(waiting[each])
                selector.modify(each, selectors.EVENT_READ)
                continue
            word = each.recv(4)
        except BlockingIOError:
            continue
        except OSError:
            word = b""
        selector.unregister(each)
        del waiting[each]
        if word:
            assert word[:1] == b"\x20", word
            answered += 1
            held.append(each)
        else:
            closed += 1
            each.close()
print(answered, closed)

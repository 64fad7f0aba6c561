"""Connections that send nothing: silent.py PORT COUNT

Ends with status 0 when every one was made, and then closed by the server.
"""

import resource
import socket
import sys

port, count = int(sys.argv[1]), int(sys.argv[2])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

sockets = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(count)]
for each in sockets:
    try:
        assert each.recv(1) == b"", "a server says nothing before CONNECT"
    except ConnectionResetError:
        pass

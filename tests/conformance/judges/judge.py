"""Other people's judges against a fresh node, over each transport: judge.py VERGE CACHE [NAME...]

VERGE is the program, CACHE a folder outside the checkout where suites are installed once, by pip,
npm and cargo. NAMEs choose judges, JUDGE_TRANSPORTS (a/b) transports, JUDGES_AT_ONCE how many of them work at a
time: they mostly wait. PAHO_TESTING names a checkout of eclipse/paho.mqtt.testing, which is in no
registry. Prints what failed, and one table; fails if anything failed that waivers.toml does not
explain.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
GMQTT, AEDES, MQTTJS, PAHO, AIOMQTT, RUMQTTC = "0.8.0", "1.2.0", "5.16.0", "2.1.0", "2.5.1", "0.25.1"
# As tests/processes/quic.rs has it.
AIOQUIC = "1.7.2"
SCHEMES = ["tcp", "tls", "ws", "wss", "quic"]
TRANSPORTS = ["tcp", "tcp, cut", "tls", "ws", "wss", "quic"]
SECONDS_MAX = {"suite": 900, "case": 120}


def run(command, seconds, **more):
    """What a program says, and whether it ended well; one that does not end is ended."""
    more["env"] = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **more.get("env", {})}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        stdin=subprocess.DEVNULL, start_new_session=True, **more
    )
    try:
        text, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        text, _ = child.communicate()
        text += f"\nstill running after {seconds} s"
    return text, child.returncode == 0


def must(command, **more):
    text, well = run([str(part) for part in command], 900, **more)
    if not well:
        sys.exit(f"{command}:\n{text}")
    return text


class Node:
    """A node with a listener of each transport, and what its clients trust."""

    def __init__(self, verge):
        self.dir = tempfile.TemporaryDirectory()
        home = Path(self.dir.name)
        env = {"HOME": self.dir.name}
        must([verge, "pki", "init", "--ca", home / "ca"], env=env)
        must([verge, "pki", "issue", "server", "localhost", "127.0.0.1", "--ca", home / "ca",
              "--out", home / "certs"], env=env)
        self.authority = str(home / "certs/ca.pem")
        command = [verge, "run", "--node-id", "judged", "--data-dir", home / "data",
                   "--admin", "127.0.0.1:0", "--set", "storage.promise=buffered",
                   "--set", f"tls.cert={home}/certs/localhost.pem",
                   "--set", f"tls.key={home}/certs/localhost.key"]
        # Ports of the system's choice, so that nobody can have taken them: the ready line says which.
        for scheme in SCHEMES:
            command += ["--listen", f"{scheme}://127.0.0.1:0"]
        self.log = open(home / "log", "w")
        env = {k: v for k, v in os.environ.items() if not k.startswith("VERGE")} | env
        self.child = subprocess.Popen([str(part) for part in command], env=env, text=True,
                                      stdout=subprocess.PIPE, stderr=self.log)
        line = self.child.stdout.readline()
        if not line.startswith("ready "):
            sys.exit(f"the node is not ready: {line}{(home / 'log').read_text()}")
        listeners = re.search(r" listeners=(\S+)", line)[1]
        found = (re.match(r"(\w+)://127\.0\.0\.1:(\d+)", url) for url in listeners.split(","))
        self.ports = {url[1]: int(url[2]) for url in found}
        self.relays = []

    def relay(self, cache, transport, *more):
        """A port of plain TCP that leads to a listener."""
        python = sys.executable
        if transport == "quic":
            python = cache.python(f"aioquic-{AIOQUIC}", f"aioquic=={AIOQUIC}")
        command = [python, HERE / "relay.py", transport, "127.0.0.1",
                   self.ports[transport], "--ca", self.authority, *more]
        relay = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True,
                                 stderr=self.log)
        self.relays.append(relay)
        return int(relay.stdout.readline())

    def close(self):
        for process in [*self.relays, self.child]:
            process.terminate()
            process.wait()
        self.log.close()
        self.dir.cleanup()


class Cache:
    """Installed suites. Whoever installs one does it alone."""

    def __init__(self, path):
        self.lock = threading.RLock()
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    def once(self, name, make):
        """A folder that is made once; an interrupted making leaves none."""
        place = self.path / name
        with self.lock:
            if not place.exists():
                draft = self.path / f"{name}.draft"
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                make(draft)
                draft.rename(place)
        return place

    def python(self, name, *packages):
        """Python of a virtual environment, which is made in place, since it knows its own path."""
        place = self.path / name
        done = place / "installed"
        with self.lock:
            if not done.exists():
                shutil.rmtree(place, ignore_errors=True)
                must([sys.executable, "-m", "venv", place])
                must([place / "bin/python", "-m", "pip", "install", "--quiet", *packages])
                done.touch()
        return place / "bin/python"

    def node_modules(self):
        # The others are what Aedes' tests load; mqemitter, which one file asks for, wants a version
        # of wildcard-match that the registry does not have.
        packages = [f"mqtt@{MQTTJS}", "mqtt-packet@9.0.2", "ws@8.23.0", "aedes-packet@4.0.1",
                    "aedes-persistence@11.0.0"]

        def make(draft):
            must(["npm", "install", "--silent", "--prefix", draft, *packages])

        return self.once(f"mqttjs-{MQTTJS}", make) / "node_modules"

    def aedes(self):
        modules = self.node_modules()

        def make(draft):
            must(["npm", "pack", "--silent", f"aedes@{AEDES}"], cwd=draft)
            must(["tar", "xzf", next(draft.glob("*.tgz"))], cwd=draft)
            (draft / "package/aedes.js").unlink()
            # What its tests need; not what its broker does, whose place is taken.
            (draft / "package/node_modules").symlink_to(modules)

        package = self.once(f"aedes-{AEDES}", make) / "package"
        stand_in = (HERE / "aedes_stand_in.mjs").read_bytes()
        with self.lock:
            place = package / "aedes.js"
            if not place.exists() or place.read_bytes() != stand_in:
                place.write_bytes(stand_in)
        return package

    def gmqtt(self):
        def make(draft):
            must([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary",
                  ":all:", f"gmqtt=={GMQTT}", "-d", draft])
            must(["tar", "xzf", next(draft.glob("*.tar.gz")), "--strip-components=1"], cwd=draft)

        return self.once(f"gmqtt-{GMQTT}", make)


# Judges. Each yields (case, whether it passed or None if it was not tried, why).

POINT = re.compile(r"^(not )?ok \d+ - (.*?)(?: # (?:SKIP|TODO).*)?$")
AEDES_FILES = ("auth basic client-pub-sub close_socket_by_other_party connect events keep-alive meta "
               "qos1 qos2 regr-21 retain topics will")


def aedes(cache, port):
    package = cache.aedes()
    for name in AEDES_FILES.split():
        command = ["node", "--test-reporter=tap", "--test-force-exit", f"test/{name}.js"]
        text, _ = run(command, SECONDS_MAX["suite"], cwd=package, env={"JUDGED_PORT": str(port)})
        case, found = None, False
        lines = []
        for line in [*text.splitlines(), "ok 0 - end"]:
            point = POINT.match(line)
            if not point:
                lines.append(line.strip())
                continue
            if case:
                found = True
                said = "\n".join(lines)
                beyond = re.search(r"NOT_PORTABLE ([^'\"\n]+)", said)
                error = re.search(r"^error: (?:\|-\n)?(.*)", said, re.M)
                if case[0] and beyond:
                    yield f"{name}/{case[1]}", None, f"asks for {beyond[1].strip()} in the process"
                else:
                    yield f"{name}/{case[1]}", not case[0], error[1] if error else ""
            case, lines = (point[1], point[2].replace("\\#", "#")), []
        if not found:
            why = re.search(r"(Cannot find \w+ '[^']+'|Error.*)", text)
            yield name, None, f"does not load: {why[0] if why else text[-200:]}"


def gmqtt(cache, port):
    suite = cache.gmqtt()
    python = cache.python(f"gmqtt-{GMQTT}-python", f"gmqtt=={GMQTT}", "pytest", "pytest-asyncio")
    env = {"HOST": "127.0.0.1", "PORT": str(port), "PYTHONPATH": str(suite), "TOKEN": ""}
    del env["TOKEN"]
    command = [python, "-m", "pytest", "-v", "--tb=line", "-p", "no:cacheprovider", "tests"]
    text, _ = run([str(part) for part in command], SECONDS_MAX["suite"], cwd=suite, env=env)
    for line in text.splitlines():
        point = re.match(r"^\S+?::(\S+) (PASSED|FAILED|ERROR|SKIPPED)\b(.*)", line)
        if point:
            passed = {"PASSED": True, "SKIPPED": None}.get(point[2], False)
            yield point[1], passed, point[3].strip()


# Its client waits 0.3 s for a CONNACK; on a busy machine that takes longer, and is no failure.
PAHO_CASE = """
import os, socket, sys, threading, unittest, logging
folder, module, test, port = sys.argv[1:5]
sys.path.insert(0, folder)
plain_settimeout = socket.socket.settimeout
def settimeout(self, seconds):
    waits = seconds and threading.current_thread() is threading.main_thread()
    plain_settimeout(self, max(seconds, 20) if waits else seconds)
socket.socket.settimeout = settimeout
logging.getLogger().setLevel(logging.ERROR)
judge = __import__(module)
judge.topics = ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")
judge.wildtopics = ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")
judge.nosubscribe_topics = ("test/nosubscribe",)
judge.topic_prefix = "client_test5/"
plain = getattr(judge, "setData", lambda: None)
def set_data():
    plain()
    judge.host, judge.port = "127.0.0.1", int(port)
judge.setData = set_data
set_data()
well = unittest.TextTestRunner(verbosity=0).run(unittest.TestSuite([judge.Test(test)])).wasSuccessful()
sys.stdout.flush()
os._exit(0 if well else 1)
"""
PAHO_NEEDS = {
    "client_test.test_subscribe_failure": "needs a topic that must not be subscribed to",
    "client_test5.test_subscribe_failure": "needs a topic that must not be subscribed to",
    "client_test5.test_server_keep_alive": "needs a Server Keep Alive of 60 s",
}


def paho_testing(_cache, port):
    folder = Path(os.environ["PAHO_TESTING"]) / "interoperability"
    for module in "client_test", "client_test5":
        tree = ast.parse((folder / f"{module}.py").read_text())
        bodies = [n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Test"]
        tests = [n.name for n in bodies[0] if isinstance(n, ast.FunctionDef)]
        for test in filter(lambda name: name.startswith("test"), tests):
            case = f"{module}.{test}"
            if case in PAHO_NEEDS:
                yield case, None, PAHO_NEEDS[case]
                continue
            command = [sys.executable, "-c", PAHO_CASE, str(folder), module, test, str(port)]
            text, well = run(command, SECONDS_MAX["case"])
            errors = [line for line in text.splitlines() if "Error" in line or "still" in line]
            yield case, well, "" if well else (errors or [text[-200:]])[-1]


def lines_of(text):
    """Verdicts of a script that prints "ok CASE" and "not ok CASE: why"."""
    for line in text.splitlines():
        if line.startswith("ok "):
            yield line[3:], True, ""
        elif line.startswith("not ok "):
            case, _, why = line[7:].partition(": ")
            yield case, False, why
    if not text.rstrip().endswith("done"):
        yield "the whole", False, text[-300:]


def aiomqtt(cache, transport, port, authority):
    python = cache.python(f"aiomqtt-{AIOMQTT}", f"aiomqtt=={AIOMQTT}")
    command = [str(python), str(HERE / "clients_aiomqtt.py"), transport, str(port), authority]
    yield from lines_of(run(command, SECONDS_MAX["suite"])[0])


def mqttjs(cache, transport, port, authority):
    command = ["node", str(HERE / "clients_mqttjs.mjs"), transport, str(port), authority]
    env = {"JUDGES_NODE_MODULES": str(cache.node_modules())}
    yield from lines_of(run(command, SECONDS_MAX["suite"], env=env)[0])


def rumqttc(cache, transport, port, authority):
    target = cache.path / f"rumqttc-{RUMQTTC}"
    must(["cargo", "build", "--quiet", "--locked", "--manifest-path", HERE / "rumqttc/Cargo.toml",
          "--target-dir", target])
    command = [str(target / "debug/judge"), transport, str(port), authority]
    yield from lines_of(run(command, SECONDS_MAX["suite"])[0])


def paho(cache, transport, port, _authority):
    python = cache.python(f"paho-mqtt-{PAHO}", f"paho-mqtt=={PAHO}")
    script = HERE.parents[1] / "processes/paho_scenarios.py"
    for case in "qos2 resume shared properties expiry will_delay".split():
        text, well = run([str(python), str(script), str(port), case], SECONDS_MAX["case"])
        yield case, well, "" if well else text.splitlines()[-1]


def mosquitto(_cache, transport, port, authority):
    common = ["-h", "localhost", "-p", str(port)]
    common += ["--cafile", authority] if transport == "tls" else []
    for version in "mqttv311", "mqttv5":
        for qos in "0", "1", "2":
            name = f"judged/{version}/{qos}"
            more = [*common, "-V", version, "-q", qos, "-t", name]
            must(["mosquitto_pub", *more, "-m", "kept", "-r"])
            text, well = run(["mosquitto_sub", *more, "-C", "1", "-W", "20", "-F", "%q %r %p"], 30)
            yield f"{version}, QoS {qos}", well and text == f"{qos} 1 kept\n", text
            must(["mosquitto_pub", *more, "-n", "-r"])


def version_of_mosquitto():
    text, _ = run(["mosquitto_pub", "--help"], 10)
    found = re.search(r"version ([\d.]+)", text)
    return found[1] if found else "?"


# Name, version, the function, and the transports it reaches by itself; others go through the relay.
JUDGES = {
    "gmqtt's tests": (GMQTT, gmqtt, []),
    "Aedes' tests": (AEDES, aedes, []),
    "paho.mqtt.testing": ("PAHO_TESTING", paho_testing, []),
    "paho-mqtt": (PAHO, paho, []),
    "aiomqtt": (AIOMQTT, aiomqtt, ["tcp", "tls", "ws", "wss"]),
    "MQTT.js": (MQTTJS, mqttjs, ["tcp", "tls", "ws", "wss"]),
    "rumqttc": (RUMQTTC, rumqttc, ["tcp", "tls", "ws", "wss"]),
    "mosquitto": (version_of_mosquitto(), mosquitto, ["tcp", "tls"]),
}
NOT_RUN = {
    "paho.mqtt.testing": "PAHO_TESTING names no checkout, and no registry has it",
}


def waivers():
    return tomllib.loads((HERE / "waivers.toml").read_text())


def judge(verge, cache, name, transport):
    """Passed, failed and skipped cases of a judge over a transport, each with why."""
    _, function, own = JUDGES[name]
    node = Node(verge)
    try:
        if transport in own:
            cases = function(cache, transport, node.ports[transport], node.authority)
        else:
            scheme, _, cut = transport.partition(", ")
            port = node.relay(cache, scheme, *["--cut"] * bool(cut))
            cases = function(cache, "tcp", port, "") if own or function is paho else function(cache, port)
        waived = waivers().get(name, {})
        counts, notes = [0, 0, 0], []
        for case, passed, why in cases:
            # A name that ends in * stands for all that begin so.
            keys = [key for key in waived if case == key or key[-1] == "*" and case.startswith(key[:-1])]
            if passed is False and keys:
                passed, why = None, f"waived: {waived[keys[0]]} ({why})"
            counts[2 if passed is None else 0 if passed else 1] += 1
            if not passed:
                notes.append(("failed" if passed is False else "skipped", case, " ".join(why.split())[:200]))
        if node.child.poll() is not None:
            notes.append(("failed", "the node", "ended"))
            counts[1] += 1
        return counts, notes
    finally:
        node.close()


def main():
    verge, cache, *names = sys.argv[1:]
    cache = Cache(cache)
    only = os.environ.get("JUDGE_TRANSPORTS")
    chosen = [name for name in JUDGES if not names or name in names]
    if not os.environ.get("PAHO_TESTING"):
        chosen = [name for name in chosen if name != "paho.mqtt.testing"]
    transports = only.split("/") if only else TRANSPORTS
    work = [(name, transport) for name in chosen for transport in transports]
    telling = threading.Lock()

    def one(name, transport):
        began = time.monotonic()
        (passed, bad, skipped), notes = judge(verge, cache, name, transport)
        seconds = time.monotonic() - began
        with telling:
            for verdict, case, why in notes:
                print(f"{verdict}: {name}, {transport}: {case}: {why}", flush=True)
            if not passed:
                bad += 1
                print(f"failed: {name}, {transport}: nothing passed", flush=True)
        return name, JUDGES[name][0], transport, passed, bad, skipped, round(seconds)

    at_once = int(os.environ.get("JUDGES_AT_ONCE", 1 if names else 4))
    with ThreadPoolExecutor(at_once) as pool:
        rows = list(pool.map(lambda pair: one(*pair), work))
    failed = sum(row[4] for row in rows)
    print(f"\n{'judge':20} {'version':13} {'transport':10} passed failed skipped seconds")
    for name, version, transport, *numbers in rows:
        print(f"{name:20} {version:13} {transport:10} {'%6d %6d %7d %7d' % tuple(numbers)}")
    for name, why in NOT_RUN.items():
        if not names and not any(row[0] == name for row in rows):
            print(f"{name:20} not run: {why}")
    if path := os.environ.get("JUDGE_JSON"):
        Path(path).write_text(json.dumps(rows))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

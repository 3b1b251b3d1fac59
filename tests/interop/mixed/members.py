"""Clusters of nodes on several libraries behind a proxy (tap.py): starting, killing, asking, loading them, and comparing what they hold."""
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import datadir  # noqa: E402
import library  # noqa: E402
import nodes  # noqa: E402
import wire_client  # noqa: E402

VOTER, STANDBY, SPARE = 0, 1, 2
ROLE_NAMES = {VOTER: "voter", STANDBY: "standby", SPARE: "spare"}
DATABASE = "ledger"
INSERT = "INSERT OR REPLACE INTO ledger(writer, n, value) VALUES(?, ?, ?)"


class Wrong(Exception):
    pass


def until(what, seconds, condition, pause=0.03):
    """The first true answer of `condition`; Wrong after the time. `what` may be a function that tells what there was instead."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise Wrong(f"{what() if callable(what) else what}: not within {seconds:.1f} s")
        time.sleep(pause)


class Tap:
    def __init__(self, capture, addresses):
        self.capture = capture
        argv = [sys.executable, os.path.join(HERE, "tap.py"), capture, *(f"{n}={listen}={target}" for n, (listen, target) in addresses.items())]
        with open(capture + ".log", "w") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.lock = threading.Lock()

    def tell(self, what, **args):
        with self.lock:
            print(json.dumps(dict(what=what, **args)), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline() or '{"error": "the proxy ended"}')
        if "error" in answer:
            raise Wrong(f"proxy: {what}: {answer['error']}")
        return answer

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(20)


class Member:
    """One node: its directory stays while processes on one library or another come and go."""

    def __init__(self, number, lut, base, options):
        self.id, self.lut, self.options, self.host = number, lut, list(options), None
        self.listen, self.target = nodes.free_address(), nodes.free_address()
        self.directory = os.path.join(base, f"node{number}")
        os.makedirs(self.directory)

    def alive(self):
        return self.host is not None


class Cluster:
    """Up to seven nodes. Node 1 founds it; `form` lets the others join."""

    def __init__(self, program, luts, base, latency=40, options=(), node_options=None, slow_disks=False):
        """`slow_disks`: what `slow` needs is put in front of every node's disk."""
        self.base = tempfile.mkdtemp(prefix="cluster-", dir=base)
        self.program, self.latency = program, latency
        self.heartbeat, self.election = latency * 1.5 / 1000, latency * 15 / 1000
        given = node_options or {}
        self.members = {n: Member(n, lut, self.base, [f"latency={latency}", *options, *given.get(n, ())]) for n, lut in enumerate(luts, 1)}
        self.tap = Tap(os.path.join(self.base, "capture.jsonl"), {n: (m.listen, m.target) for n, m in self.members.items()})
        self.load, self.shim = None, compile_shim(self.base) if slow_disks else None

    # -- processes
    def start(self, number, lut=None, wait=20.0, wrapper=()):
        member = self.members[number]
        if self.shim:
            self.slow(number, False)
            wrapper = [*wrapper, "env", f"LD_PRELOAD={self.shim}", f"FAULT_FILE={self.fault_file(number)}"]
        member.lut = lut or member.lut
        self.tap.tell("up", node=number, listen=member.listen, target=member.target)
        self.tap.tell("start", node=number, library=member.lut.name if member.lut.is_c else "ours")
        member.host = nodes.Host(self.program, member.lut, member.directory, member.listen, [f"bind={member.target}", *member.options],
                                 node_id=number, wrapper=wrapper, wait=wait)

    def ended(self, number, how):
        self.tap.tell("down", node=number, how=how)
        self.members[number].host = None

    def kill(self, number):
        member = self.members[number]
        self.tap.tell("down", node=number, how="kill")
        member.host.kill()
        member.host = None

    def stop(self, number, seconds=30):
        host = self.members[number].host
        try:
            host.stop(seconds)
        except subprocess.TimeoutExpired as error:
            host.kill()
            raise Wrong(f"node {number} ({self.kind(number)}) did not stop within {seconds} s") from error
        finally:
            self.ended(number, "stop")

    def pause(self, number):
        self.tap.tell("pause", node=number)
        os.kill(self.pid(number), signal.SIGSTOP)

    def resume(self, number):
        os.kill(self.pid(number), signal.SIGCONT)
        self.tap.tell("resume", node=number)

    def fault_file(self, number):
        return os.path.join(self.base, f"disk{number}")

    def slow(self, number, slow):
        """Whether a sync takes this node two seconds, from now on."""
        path = self.fault_file(number)
        with open(path, "r+b" if os.path.exists(path) else "w+b") as f:
            f.write(b"d" if slow else b"-")
            if f.seek(0, os.SEEK_END) < 16:
                f.write(bytes(16 - f.tell()))

    def delays(self, number):
        """How many syncs of this node were slow."""
        with open(self.fault_file(number), "rb") as f:
            return int.from_bytes(f.read()[8:16], "little")

    def pid(self, number):
        return self.members[number].host.pid

    def kind(self, number):
        return self.members[number].lut.name if self.members[number].lut.is_c else "ours"

    def live(self):
        return [n for n, m in self.members.items() if m.alive()]

    def check_alive(self):
        for number in self.live():
            host = self.members[number].host
            if host.process.poll() is not None:
                out, err = host.process.communicate()
                self.members[number].host = None
                raise Wrong(f"node {number} ({self.kind(number)}) died with {host.process.returncode}: {out[-300:]} {err[-1500:]}")

    # -- the network
    def rule(self, source, to, **rule):
        self.tap.tell("rule", source=source, to=to, rule=rule)

    def cut(self, one, others=None, how="drop"):
        """Nothing passes between `one` and the others, in both directions."""
        others = others or [n for n in self.members if n != one]
        self.rule([one], others, **{how: True})
        self.rule(others, [one], **{how: True})

    def heal(self):
        everyone = list(self.members)
        self.rule(everyone, everyone)

    # -- questions
    def conn(self, number, timeout=5.0):
        return wire_client.Conn(self.members[number].target, timeout=timeout)

    def ask(self, number, name, timeout=5.0, **fields):
        """The answer to one request, or None where the node does not answer."""
        return nodes.ask(self.members[number].target, name, timeout, **fields)

    def number_of(self, address):
        return next((n for n, m in self.members.items() if m.listen == address), None)

    def leaders(self, among=None, timeout=2.0):
        """What each living node believes: {node: leader or None}."""
        said = {}
        for number in among or self.live():
            reply = self.ask(number, "leader", timeout)
            said[number] = self.number_of(reply.get("address")) if reply and reply["response"] == "server" else None
        return said

    def leader_now(self, among=None):
        """The node that says of itself that it leads. After a partition two may say so."""
        said = self.leaders(among)
        own = [n for n, leader in said.items() if leader == n]
        return own[0] if len(own) == 1 else None

    def leader(self, seconds=None, among=None):
        try:
            return until(lambda: f"no leader, nodes say {self.leaders(among)}", seconds or 40 * self.election + 10, lambda: self.leader_now(among))
        except Wrong:
            self.check_alive()
            raise

    def request(self, name, seconds=30, **fields):
        """A request to whoever leads, again until it is done."""
        end, last = time.monotonic() + seconds, None
        while time.monotonic() < end:
            leader = self.leader_now()
            if leader:
                last = self.ask(leader, name, 10.0, **fields)
                if last and last["response"] != "failure":
                    return last
            time.sleep(0.05)
        self.check_alive()
        raise Wrong(f"{name} {fields}: last answer {last}")

    def servers(self, number=None):
        reply = self.ask(number, "cluster", format=1) if number else self.request("cluster", format=1)
        if not reply or reply["response"] != "servers":
            return None
        return {s["id"]: s["role"] for s in reply["servers"]}

    # -- membership
    def form(self, roles=None, seconds=30):
        """Starts all nodes; node 1 founds the cluster, the others are added and get their roles (voters where nothing is said)."""
        roles = roles or {}
        for number in self.members:
            self.start(number)
        self.leader(20, [1])
        for number in list(self.members)[1:]:
            self.join(number, roles.get(number, VOTER), seconds)

    def join(self, number, role=VOTER, seconds=30):
        self.change(lambda servers: number in servers, seconds, "add", id=number, address=self.members[number].listen)
        if role != SPARE:
            self.assign(number, role, seconds)

    def assign(self, number, role, seconds=30):
        self.change(lambda servers: servers.get(number) == role, seconds, "assign", id=number, role=role)

    def remove(self, number, seconds=30):
        self.change(lambda servers: number not in servers, seconds, "remove", id=number)

    def change(self, done, seconds, name, **fields):
        """Asks for a change until it is made: answers are lost, leaders change, and only one change at a time is let in."""
        said = []

        def made():
            leader = self.leader_now()
            servers = leader and self.servers(leader)
            if not servers:
                return False
            if done(servers):
                return True
            said.append(self.ask(leader, name, 10.0, **fields))
            return said[-1] and said[-1]["response"] == "empty"

        try:
            until(lambda: f"{name} {fields}: leaders {self.leaders()}, answers {said[-2:]}", seconds, made)
        except Wrong:
            self.check_alive()
            raise

    def transfer(self, to, seconds=30):
        said = []

        def done():
            leader = self.leader_now()
            if leader and leader != to:
                said.append(self.ask(leader, "transfer", 10.0, id=to))
            return self.leader_now() == to

        until(lambda: f"leadership to node {to} ({self.kind(to)}), nodes say {self.leaders()}, answers {said[-2:]}", seconds, done)

    # -- the end
    def settle(self, seconds=30, among=None):
        """Waits until every node that is replicated to has all entries and knows that they are committed. Returns (leader, last index)."""
        there = {}

        def quiet():
            there.clear()
            leader = self.leader_now(among)
            servers = self.servers(leader) if leader else None
            if not servers:
                return None
            state = self.tap.tell("state")
            sent = {(s[0], s[1]): s[2:] for s in state["sent"]}
            answered = {(s[0], s[1]): s[2:] for s in state["answered"]}
            others = [n for n in servers if n != leader and servers[n] != SPARE and n in (among or self.live())]
            for n in others:
                there[n] = sent.get((leader, n)), answered.get((n, leader))
            ends = set()
            for s, a in there.values():
                if not s or not a or s[1] != s[2] or a[0] != s[0] or a[1] != 0 or a[2] != s[1] or a[3] < s[3] - 1:
                    return None
                ends.add(s[1])
            return (leader, ends.pop() if ends else 0) if len(ends) <= 1 else None

        try:
            return until(lambda: f"nodes do not agree: leaders {self.leaders()}, sent and answered {there}", seconds, quiet)
        except Wrong:
            self.check_alive()
            raise

    def settle_live(self, seconds):
        """As `settle`, while writers go on: every living node has acknowledged an append of the leader's term that ends near its last."""
        def near():
            leader = self.leader_now()
            servers = self.servers(leader) if leader else None
            if not servers:
                return False
            state = self.tap.tell("state")
            sent = {(s[0], s[1]): s[2:] for s in state["sent"]}
            answered = {(s[0], s[1]): s[2:] for s in state["answered"]}
            for n in self.live():
                if n != leader and servers.get(n, SPARE) != SPARE:
                    s, a = sent.get((leader, n)), answered.get((n, leader))
                    if not s or not a or a[0] != s[0] or a[1] != 0 or a[2] < s[1] - 50:
                        return False
            return True

        try:
            until(lambda: f"nodes fall behind, leaders {self.leaders()}", seconds, near)
        except Wrong:
            self.check_alive()
            raise

    def verify(self, among=None):
        """All nodes hold the same: first asked while they run, then read from their directories. Stops them."""
        among = among or self.live()
        leader, index = self.settle(among=among)
        servers = self.servers(leader)
        replicated = [n for n in among if n in servers and servers[n] != SPARE]
        until("every node's dump is the same", 20, lambda: self.same_dumps(replicated), 0.2)
        for number in self.live():
            self.stop(number)
        return self.same_directories(replicated), index

    def same_dumps(self, among):
        told = {n: self.dump(n) for n in among}
        first = told[among[0]]
        return first is not None and all(t == first for t in told.values())

    def dump(self, number):
        """A digest of what the node's database holds, from its own dump."""
        reply = self.ask(number, "dump", 20.0, filename=DATABASE)
        if not reply or reply["response"] != "files":
            return None
        with tempfile.TemporaryDirectory(dir=self.base) as folder:
            for name, data in reply["files"]:
                with open(os.path.join(folder, os.path.basename(name)), "wb") as f:
                    f.write(data)
            return digest(os.path.join(folder, DATABASE))

    def same_directories(self, among):
        """Compares the logs and what they and the snapshots make of the databases. Returns the rows of the ledger of one node."""
        loaded = {n: load_directory(self.members[n].directory) for n in among}
        first, rows = among[0], None
        for n in among:
            for other in among:
                if other < n:
                    compare_logs(n, loaded[n], other, loaded[other])
            images = loaded[n].images()
            with tempfile.NamedTemporaryFile(dir=self.base) as f:
                image = bytearray(images.get(DATABASE, b""))
                if image:
                    image[18] = image[19] = 1
                f.write(image)
                f.flush()
                told, found = digest(f.name), ledger_rows(f.name)
            if rows is None:
                rows, expected = found, told
            elif told != expected:
                raise Wrong(f"the directories of node {first} ({self.kind(first)}) and node {n} ({self.kind(n)}) hold different databases:"
                            f" {len(rows)} and {len(found)} rows, only in one: {sorted(rows.items() ^ found.items())[:6]}")
        return rows

    def close(self, keep):
        if self.load:
            self.load.stop()
        for number in self.live():
            self.members[number].host.kill()
        self.tap.close()
        if not keep:
            shutil.rmtree(self.base, ignore_errors=True)


def compile_shim(folder):
    path = os.path.join(folder, "shim.so")
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", path,
                    os.path.join(ROOT, "tests", "crash", "shim.c"), "-ldl"], check=True)
    return path


def digest(path):
    conn = sqlite3.connect(path)
    conn.text_factory = bytes
    try:
        names = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        told = hashlib.sha1()
        for name in names:
            for row in conn.execute(f'SELECT * FROM "{name.decode()}" ORDER BY 1, 2'):
                told.update(repr(row).encode())
        return told.hexdigest(), [row[0] for row in conn.execute("PRAGMA integrity_check")]
    except sqlite3.Error as error:
        return str(error), []
    finally:
        conn.close()


def ledger_rows(path):
    conn = sqlite3.connect(path)
    try:
        return {(writer, n): value for writer, n, value in conn.execute("SELECT writer, n, value FROM ledger")}
    except sqlite3.Error:
        return {}
    finally:
        conn.close()


def load_directory(path):
    files, said = datadir.read_dir(path), []
    for compression in (True, False):
        start = datadir.Start(dict(files), "1.18.6", True, compression, 0)
        if start.start_rc == 0 and not start.crash and start.error != "bootstrapped":
            return start
        said.append(f"{start.error} {start.crash or ''}")
    raise Wrong(f"{path} cannot be loaded: {said}")


def compare_logs(one, first, two, second):
    for index in sorted(first.entries.keys() & second.entries.keys()):
        a, b = first.entries[index], second.entries[index]
        same = (a.term, a.type) == (b.term, b.type)
        if a.type == 3 and same:
            same = datadir.decode_configuration(a.data)["servers"] == datadir.decode_configuration(b.data)["servers"]
        elif a.type == 1 and same:
            same = a.data == b.data
        if not same:
            raise Wrong(f"entry {index} is term {a.term} type {a.type} on node {one}, term {b.term} type {b.type} on node {two}"
                        + ("" if (a.term, a.type) != (b.term, b.type) else " with other data"))


class Writer(threading.Thread):
    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.number, self.acked, self.last = load, number, 0, time.monotonic()
        self.longest = 0.0

    def run(self):
        conn = None
        while not self.load.ending.is_set():
            try:
                conn = conn or self.load.connect()
                if conn is None:
                    self.load.ending.wait(0.03)
                    continue
                # Again until it is acknowledged: whether a lost answer meant done is not known.
                n = self.load.sent[self.number] = self.acked + 1
                reply = conn.call("exec_sql", db=0, sql=INSERT, params=[self.number, n, content(self.number, n)])
                if reply["response"] == "result":
                    now = time.monotonic()
                    self.longest, self.last = max(self.longest, now - self.last), now
                    self.acked = self.load.acked[self.number] = n
                    self.load.ending.wait(self.load.pause)
                    continue
                code = reply.get("code")
                key = (code, reply.get("message"))
                self.load.refusals[key] = self.load.refusals.get(key, 0) + 1
                if code not in (5, 517):
                    conn.close()
                    conn = None
                self.load.ending.wait(0.02)
            except (OSError, EOFError, ValueError):
                if conn:
                    conn.close()
                conn = None
                self.load.ending.wait(0.03)
        if conn:
            conn.close()


class Reader(threading.Thread):
    """Reads rows that were acknowledged before it asked; each has to be there as it was written."""

    def __init__(self, load):
        super().__init__(daemon=True)
        self.load, self.count, self.wrong = load, 0, None

    def run(self):
        conn = None
        while not self.load.ending.wait(0.01) and self.wrong is None:
            try:
                conn = conn or self.load.connect()
                writer, top = random.choice(sorted(self.load.acked.items()) or [(0, 0)])
                if conn is None or top == 0:
                    continue
                n = random.choice((top, random.randint(1, top)))
                reply = conn.query(f"SELECT value FROM ledger WHERE writer = {writer} AND n = {n}")
                if reply["response"] != "rows":
                    # Another leader, or none: who refuses says nothing wrong.
                    conn.close()
                    conn = None
                    continue
                self.count += 1
                if [[value for _, value in row] for row in reply["rows"]] != [[content(writer, n)]]:
                    self.wrong = f"row {n} of writer {writer}, {top} acknowledged, reads as {str(reply['rows'])[:80]}"
            except (OSError, EOFError, ValueError):
                if conn:
                    conn.close()
                conn = None
        if conn:
            conn.close()


def content(writer, n):
    return (f"{writer}:{n};" * 200)[:40 if n % 25 else 1800]


class Load:
    """Writers that find the leader by themselves; what was acknowledged must be there in the end."""

    def __init__(self, cluster, writers=3, rate=60.0, timeout=2.0, reads=False):
        self.cluster, self.pause, self.timeout = cluster, writers / rate, timeout
        self.acked, self.sent, self.refusals, self.ending = {}, {}, {}, threading.Event()
        cluster.load = self
        self.create()
        self.writers, self.reader = [Writer(self, n) for n in range(writers)], Reader(self) if reads else None

    def __enter__(self):
        self.run()
        return self

    def __exit__(self, *_):
        self.stop()

    def create(self):
        def made():
            conn = self.connect()
            if conn is None:
                return False
            try:
                sql = "CREATE TABLE IF NOT EXISTS ledger(writer INTEGER, n INTEGER, value TEXT, PRIMARY KEY(writer, n))"
                return conn.call("exec_sql", db=0, sql=sql)["response"] == "result"
            except (OSError, EOFError):
                return False
            finally:
                conn.close()

        until("the table could be made", 30, made)

    def connect(self):
        """A connection to the leader as one of the nodes names it, or None."""
        live = self.cluster.live()
        random.shuffle(live)
        for number in live:
            reply = self.cluster.ask(number, "leader", self.timeout)
            leader = self.cluster.number_of(reply["address"]) if reply and reply["response"] == "server" else None
            if leader is None or not self.cluster.members[leader].alive():
                continue
            try:
                conn = self.cluster.conn(leader, self.timeout)
                if conn.call("open", filename=DATABASE, flags=0, vfs="")["response"] == "db":
                    return conn
                conn.close()
            except (OSError, EOFError):
                pass
        return None

    def run(self):
        if self.ending.is_set():
            self.ending = threading.Event()
        self.writers = [Writer(self, w.number) for w in self.writers]
        for writer in self.writers:
            writer.acked = self.acked.get(writer.number, 0)
            writer.start()
        if self.reader:
            self.reader = Reader(self)
            self.reader.start()

    def stop(self):
        self.ending.set()
        for writer in self.writers:
            if writer.is_alive():
                writer.join(15)
        if self.reader and self.reader.is_alive():
            self.reader.join(15)

    def total(self):
        return sum(self.acked.values())

    def more(self, count, seconds=60):
        """Waits until that many more rows were acknowledged."""
        aim = self.total() + count
        began = time.monotonic()
        try:
            until(f"{count} more rows acknowledged", seconds, lambda: self.total() >= aim)
        except Wrong as error:
            self.cluster.check_alive()
            raise Wrong(f"{error}; {aim - self.total()} are missing, nodes say {self.cluster.leaders()}, refused {self.refusals}") from None
        return time.monotonic() - began

    def write(self, count, seconds=60):
        """Writes about that many rows with all writers and stops them."""
        self.run()
        try:
            self.more(count, seconds)
        finally:
            self.stop()

    def judge(self, rows):
        """Every acknowledged row is there, none that was never sent; and nothing else was read meanwhile."""
        if self.reader and (self.reader.wrong or not self.reader.count):
            raise Wrong(f"{self.reader.count} reads, {self.reader.wrong}")
        for writer, top in self.acked.items():
            for n in range(1, top + 1):
                if rows.get((writer, n)) != content(writer, n):
                    raise Wrong(f"writer {writer}: row {n} of {top} acknowledged ones is lost or changed: {str(rows.get((writer, n)))[:60]}")
        for writer, n in rows:
            if n > self.sent.get(writer, 0):
                raise Wrong(f"writer {writer}: row {n} was never sent")

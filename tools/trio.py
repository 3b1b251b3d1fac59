"""Clusters of nodes on any libdqlite, without anything between them: formed, led, loaded and measured by benchmarks."""
import os
import socket
import time

import nodes

VOTER, STANDBY, SPARE = 0, 1, 2
TICK = os.sysconf("SC_CLK_TCK")


def status_mib(pid, field):
    """A line of /proc/PID/status, in MiB."""
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise nodes.StartFailed(f"process {pid} has no {field}")


class Trio:
    """Nodes 1, 2, ... in directories below `base`, each on its library; node 1 founds the cluster."""

    def __init__(self, program, luts, base, options=(), form=True):
        self.program, self.luts, self.base, self.options = program, luts, base, list(options)
        self.addresses = [nodes.free_address() for _ in luts]
        self.hosts = [None] * len(luts)
        for at in range(len(luts)):
            os.makedirs(self.directory(at))
        self.start(0)
        for at in range(1, len(luts) if form else 1):
            self.start(at)
            self.join(at)

    def directory(self, at):
        return os.path.join(self.base, f"node{at + 1}")

    def start(self, at, wrapper=()):
        options = [] if self.luts[at].name == "bookworm" else self.options
        self.hosts[at] = nodes.Host(self.program, self.luts[at], self.directory(at), self.addresses[at], options, node_id=at + 1, wrapper=wrapper,
                                    environment={"LIBDQLITE_METRICS": self.metrics_name(at)})

    def metrics_name(self, at):
        return f"@{os.path.basename(self.base)}-{at + 1}"

    def metrics(self, at):
        """The figures that a node of this library tells, by name and labels without the node's; empty of the C library's nodes."""
        if self.luts[at].is_c:
            return {}
        with socket.socket(socket.AF_UNIX) as s:
            s.connect("\0" + self.metrics_name(at)[1:])
            s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            page = s.makefile().read()
        lines = [line.rpartition(" ") for line in page.splitlines() if line.startswith("dqlite_")]
        return {name.replace(f'node="{at + 1}",', "").replace(f'{{node="{at + 1}"}}', ""): float(value) for name, _, value in lines}

    def kill(self, at):
        self.hosts[at].kill()
        self.hosts[at] = None

    def close(self):
        for host in self.hosts:
            if host:
                host.kill()

    def live(self):
        return [at for at, host in enumerate(self.hosts) if host]

    def ask(self, at, name, timeout=10.0, **fields):
        """The answer to one request, or None where the node gives none."""
        return nodes.ask(self.addresses[at], name, timeout, **fields)

    def find_leader(self):
        """The node that says of itself that it leads, now."""
        for at in self.live():
            reply = self.ask(at, "leader", timeout=2.0)
            if reply and reply.get("address") == self.addresses[at]:
                return at
        return None

    def leader(self, seconds=60.0):
        return self.until("a leader", seconds, lambda: (lambda at: None if at is None else [at])(self.find_leader()))[0]

    def until(self, what, seconds, condition, pause=0.01):
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > end:
                raise nodes.StartFailed(f"{what}: not within {seconds:g} s")
            time.sleep(pause)

    def join(self, at, seconds=60.0):
        """Makes a running node a voter."""
        self.change(at, seconds, lambda roles: at + 1 in roles, "add", id=at + 1, address=self.addresses[at])
        self.change(at, seconds, lambda roles: roles.get(at + 1) == VOTER, "assign", id=at + 1, role=VOTER)

    def change(self, at, seconds, done, name, **fields):
        said = []

        def made():
            leader = self.find_leader()
            if leader is None:
                return False
            reply = self.ask(leader, name, timeout=seconds, **fields)
            said.append(reply)
            servers = self.ask(leader, "cluster", format=1)
            return bool(servers) and "servers" in servers and done({s["id"]: s["role"] for s in servers["servers"]})

        try:
            self.until(name, seconds, made)
        except nodes.StartFailed as error:
            raise nodes.StartFailed(f"{error}; node {at + 1}: {said[-1:]}") from None

    def holds(self, at, database, content):
        """Whether the node's own copy of a small database has these bytes in it."""
        reply = self.ask(at, "dump", filename=database)
        return bool(reply) and any(content in data for _, data in reply.get("files", []))

    # -- what it takes
    def processor(self):
        """Seconds of processor time that the living nodes have taken so far."""
        total = 0
        for at in self.live():
            fields = open(f"/proc/{self.hosts[at].pid}/stat").read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def memory_mib(self):
        """What each living node has in memory."""
        return [status_mib(self.hosts[at].pid, "VmRSS") for at in self.live()]

    def peaks_mib(self):
        """What each living node had in memory at most."""
        return [status_mib(self.hosts[at].pid, "VmHWM") for at in self.live()]

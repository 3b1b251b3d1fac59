"""Starts, stops and kills single nodes (benches/host.c on any libdqlite) for crash tests, handovers and benchmarks."""
import os
import random
import select
import signal
import socket
import subprocess
import time

import library
import wire_client

BUILD = os.path.join(library.ROOT, "target", "library")


def free_address():
    """A loopback address whose port is free, below the range the kernel hands out by itself."""
    while True:
        port = random.randrange(12000, 30000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return f"127.0.0.1:{port}"
            except OSError:
                continue


def ask(address, name, timeout, /, **fields):
    """The answer to one request, or None where the node at this address gives none."""
    try:
        conn = wire_client.Conn(address, timeout=timeout)
    except OSError:
        return None
    try:
        return conn.call(name, **fields)
    except (OSError, EOFError):
        return None
    finally:
        conn.close()


def build_host(lut):
    os.makedirs(BUILD, exist_ok=True)
    return lut.compile(os.path.join(library.ROOT, "benches", "host.c"), os.path.join(BUILD, f"host-{os.getpid()}"), BUILD)


class StartFailed(Exception):
    pass


class Host:
    """One node in its own process."""

    def __init__(self, program, lut, directory, address, options=(), node_id=1, wrapper=(), wait=20.0, environment=None):
        self.lut, self.address, self.directory = lut, address, directory
        argv = [*wrapper, *lut.command([program, str(node_id), address, directory, *options])]
        self.process = subprocess.Popen(argv, env=lut.environment(**environment or {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        if wait:
            self.wait_ready(wait)

    def wait_ready(self, seconds):
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        if not line.startswith("READY"):
            self.process.kill()
            _, err = self.process.communicate()
            raise StartFailed(line.strip() or f"no answer in {seconds} s (exit {self.process.returncode}) {err[-2000:]}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def stop(self, seconds=20):
        out, err = self.process.communicate(timeout=seconds)
        if self.process.returncode != 0 or "STOPPED 0" not in out:
            raise StartFailed(f"stop: exit {self.process.returncode} {out.strip()} {err[-2000:]}")

    def client(self, database=None, timeout=10.0):
        """A connection that has opened `database`; waits for the node to lead (a lone voter does at once)."""
        end = time.monotonic() + timeout
        while True:
            try:
                conn = wire_client.Conn(self.address, timeout=timeout)
                reply = conn.call("open", filename=database, flags=0, vfs="") if database else None
                if not reply or reply["response"] == "db":
                    return conn
                conn.close()
            except (OSError, EOFError) as error:
                reply = error
            if time.monotonic() > end:
                raise StartFailed(f"{self.address} does not serve: {reply}")
            time.sleep(0.01)

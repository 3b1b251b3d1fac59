"""The network between the nodes of a test: a proxy that knows the messages of the peer protocol.

tap.py CAPTURE ID=LISTEN=TARGET...     run by members.Tap, which writes commands to its standard input and reads one answer for each

The address of node ID in the configuration is LISTEN, the node itself listens at TARGET: all that other nodes send to it passes here,
message by message. Each message is written to CAPTURE (a line of JSON) with the time it came, the time it went on and what is in it.
A rule for (from, to) says what happens to messages between two nodes; the newest rule for a pair holds:
  drop     nothing arrives, connections stay
  hold     what is sent waits until the rule is lifted
  delay    seconds; with `types` for these message types only
  loss     the part of the messages that is lost
  trickle  seconds that the data of an install_snapshot take
  junk     true: bytes that no receiver may look at become random
"""
import asyncio
import hashlib
import json
import os
import random
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))), "tools"))
import peer_tap  # noqa: E402

HANDSHAKE, CONNECT = 8, peer_tap.CONNECT
INSTALL = 5


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def entries_of(fields, payload):
    """[term, type, size, digest or configuration] of each entry of an append."""
    out, at = [], 0
    for entry in fields["entries"]:
        data = payload[at:at + entry["size"]]
        at += entry["size"]
        if entry["type"] == "change":
            conf, _ = peer_tap.decode_configuration(data)
            content = [[server["id"], server["address"], server["role"]] for server in conf]
        else:
            content = hashlib.sha1(data).hexdigest()[:16] if entry["type"] == "command" else None
        out.append([entry["term"], entry["type"], entry["size"], content])
    return out


def with_junk(mtype, header, payload):
    """The same message with other bytes where none is looked at."""
    header, payload = bytearray(header), bytearray(payload)
    fields, _, lens = peer_tap.decode_header(mtype, bytes(header))
    if mtype == 1:
        at = 0
        for number, (entry, size) in enumerate(zip(fields["entries"], lens)):
            header[49 + 16 * number:52 + 16 * number] = os.urandom(3)
            if entry["type"] == "barrier":
                payload[at:at + size] = os.urandom(size)
            elif entry["type"] == "change":
                _, used = peer_tap.decode_configuration(bytes(payload[at:at + size]))
                payload[at + used:at + size] = os.urandom(size - used)
            at += size
        end = 40 + 16 * len(lens)
        header[end:] = os.urandom(len(header) - end)
    elif mtype == INSTALL:
        end = 48 + fields["conf_size"]
        header[end:] = os.urandom(len(header) - end)
    return bytes(header), bytes(payload)


class Link:
    """One connection from a node to another, or from a client to a node."""

    def __init__(self, tap, number, to, reader, writer):
        self.tap, self.number, self.to, self.reader, self.writer = tap, number, to, reader, writer
        self.source, self.queue, self.other = None, asyncio.Queue(), None

    async def run(self):
        try:
            handshake = await self.reader.readexactly(HANDSHAKE)
            head = await self.reader.readexactly(8)
            words, mtype = struct.unpack_from("<IB", head)
            self.other = await asyncio.open_connection(*self.tap.targets[self.to])
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return
        try:
            if mtype == CONNECT and words < 1000:
                await self.peer(handshake + head + await self.reader.readexactly(8 * words))
            else:
                self.other[1].write(handshake + head)
                await asyncio.gather(self.copy(self.reader, self.other[1]), self.copy(self.other[0], self.writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.tap.write(event="closed", conn=self.number)
            self.close()

    def close(self):
        self.writer.close()
        if self.other:
            self.other[1].close()

    async def copy(self, reader, writer):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def peer(self, opening):
        self.source = struct.unpack_from("<Q", opening, 16)[0]
        end = opening.index(0, 24)
        self.tap.write(event="connect", conn=self.number, source=self.source, to=self.to, opening=opening.hex(),
                       address=opening[24:end].decode(errors="replace"))
        tasks = [asyncio.ensure_future(t) for t in (self.receive(opening), self.deliver(), self.backtalk())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (OSError, asyncio.IncompleteReadError):
            # What came before the sender closed still arrives.
            if not tasks[1].done():
                self.queue.put_nowait(None)
                await asyncio.wait([tasks[1]], timeout=30)
        finally:
            for task in tasks:
                task.cancel()

    async def backtalk(self):
        """Nothing is ever written on an accepted connection."""
        data = await self.other[0].read(64)
        if data:
            self.tap.write(event="backtalk", conn=self.number, source=self.source, to=self.to, hex=data.hex())

    def rule(self):
        return self.tap.rules.get((self.source, self.to)) or {}

    async def receive(self, opening):
        self.queue.put_nowait((0, [opening], None))
        while True:
            head = await self.reader.readexactly(16)
            came = time.time()
            mtype, size = struct.unpack("<QQ", head)
            if mtype & 0xffff not in peer_tap.TYPES or size > 1 << 26:
                self.tap.write(event="undecodable", conn=self.number, source=self.source, to=self.to, hex=head.hex())
                raise OSError("not a message")
            header = await self.reader.readexactly(size)
            fields, length, _ = peer_tap.decode_header(mtype & 0xffff, header)
            if mtype == INSTALL and not self.rule():
                # Otherwise it would be seen only when it is complete.
                self.tap.write(event="install_begins", source=self.source, to=self.to, size=length)
            payload = await self.reader.readexactly(length)
            self.pass_on(came, mtype, head, header, payload, fields)

    def pass_on(self, came, mtype, head, header, payload, fields):
        name, rule = peer_tap.TYPES[mtype & 0xffff], self.rule()
        record = dict(conn=self.number, source=self.source, to=self.to, came=came, kind=name, type=mtype, header=len(header))
        record.update({k: v for k, v in fields.items() if k not in ("entries", "conf", "trailing", "conf_padding")})
        if mtype == 1:
            record["entries"] = entries_of(fields, payload)
        if mtype == INSTALL:
            record["conf"] = [[s["id"], s["address"], s["role"]] for s in fields["conf"]]
            record["digest"] = hashlib.sha1(payload).hexdigest()[:16]
        if rule.get("drop") or random.random() < rule.get("loss", 0):
            self.tap.write(**record, went=None)
            return
        if rule.get("junk"):
            header, payload = with_junk(mtype, header, payload)
        due = came
        if "delay" in rule and name in rule.get("types", (name,)):
            due += rule["delay"] * (1 + rule.get("jitter", 0) * random.random())
        pieces = [head + header, payload]
        if rule.get("trickle") and mtype == INSTALL:
            self.tap.write(event="install_begins", source=self.source, to=self.to, size=len(payload))
            step = max(1, len(payload) // 20)
            pieces = [head + header, *(payload[i:i + step] for i in range(0, len(payload), step))]
        self.queue.put_nowait((due, pieces, record))

    async def deliver(self):
        while True:
            item = await self.queue.get()
            if item is None:
                return
            due, pieces, record = item
            while self.rule().get("hold"):
                await asyncio.sleep(0.01)
            if (wait := due - time.time()) > 0:
                await asyncio.sleep(wait)
            if record and self.rule().get("drop"):
                self.tap.write(**record, went=None)
                continue
            trickle = self.rule().get("trickle", 0) if len(pieces) > 2 else 0
            for piece in pieces:
                self.other[1].write(piece)
                if trickle:
                    await self.other[1].drain()
                    await asyncio.sleep(trickle / len(pieces))
            await self.other[1].drain()
            if record:
                record["went"] = time.time()
                self.tap.write(**record)
                self.tap.progress(record)


class Tap:
    def __init__(self, capture, nodes):
        self.targets, self.listen, self.servers, self.links = {}, {}, {}, set()
        for text in nodes:
            number, listen, target = text.split("=")
            self.listen[int(number)], self.targets[int(number)] = address(listen), address(target)
        self.out, self.rules, self.count = open(capture, "w"), {}, 0
        self.sent, self.answered, self.kinds = {}, {}, {}

    def write(self, **record):
        record.setdefault("t", time.time())
        self.out.write(json.dumps(record, separators=(",", ":")) + "\n")

    def progress(self, record):
        """The newest append and answer of each pair: when both agree with each other nothing is on its way."""
        pair = (record["source"], record["to"])
        kind = record["kind"]
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind == "append_entries" and record["prev_log_index"] < 1 << 62:
            end = record["prev_log_index"] + record["n_entries"]
            self.sent[pair] = [record["term"], end, record["leader_commit"], record["went"]]
        elif kind == "append_entries_result" and record["rejected"] < 1 << 62:
            self.answered[pair] = [record["term"], record["rejected"], record["last_log_index"], record["went"]]

    async def accept(self, to, reader, writer):
        self.count += 1
        link = Link(self, self.count, to, reader, writer)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)

    async def up(self, node):
        if node not in self.servers:
            self.servers[node] = await asyncio.start_server(lambda r, w: self.accept(node, r, w), *self.listen[node])

    async def command(self, what, **args):
        if what == "up":
            if args.get("target"):
                self.targets[args["node"]] = address(args["target"])
            if args.get("listen"):
                self.listen[args["node"]] = address(args["listen"])
            await self.up(args["node"])
        elif what == "down":
            if server := self.servers.pop(args["node"], None):
                server.close()
        elif what == "rule":
            for source in args["source"]:
                for to in args["to"]:
                    if source != to:
                        self.rules[(source, to)] = args["rule"]
        elif what == "state":
            self.out.flush()
            return dict(sent=[[*k, *v] for k, v in self.sent.items()], answered=[[*k, *v] for k, v in self.answered.items()], kinds=self.kinds)
        else:
            # Something the test did, kept for the checks.
            self.out.flush()
        if what != "state":
            self.write(event=what, **args)
        return {}

    async def run(self):
        loop = asyncio.get_running_loop()
        stdin = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
        while line := await stdin.readline():
            try:
                answer = await self.command(**json.loads(line))
            except Exception as error:  # the test must see it instead of waiting
                answer = {"error": repr(error)}
            print(json.dumps(answer), flush=True)
        self.out.close()


if __name__ == "__main__":
    asyncio.run(Tap(sys.argv[1], sys.argv[2:]).run())
    # Connections that are still open need no farewell.
    sys.stdout.flush()
    os._exit(0)

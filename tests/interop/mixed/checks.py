#!/usr/bin/env python3
"""What must hold for every capture of the peer protocol, whoever took part: W1 to W12.

usage: checks.py CAPTURE.jsonl...      prints what is wrong, exit 1 then

W1  handshake and CONNECT to the byte, nothing ever written back on such a connection
W2  the length of each message is one that this kind of node sends
W3  the length of every entry is a multiple of 8
W4  one leader per term; only a sole voter of the C library may follow another within a term
W5  term and index determine an entry: type and data, over all connections
W6  every append of our leaders ends at an entry of the leader's own term
W7  a node acknowledges nothing beyond what it was sent or wrote as a leader
W8  a node grants its vote of a term to one candidate only
W9  the term of a node never falls, restarts included
W10 C nodes answer every request_vote that reaches them
W11 leader_commit never falls within a term, as one follower sees it
W12 leader_commit moves only to what had been delivered to a majority of the voters
"""
import collections
import json
import struct
import sys

LABEL = 1 << 62
OLD = {"bookworm"}                       # 24 bytes of append_entries_result, barrier without a leader's own
LONG_SNAPSHOT = {"bookworm", "trixie"}   # 8 bytes behind the last field
ANSWER_SECONDS = 5.0


class Checker:
    def __init__(self):
        self.wrong, self.kinds, self.events = [], {}, []
        self.leaders = collections.defaultdict(list)      # term: senders in order
        self.entries, self.reached = {}, collections.defaultdict(int)
        self.voters, self.grants, self.terms, self.commits = {}, {}, {}, {}
        self.newest, self.born, self.pending, self.counts = {}, {}, [], collections.Counter()
        self.down, self.down_at, self.paused = set(), {}, set()
        self.blocked = False
        self.electorates, self.delivered, self.first_commit = [], collections.defaultdict(list), {}

    def fail(self, rule, record, text):
        if len(self.wrong) < 50:
            self.wrong.append(f"{rule} {record.get('t', 0):.3f} {record.get('source')}->{record.get('to')} conn {record.get('conn')}: {text}")

    def ours(self, node):
        return self.kinds.get(node) == "ours"

    def feed(self, r):
        if "event" in r:
            self.event(r)
            return
        self.counts[r["kind"]] += 1
        self.lengths(r)
        getattr(self, r["kind"])(r)
        self.term(r)

    def event(self, r):
        what = r["event"]
        if what == "start":
            self.kinds[r["node"]] = r["library"]
            self.down.discard(r["node"])
        elif what in ("down", "pause"):
            self.down.add(r["node"])
            self.down_at[r["node"]] = r["t"]
        elif what == "resume":
            self.down.discard(r["node"])
        elif what == "rule":
            self.blocked = bool(r["rule"])
            if self.blocked:
                self.pending.clear()
        elif what == "connect":
            self.opening(r)
        elif what == "backtalk":
            self.fail("W1", r, f"the accepting node wrote {r['hex']}")
        elif what == "undecodable":
            self.fail("W2", r, f"not a message: {r['hex']}")

    def opening(self, r):
        text = r["address"].encode() + b"\0"
        text += bytes(-len(text) % 8)
        want = struct.pack("<QIBBHQ", 1, 1 + len(text) // 8, 11, 0, 0, r["source"]) + text
        if bytes.fromhex(r["opening"]) != want:
            self.fail("W1", r, f"opening bytes {r['opening']}, expected {want.hex()}")
        self.born[r["conn"]] = r["t"]
        pair = (r["source"], r["to"])
        self.newest[pair] = max(self.newest.get(pair, 0), r["conn"])

    def lengths(self, r):
        kind, size, sender = r["kind"], r["header"], self.kinds.get(r["source"])
        want = {"append_entries": lambda: {40 + 16 * r["n_entries"], 48 + 16 * r["n_entries"]},
                "append_entries_result": lambda: {24} if sender in OLD else {32},
                "request_vote": lambda: {40}, "request_vote_result": lambda: {24}, "timeout_now": lambda: {24},
                "install_snapshot": lambda: {56 + r["conf_size"]} if sender in LONG_SNAPSHOT else {48 + r["conf_size"]}}[kind]()
        if size not in want:
            self.fail("W2", r, f"{kind} of {sender} has {size} bytes of header, expected {sorted(want)}")
        if r["type"] >> 16:
            self.fail("W2", r, f"type {r['type']:#x}")

    # -- messages
    def append_entries(self, r):
        term, prev, node = r["term"], r["prev_log_index"], r["source"]
        self.leads(r)
        if prev >= LABEL:
            return
        for number, (entry_term, kind, size, data) in enumerate(r["entries"], 1):
            if size % 8:
                self.fail("W3", r, f"entry {prev + number} has {size} bytes")
            self.entry(r, prev + number, entry_term, kind, data)
        last_term = r["entries"][-1][0] if r["entries"] else r["prev_log_term"]
        if self.ours(node) and last_term != term:
            self.fail("W6", r, f"append of term {term} ends at {prev + r['n_entries']} of term {last_term}")
        # Its own log: what it sends it has, whether it arrives or not.
        end = prev + r["n_entries"]
        self.reached[node] = max(self.reached[node], end)
        if r["went"] is not None:
            self.reached[r["to"]] = max(self.reached[r["to"]], end)
        key = (node, term, r["to"])
        if self.current(r):
            if r["leader_commit"] < self.commits.get(key, 0):
                self.fail("W11", r, f"leader_commit {r['leader_commit']} after {self.commits[key]} in term {term}")
            self.commits[key] = max(self.commits.get(key, 0), r["leader_commit"])
        self.committed(r)
        if r["went"] is not None:
            self.delivered[key].append((r["went"], end))

    def committed(self, r):
        """What a leader counts as committed beyond what it found so at its start."""
        node, term, commit = r["source"], r["term"], r["leader_commit"]
        if commit <= self.first_commit.setdefault((node, term), commit):
            return
        # The newest configuration may not have reached the leader when it counted, so the one before will do too.
        for voters in self.electorates[-3:]:
            have = sum(1 for v in voters if v == node
                       or any(went <= r["came"] and end >= commit for went, end in reversed(self.delivered[(node, term, v)])))
            if have > len(voters) // 2:
                return
        if self.electorates:
            self.fail("W12", r, f"leader_commit {commit} in term {term}: delivered to less than a majority of {self.electorates[-1]}")

    def leads(self, r):
        term, node = r["term"], r["source"]
        row = self.leaders[term]
        if not row or row[-1] == node:
            row[:] = [node]
        elif self.ours(node) or self.voters.get(term) != {node}:
            self.fail("W4", r, f"leads term {term} after node {row[-1]} did, voters {self.voters.get(term)}")
        else:
            row.append(node)

    def entry(self, r, index, term, kind, data):
        known = self.entries.setdefault((term, index), (kind, data))
        if known != (kind, data):
            self.fail("W5", r, f"entry {index} of term {term} is {kind} {data}, was {known}")
        if kind == "change":
            voters = {number for number, _, role in data if role == "voter"}
            self.voters[r["term"]] = voters
            if not self.electorates or self.electorates[-1] != voters:
                self.electorates.append(voters)

    def append_entries_result(self, r):
        if r["rejected"] == 0 and r["last_log_index"] > self.reached[r["source"]]:
            self.fail("W7", r, f"acknowledges {r['last_log_index']}, was sent {self.reached[r['source']]}")

    def install_snapshot(self, r):
        self.leads(r)
        self.reached[r["source"]] = max(self.reached[r["source"]], r["last_index"])
        if r["went"] is not None:
            self.reached[r["to"]] = max(self.reached[r["to"]], r["last_index"])
            self.delivered[(r["source"], r["term"], r["to"])].append((r["went"], r["last_index"]))

    def request_vote(self, r):
        if r["went"] is not None and not self.ours(r["to"]) and not self.blocked:
            self.pending.append((r["went"], r["to"], r["source"], r["term"], r["flags"] & 2))

    def request_vote_result(self, r):
        self.pending = [p for p in self.pending if not (p[1] == r["source"] and p[2] == r["to"] and p[0] <= r["came"] + 1)]
        if r["vote_granted"] and not r["flags"] & 1:
            key = (r["source"], r["term"])
            known = self.grants.setdefault(key, r["to"])
            if known != r["to"]:
                self.fail("W8", r, f"grants term {r['term']} to {r['to']} after {known}")

    def timeout_now(self, r):
        pass

    # -- over time
    def current(self, r):
        """Not on a connection that another of the same pair has replaced: what is read there is old."""
        return self.newest.get((r["source"], r["to"])) == r["conn"]

    def term(self, r):
        if r["kind"] == "request_vote" and r["flags"] & 2 or r["kind"] == "request_vote_result" and r["flags"] & 1 or not self.current(r):
            return
        key = (r["source"], r["to"])
        if r["term"] < self.terms.get(key, 0):
            self.fail("W9", r, f"{r['kind']} of term {r['term']} after term {self.terms[key]}")
        self.terms[key] = max(self.terms.get(key, 0), r["term"])

    def finish(self, last):
        for went, voter, candidate, term, pre in self.pending:
            alive = not any(n in self.down or self.down_at.get(n, 0) > went - 1 for n in (voter, candidate))
            if alive and last - went > ANSWER_SECONDS:
                self.fail("W10", dict(t=went, source=candidate, to=voter), f"request_vote of term {term}{' (pre)' if pre else ''} was never answered")


def check(path):
    """(what is wrong, how many messages of each kind) of one capture."""
    checker, last, records = Checker(), 0.0, []
    with open(path) as f:
        for line in f:
            record = json.loads(line)
            last = max(last, record["t"])
            records.append(record)
    # A message is written down when it goes on; its sender sent it when it came.
    records.sort(key=lambda r: r.get("came", r["t"]))
    for record in records:
        record["t"] = record.get("came", record["t"])
        checker.feed(record)
    checker.finish(last)
    return checker.wrong, checker.counts


def main():
    bad = False
    for path in sys.argv[1:]:
        wrong, counts = check(path)
        print(path, dict(counts))
        for text in wrong:
            print("  WRONG", text)
        bad |= bool(wrong)
    sys.exit(bad)


if __name__ == "__main__":
    main()

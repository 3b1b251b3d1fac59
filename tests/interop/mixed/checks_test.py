#!/usr/bin/env python3
"""Shows that each rule of checks.py finds the violation that is planted for it, and that a sound capture passes.

usage: checks_test.py      exit 1 when a rule finds nothing, or something else
"""
import copy
import json
import os
import struct
import sys
import tempfile

import checks

VOTERS = [(1, "n1", "voter"), (2, "n2", "voter"), (3, "n3", "voter")]


def opening(source, address):
    text = address.encode() + b"\0"
    text += bytes(-len(text) % 8)
    return (struct.pack("<QIBBHQ", 1, 1 + len(text) // 8, 11, 0, 0, source) + text).hex()


class Capture:
    """Servers 1 (ours), 2 and 3 (1.18.7), each with a connection to each other one."""

    def __init__(self):
        self.t, self.conn, self.records = 1000.0, 0, []
        for node, library in ((1, "ours"), (2, "sid"), (3, "sid")):
            self.event("start", node=node, library=library)
        for source in (1, 2, 3):
            for to in (1, 2, 3):
                if source != to:
                    self.connect(source, to)

    def event(self, what, **fields):
        self.t += 0.01
        self.records.append(dict(event=what, t=self.t, **fields))

    def connect(self, source, to):
        self.conn += 1
        address = f"127.0.0.1:{source}"
        self.event("connect", source=source, to=to, conn=self.conn, address=address, opening=opening(source, address))

    def say(self, kind, source, to, header, type, **fields):
        self.t += 0.01
        conn = max(r["conn"] for r in self.records if r.get("event") == "connect" and (r["source"], r["to"]) == (source, to))
        record = dict(kind=kind, source=source, to=to, conn=conn, header=header, type=type, t=self.t, came=self.t, went=self.t + 0.001)
        record.update(fields)
        self.records.append(record)

    def ask(self, source, to, term, flags=0):
        self.say("request_vote", source, to, 40, 3, term=term, flags=flags)

    def vote(self, source, to, term, granted=1, flags=0):
        self.say("request_vote_result", source, to, 24, 4, term=term, vote_granted=granted, flags=flags)

    def append(self, source, to, term, prev, prev_term, commit, entries):
        self.say("append_entries", source, to, 48 + 16 * len(entries), 1, term=term, prev_log_index=prev, prev_log_term=prev_term,
                 leader_commit=commit, n_entries=len(entries), entries=entries)

    def result(self, source, to, term, last, rejected=0):
        self.say("append_entries_result", source, to, 32, 2, term=term, rejected=rejected, last_log_index=last)

    def find(self, kind, nth=0):
        return [r for r in self.records if r.get("kind") == kind][nth]


def sound():
    """Server 1 is elected in term 2, writes, and commits."""
    capture = Capture()
    capture.ask(1, 2, 2)
    capture.vote(2, 1, 2)
    capture.ask(1, 3, 2)
    capture.vote(3, 1, 2)
    for to in (2, 3):
        capture.append(1, to, 2, 0, 0, 0, [[1, "change", 64, VOTERS], [2, "barrier", 8, "00"], [2, "command", 8, "aa"]])
        capture.result(to, 1, 2, 3)
    for to in (2, 3):
        capture.append(1, to, 2, 3, 2, 3, [])
        capture.result(to, 1, 2, 3)
    capture.say("install_snapshot", 1, 3, 48 + 64, 5, term=2, last_index=3, last_term=2, conf_index=1, conf_size=64)
    capture.say("timeout_now", 1, 2, 24, 6, term=2, last_log_index=3, last_log_term=2)
    return capture


def planted():
    """Rule and capture, one for each."""
    def of(change):
        capture = sound()
        change(capture)
        return capture

    def opening_bytes(c):
        c.records[3]["opening"] = c.records[3]["opening"][:-2] + "01"

    def again(c):
        # The same connection pair, made anew; the leader of the day dies and another one is elected properly.
        c.ask(2, 3, 3)
        c.vote(3, 2, 3)
        c.ask(2, 1, 3)
        c.vote(1, 2, 3)
        c.append(2, 3, 3, 3, 2, 3, [[3, "barrier", 8, "00"]])

    yield "W1", of(opening_bytes)
    yield "W1", of(lambda c: c.event("backtalk", source=2, to=1, conn=1, hex="00"))
    yield "W2", of(lambda c: c.find("append_entries_result").update(header=24))
    yield "W2", of(lambda c: c.find("request_vote").update(header=32))
    yield "W2", of(lambda c: c.find("append_entries").update(header=49))
    yield "W2", of(lambda c: c.find("install_snapshot").update(header=56 + 64))
    yield "W2", of(lambda c: c.find("timeout_now").update(type=6 | 1 << 16))
    yield "W2", of(lambda c: c.event("undecodable", source=1, to=2, conn=1, hex="ff"))
    yield "W3", of(lambda c: c.append(1, 2, 2, 3, 2, 3, [[2, "command", 9, "bb"]]))
    yield "W4", of(lambda c: c.append(2, 3, 2, 3, 2, 3, []))
    yield "W5", of(lambda c: c.find("append_entries", 1)["entries"][2].__setitem__(3, "bb"))
    yield "W6", of(lambda c: c.append(1, 2, 2, 1, 1, 3, []))
    yield "W7", of(lambda c: c.result(2, 1, 2, 4))
    yield "W8", of(lambda c: (c.ask(3, 2, 2), c.vote(2, 3, 2)))
    yield "W9", of(lambda c: (again(c), c.result(3, 1, 2, 3), c.result(3, 1, 3, 3), c.result(3, 1, 2, 3)))
    yield "W10", of(lambda c: (c.ask(1, 2, 3, 2), setattr(c, "t", c.t + 30), c.event("rule", rule=[])))
    yield "W11", of(lambda c: c.append(1, 2, 2, 3, 2, 2, []))
    yield "W12", of(lambda c: c.append(1, 2, 2, 3, 2, 4, []))


def found(capture):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", delete=False) as f:
        f.writelines(json.dumps(copy.deepcopy(record)) + "\n" for record in capture.records)
    try:
        return checks.check(f.name)[0]
    finally:
        os.unlink(f.name)


def main():
    bad = []
    wrong = found(sound())
    if wrong:
        bad.append(f"the sound capture: {wrong}")
    rules = set()
    for number, (rule, capture) in enumerate(planted(), 1):
        rules.add(rule)
        wrong = found(capture)
        if {text.split()[0] for text in wrong} != {rule}:
            bad.append(f"plant {number}: {rule} expected alone, found {wrong}")
    missing = {f"W{n}" for n in range(1, 13)} - rules
    if missing:
        bad.append(f"nothing planted for {sorted(missing)}")
    for text in bad:
        print("checks_test:", text)
    print(f"checks_test: {'FAILED' if bad else 'ok'}, {number} violations planted")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()

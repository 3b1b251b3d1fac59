"""The rows of the plan for mixed clusters, one function each. They get a Scene; what they raise as Wrong has failed."""
import collections
import itertools
import json
import os
import random
import shutil
import time

from members import SPARE, STANDBY, VOTER, Cluster, Load, Wrong, until

ROWS = {}


def row(number, title, **shape):
    """`shape`: extra (more nodes than kinds are given), options (of all nodes), snapshots."""
    def keep(function):
        ROWS[number] = (title, function, shape)
        return function

    return keep


class Scene:
    """What a row gets: how to make a cluster of the given kinds, how long it may be, what it found out."""

    def __init__(self, program, luts, base, long, latency, slack, seed, notes, seconds=None):
        self.program, self.luts, self.base, self.long = program, luts, base, long
        self.latency, self.slack, self.notes, self.random = latency, slack, notes, random.Random(seed)
        self.clusters, self.seconds = [], seconds

    def cluster(self, luts=None, **options):
        made = Cluster(self.program, luts or self.luts, self.base, options.pop("latency", self.latency), **options)
        self.clusters.append(made)
        return made

    def note(self, text):
        self.notes.append(text)

    def often(self, short, long):
        return long if self.long else short


def records(cluster):
    cluster.tap.tell("state")
    with open(cluster.tap.capture) as f:
        for line in f:
            if line.endswith("\n"):
                yield json.loads(line)


def term_now(cluster):
    """The highest term in which somebody led, as the proxy saw it."""
    return max((s[2] for s in cluster.tap.tell("state")["sent"]), default=0)


def finish(cluster, load):
    """The end of nearly every row: all hold the same, and what was acknowledged is there."""
    rows, _ = cluster.verify()
    load.judge(rows)
    return len(rows)


def new_leader(cluster, old, slack):
    """The leader after `old` is gone, and how long that took in election timeouts."""
    began = time.monotonic()
    others = [n for n in cluster.live() if n != old]
    leader = cluster.leader(max(4 * cluster.election * slack, 4), others)
    return leader, (time.monotonic() - began) / cluster.election


@row(1, "bootstrap, add and promote a voter and a stand-by")
def bootstrap(scene):
    cluster = scene.cluster()
    cluster.form({2: VOTER, 3: STANDBY})
    load = Load(cluster)
    load.write(60)
    roles = cluster.servers()
    if roles != {1: VOTER, 2: VOTER, 3: STANDBY}:
        raise Wrong(f"roles {roles}")
    cluster.assign(3, VOTER)
    load.write(20)
    finish(cluster, load)


@row(2, "stop or kill the leader until every node has led")
def every_node_leads(scene):
    cluster = scene.cluster()
    cluster.form()
    load, led, slowest = Load(cluster), set(), 0.0
    with load:
        for turn in range(scene.often(12, 60)):
            leader = cluster.leader()
            led.add(leader)
            if led == set(cluster.members) and turn >= scene.often(0, 30):
                break
            cluster.stop(leader) if turn % 2 == 0 else cluster.kill(leader)
            _, took = new_leader(cluster, leader, scene.slack)
            slowest = max(slowest, took)
            load.more(10)
            cluster.start(leader)
            cluster.settle_live(20)
        else:
            if led != set(cluster.members):
                raise Wrong(f"only {led} have led")
        load.more(10)
    scene.note(f"slowest election {slowest:.1f} E")
    if slowest > 4 * scene.slack:
        raise Wrong(f"an election took {slowest:.1f} election timeouts")
    finish(cluster, load)


@row(3, "transfer leadership between all ordered pairs, then under load")
def transfers(scene):
    cluster = scene.cluster()
    cluster.form()
    load = Load(cluster)
    for a, b in itertools.permutations(cluster.members, 2):
        cluster.transfer(a)
        cluster.transfer(b)
    load.write(20)
    with load:
        for turn in range(scene.often(3, 60)):
            cluster.transfer(1 + turn % len(cluster.members))
            load.more(10)
    finish(cluster, load)
    given, taken, slowest = 0, 0, 0.0
    waiting, answered = {}, collections.defaultdict(int)
    for r in sorted((r for r in records(cluster) if "kind" in r), key=lambda r: r["came"]):
        if r["kind"] == "append_entries_result" and r["rejected"] == 0:
            pair = (r["source"], r["to"], r["term"])
            answered[pair] = max(answered[pair], r["last_log_index"])
        # 1.11 asks before the target has said that it is that far; who still writes then may refuse.
        elif r["kind"] == "timeout_now" and r["went"] and answered[(r["to"], r["source"], r["term"])] >= r["last_log_index"]:
            given += 1
            waiting[r["to"]] = r
        elif r["kind"] == "request_vote" and r["source"] in waiting and r["came"] >= waiting[r["source"]]["came"]:
            if r["flags"] == 1:
                taken += 1
                slowest = max(slowest, r["came"] - waiting[r["source"]]["went"])
            del waiting[r["source"]]
    scene.note(f"{taken} of {given} timeout_now obeyed, slowest {slowest * 1000:.0f} ms")
    if taken < given:
        raise Wrong(f"{given - taken} of {given} timeout_now were not followed by a vote request that may disrupt the leader")
    if slowest > cluster.heartbeat * scene.slack:
        raise Wrong(f"the vote request came {slowest * 1000:.0f} ms after timeout_now, a heartbeat is {cluster.heartbeat * 1000:.0f} ms")


@row(4, "kill -9 a random node every 2 s under load")
def kills(scene):
    cluster = scene.cluster()
    cluster.form()
    load, count = Load(cluster), 0
    with load:
        end = time.monotonic() + (scene.seconds or scene.often(8, 600))
        while time.monotonic() < end:
            victim = scene.random.choice(cluster.live())
            cluster.kill(victim)
            # How long it is away decides whether the others elect, and how much it misses.
            time.sleep(scene.random.uniform(0.1, 1.5))
            cluster.check_alive()
            cluster.start(victim)
            time.sleep(scene.random.uniform(0.2, 0.8))
            count += 1
        load.more(30)
    scene.note(f"{count} kills, {load.total()} rows")
    finish(cluster, load)


@row(5, "the leader, then a follower, alone behind a partition")
def partition(scene):
    cluster = scene.cluster()
    cluster.form()
    load = Load(cluster)
    for leader in scene.often([None], [1, 2, 3]):
        if leader:
            cluster.transfer(leader)
        leader = cluster.leader()
        load.write(10)
        cluster.cut(leader)
        began = time.monotonic()
        until("the leader of the minority steps down", 2 * cluster.election * scene.slack + 2,
              lambda: cluster.leaders([leader])[leader] != leader)
        took = (time.monotonic() - began) / cluster.election
        scene.note(f"node {leader} stepped down after {took:.1f} E")
        if took > 2 * scene.slack:
            raise Wrong(f"the leader of the minority ({cluster.kind(leader)}) stepped down after {took:.1f} election timeouts")
        others = [n for n in cluster.members if n != leader]
        cluster.leader(None, others)
        load.write(20)
        still(cluster, scene, leader)
        load.write(10)
        follower = next(n for n in cluster.members if n != cluster.leader())
        cluster.cut(follower)
        load.write(10)
        time.sleep(3 * cluster.election)
        still(cluster, scene, follower)
    finish(cluster, load)


def still(cluster, scene, isolated):
    """Heals; the isolated node must not raise the term of the others."""
    others = [n for n in cluster.members if n != isolated]
    leader, term = cluster.leader(None, others), term_now(cluster)
    cluster.heal()
    cluster.settle()
    time.sleep(2 * cluster.election)
    if cluster.leader() != leader or term_now(cluster) != term:
        raise Wrong(f"node {isolated} ({cluster.kind(isolated)}) came back: leader {leader} of term {term} before,"
                    f" {cluster.leader()} of term {term_now(cluster)} after")


@row(6, "one direction cut between leader and follower")
def one_way(scene):
    cluster = scene.cluster()
    cluster.form()
    load = Load(cluster)
    for to_follower in (True, False):
        cluster.settle()
        leader, term = cluster.leader(), term_now(cluster)
        follower = next(n for n in cluster.members if n != leader)
        pair = ([leader], [follower]) if to_follower else ([follower], [leader])
        cluster.rule(*pair, drop=True)
        with load:
            load.more(10)
            time.sleep(5 * cluster.election)
            load.more(10)
        changes = len({r["term"] for r in records(cluster) if r.get("kind") == "append_entries" and r["term"] > term})
        cluster.heal()
        cluster.settle()
        time.sleep(2 * cluster.election)
        scene.note(f"{changes} changes")
        if changes > 1 or term_now(cluster) > term + 1:
            raise Wrong(f"{changes} leader changes, term {term} became {term_now(cluster)}, with node {pair[0][0]} not heard by {pair[1][0]}")
    finish(cluster, load)


def leave_tail(cluster, leader, count):
    """Lets the leader append what nobody else gets. Returns how many entries the tail has."""
    conns = []
    for number in range(count):
        conn = cluster.conn(leader, 10.0)
        conn.call("open", filename=f"tail{number}", flags=0, vfs="")
        conns.append(conn)
    before = log_end(cluster, leader)
    cluster.rule([leader], [n for n in cluster.members if n != leader], drop=True)
    from wire_client import encode_request
    for number, conn in enumerate(conns):
        conn.send(encode_request("exec_sql", db=0, sql=f"CREATE TABLE t{number}(a)", params=[]))
    until("the leader writes a tail", 5, lambda: log_end(cluster, leader) > before)
    time.sleep(2 * cluster.heartbeat)
    tail = log_end(cluster, leader) - before
    cluster.cut(leader)
    for conn in conns:
        conn.close()
    return tail


def log_end(cluster, leader):
    """The end of the longest append of a leader, also of those that were lost on the way."""
    return max((r["prev_log_index"] + r["n_entries"] for r in records(cluster)
                if r.get("kind") == "append_entries" and r["source"] == leader and r["prev_log_index"] < 1 << 62), default=0)


@row(7, "divergent tails: what one leader wrote alone is replaced by what the next wrote")
def divergent(scene):
    cluster = scene.cluster()
    cluster.form()
    load = Load(cluster)
    for leader in scene.often([None], [1, 2, 3, 1, 2, 3]):
        if leader:
            cluster.transfer(leader)
        cluster.settle()
        leader = cluster.leader()
        tail = leave_tail(cluster, leader, 50)
        others = [n for n in cluster.members if n != leader]
        after = cluster.leader(None, others)
        load.write(50)
        cluster.heal()
        cluster.settle()
        scene.note(f"{cluster.kind(leader)} left {tail}, {cluster.kind(after)} led")
    finish(cluster, load)


@row(8, "the old leader's tail is longer than the new leader's log, and answers are late")
def capped(scene):
    cluster = scene.cluster()
    cluster.form()
    load = Load(cluster, writers=2)
    load.write(10)
    for leader in scene.often([None], [1, 2, 3]):
        if leader:
            cluster.transfer(leader)
        cluster.settle()
        leader = cluster.leader()
        tail = leave_tail(cluster, leader, 50)
        others = [n for n in cluster.members if n != leader]
        after = cluster.leader(None, others)
        everyone = list(cluster.members)
        cluster.heal()
        # The third node's log stays short: the old leader's answers would make the majority.
        third = next(n for n in others if n != after)
        cluster.rule(everyone, [after], delay=1.0, types=["append_entries_result"])
        cluster.rule([after], [third], delay=1.0)
        load.write(6)
        cluster.heal()
        cluster.settle()
        scene.note(f"{cluster.kind(leader)} left {tail}, {cluster.kind(after)} led")
    finish(cluster, load)


def installs(cluster, to):
    return sum(1 for r in records(cluster) if r.get("kind") == "install_snapshot" and r["to"] == to and r["went"])


@row(9, "snapshots: a node that was away, and a fresh one that becomes a voter", snapshots=True, extra=1)
def snapshots(scene):
    compress = scene.random.choice((0, 1))
    cluster = scene.cluster([*scene.luts, scene.luts[-1]], options=["snapshot=8,8"],
                            node_options={n: [f"compress={compress}"] for n in range(1, 5)})
    for number in (1, 2, 3):
        cluster.start(number)
    cluster.leader(20, [1])
    for number in (2, 3):
        cluster.join(number)
    load = Load(cluster)
    load.write(20)
    for away in (1, 2, 3):
        leader = next(n for n in (3, 1, 2) if n != away)
        cluster.transfer(leader)
        before = installs(cluster, away)
        cluster.stop(away)
        load.write(scene.often(60, 200))
        cluster.start(away)
        cluster.settle()
        if installs(cluster, away) == before:
            raise Wrong(f"{cluster.kind(leader)} sent no snapshot to {cluster.kind(away)}")
    cluster.start(4)
    cluster.join(4)
    if installs(cluster, 4) == 0:
        raise Wrong(f"no snapshot was sent to the fresh node ({cluster.kind(4)})")
    load.write(20)
    scene.note(f"compression {compress}")
    finish(cluster, load)


@row(10, "kill the receiver, then the sender, in the middle of a snapshot", snapshots=True)
def killed_installs(scene):
    cluster = scene.cluster(options=["snapshot=8,8"])
    cluster.form()
    load = Load(cluster)
    load.write(100)
    for victim in ("receiver", "sender") * scene.often(1, 10):
        leader = cluster.leader()
        cluster.settle()
        away = next(n for n in cluster.members if n != leader)
        cluster.kill(away)
        load.write(60)
        cluster.rule(list(cluster.members), [away], trickle=1.0)
        begun = count_begun(cluster, away)
        cluster.start(away)
        until(f"a snapshot for node {away}", 20, lambda: count_begun(cluster, away) > begun, 0.05)
        time.sleep(0.3)
        killed = away if victim == "receiver" else cluster.leader()
        cluster.kill(killed)
        if victim == "sender":
            # The others have a majority only with the receiver.
            time.sleep(0.5)
        cluster.heal()
        cluster.start(killed)
        load.write(20)
        cluster.settle()
    finish(cluster, load)


def count_begun(cluster, to):
    return sum(1 for r in records(cluster) if r.get("event") == "install_begins" and r["to"] == to)


@row(11, "an idle cluster sends one append per heartbeat and peer")
def idle(scene):
    cluster = scene.cluster()
    cluster.form()
    load = Load(cluster)
    for leader in cluster.members:
        cluster.transfer(leader)
        load.write(5)
        cluster.settle()
        began = time.time()
        time.sleep(scene.often(25, 200) * cluster.heartbeat)
        took = time.time() - began
        sent = collections.Counter(r["to"] for r in records(cluster) if r.get("kind") == "append_entries" and r["source"] == leader
                                   and began <= r["came"] <= began + took and r["prev_log_index"] < 1 << 62)
        most = max(sent.values(), default=0)
        scene.note(f"{cluster.kind(leader)} {most / took * cluster.heartbeat:.2f}")
        if most > took / cluster.heartbeat * 1.1 + 1:
            raise Wrong(f"{cluster.kind(leader)} sent {most} appends to a peer in {took / cluster.heartbeat:.1f} heartbeats")
        if len(sent) < len(cluster.members) - 1 or min(sent.values()) == 0:
            raise Wrong(f"{cluster.kind(leader)} sent {dict(sent)}")
    finish(cluster, load)


@row(12, "restarts of one node leave the term as it is")
def restarts(scene):
    cluster = scene.cluster()
    cluster.form()
    load = Load(cluster)
    load.write(10)
    for follower in cluster.members:
        leader = cluster.leader()
        if follower == leader:
            cluster.transfer(next(n for n in cluster.members if n != follower))
        cluster.settle()
        leader, term = cluster.leader(), term_now(cluster)
        for turn in range(scene.often(4, 100)):
            cluster.kill(follower)
            cluster.start(follower)
            # Some lives are long enough for a pre-vote, some end before.
            time.sleep(scene.random.uniform(0, 3 * cluster.election))
        cluster.settle()
        if term_now(cluster) != term or cluster.leader() != leader:
            raise Wrong(f"restarts of node {follower} ({cluster.kind(follower)}): leader {leader} of term {term} before,"
                        f" {cluster.leader()} of term {term_now(cluster)} after")
    finish(cluster, load)


def fresh(cluster, number):
    """A node that was removed comes back empty; the founder with what it has: empty it would found another cluster."""
    if cluster.members[number].alive():
        cluster.kill(number)
    if number != 1:
        shutil.rmtree(cluster.members[number].directory)
        os.makedirs(cluster.members[number].directory)
    cluster.start(number)


def roles_are(cluster, expected):
    until(lambda: f"roles {expected}, found {cluster.servers()}", 15, lambda: cluster.servers() == expected)


def steps_down(cluster, number, request, **fields):
    """A change by which the leader gives up its vote. Refused while another change is on its way, so again until another node leads."""
    said = []

    def gone():
        leader = cluster.leader_now()
        if leader == number:
            said.append(cluster.ask(number, request, 10.0, **fields))
        return leader not in (None, number)

    until(lambda: f"node {number} ({cluster.kind(number)}) gives up its vote, leaders {cluster.leaders()}, answers {said[-3:]}", 30, gone, 0.1)


@row(13, "membership: every role on every node, leaders that demote or remove themselves or die in the middle")
def membership(scene):
    cluster = scene.cluster()
    cluster.form()
    everyone = dict.fromkeys(cluster.members, VOTER)
    load = Load(cluster)
    with load:
        for number in cluster.members:
            other = next(n for n in cluster.members if n != number)
            cluster.transfer(other)
            for role in (STANDBY, SPARE, STANDBY, VOTER):
                cluster.assign(number, role)
                roles_are(cluster, {**everyone, number: role})
        load.more(10)
        for number in cluster.members:
            cluster.transfer(number)
            others = [n for n in cluster.members if n != number]
            steps_down(cluster, number, "assign", id=number, role=STANDBY)
            roles_are(cluster, {**everyone, number: STANDBY})
            cluster.assign(number, VOTER)
            cluster.transfer(number)
            steps_down(cluster, number, "remove", id=number)
            roles_are(cluster, dict.fromkeys(others, VOTER))
            fresh(cluster, number)
            cluster.join(number)
            load.more(5)
    # A single voter is left: it leads in the same term.
    for number in scene.often([1, 2], [1, 2, 3]):
        cluster.transfer(number)
        left = next(n for n in cluster.members if n != number)
        for other in cluster.members:
            if other not in (number, left):
                cluster.assign(other, STANDBY)
        steps_down(cluster, number, "assign", id=number, role=STANDBY)
        if cluster.leader() != left:
            raise Wrong(f"node {cluster.leader()} leads, node {left} is the only voter")
        for other in cluster.members:
            if other != left:
                cluster.assign(other, VOTER)
        load.write(10)
    # The leader dies between append and commit.
    for number in scene.often([1], [1, 2, 3]):
        for reaches in (False, True):
            cluster.transfer(number)
            target = next(n for n in cluster.members if n != number)
            witness = next(n for n in cluster.members if n not in (number, target))
            # With `reaches` one of the others has the entry, with its answer lost.
            cluster.rule([number], [target] if reaches else [target, witness], drop=True)
            cluster.rule([target, witness], [number], drop=True)
            cluster.ask(number, "assign", 0.4, id=target, role=STANDBY)
            cluster.kill(number)
            cluster.heal()
            if not reaches:
                cluster.leader()
            # With the demotion in its log the witness needs the dead leader: of two voters both.
            cluster.start(number)
            # A leader of 1.11 leaves the tails of others alone until it has something to write.
            load.write(3)
            cluster.settle()
            roles = cluster.servers()
            if roles not in (everyone, {**everyone, target: STANDBY}):
                raise Wrong(f"roles {roles} after a change in which the leader died")
            cluster.assign(target, VOTER)
            roles_are(cluster, everyone)
    finish(cluster, load)


@row(14, "all stopped after three changes, started again one by one in all orders")
def change_restarts(scene):
    cluster = scene.cluster()
    cluster.form()
    load = Load(cluster)
    load.write(10)
    orders = list(itertools.permutations(cluster.members))
    scene.random.shuffle(orders)
    for order in orders[:scene.often(2, 6)]:
        leader = cluster.leader()
        changed = next(n for n in cluster.members if n != leader)
        for role in (STANDBY, SPARE, VOTER):
            cluster.assign(changed, role)
        for number in cluster.live():
            cluster.kill(number)
        for number in order:
            cluster.start(number)
            time.sleep(scene.random.uniform(0, 2 * cluster.election))
        cluster.leader()
        roles_are(cluster, dict.fromkeys(cluster.members, VOTER))
        load.write(10)
        cluster.settle()
    finish(cluster, load)


@row(15, "rolling upgrade and downgrade on the same directories, under load")
def rolling(scene):
    """From the first kind to the second, to the third, and back the same way."""
    way = list(scene.luts)
    cluster = scene.cluster([way[0]] * 3)
    cluster.form()
    load, swaps = Load(cluster, reads=True), 0
    with load:
        for lut in [*way[1:], *reversed(way[:-1])]:
            for number in cluster.members:
                cluster.stop(number)
                load.more(5)
                cluster.start(number, lut)
                cluster.settle_live(30)
                load.more(10)
                swaps += 1
    scene.note(f"{swaps} swaps, {load.total()} rows, {load.reader.count} reads")
    finish(cluster, load)


@row(16, "a node comes back at another address")
def address_change(scene):
    import nodes
    cluster = scene.cluster()
    cluster.form()
    load = Load(cluster)
    with load:
        for number in scene.often([2, 3], [1, 2, 3] * 3):
            cluster.transfer(next(n for n in cluster.members if n != number))
            cluster.remove(number)
            cluster.stop(number)
            member = cluster.members[number]
            member.listen, member.target = nodes.free_address(), nodes.free_address()
            cluster.start(number)
            cluster.join(number)
            load.more(10)
    for number in cluster.members:
        cluster.transfer(number)
    finish(cluster, load)


@row(18, "a disk on which a sync takes two seconds, under the leader, a voter and a stand-by")
def slow_disk(scene):
    # A sync is longer than an election timeout, and shorter than what our leaders take for a disk that hangs.
    cluster = scene.cluster(latency=100, slow_disks=True)
    cluster.form()
    load = Load(cluster, timeout=30.0)
    whole = [(role, number) for role in ("leader", "voter", "stand-by") for number in cluster.members]
    for role, number in scene.often([whole[0], whole[4], whole[8]], whole):
        cluster.transfer(number if role == "leader" else next(n for n in cluster.members if n != number))
        if role == "stand-by":
            cluster.assign(number, STANDBY)
        cluster.settle()
        leader, term = cluster.leader(), term_now(cluster)
        cluster.slow(number, True)
        before, began, total = cluster.delays(number), time.monotonic(), load.total()
        with load:
            load.more(6 if role == "leader" else 100)
            until(lambda: f"three syncs of node {number}, {cluster.delays(number) - before} were slow", 30,
                  lambda: cluster.delays(number) >= before + 3 and time.monotonic() > began + 3 * cluster.election)
        scene.note(f"{cluster.kind(number)} as {role} {(load.total() - total) / (time.monotonic() - began):.0f} rows/s")
        cluster.slow(number, False)
        cluster.settle(60)
        if (cluster.leader(), term_now(cluster)) != (leader, term):
            raise Wrong(f"node {number} ({cluster.kind(number)}, {role}) has a slow disk: leader {leader} of term {term} before,"
                        f" {cluster.leader()} of term {term_now(cluster)} after")
        if role == "stand-by":
            cluster.assign(number, VOTER)
    finish(cluster, load)
    in_order(cluster)


def in_order(cluster):
    """What a follower acknowledges does not shrink within a term and a connection; ours may answer a heartbeat with less, C never does."""
    most, heartbeats = {}, collections.Counter()
    for r in sorted((r for r in records(cluster) if "kind" in r), key=lambda r: r["came"]):
        if r["kind"] == "append_entries" and r["n_entries"] == 0:
            heartbeats[r["to"], r["source"], r["term"]] += 1
        if r["kind"] != "append_entries_result" or r["rejected"] != 0:
            continue
        key, index = (r["conn"], r["term"]), r["last_log_index"]
        if index < most.get(key, 0):
            asked = r["source"], r["to"], r["term"]
            heartbeats[asked] -= 1
            if cluster.kind(r["source"]) != "ours" or heartbeats[asked] < 0:
                raise Wrong(f"node {r['source']} ({cluster.kind(r['source'])}) acknowledges {index} after {most[key]} in term {r['term']}")
        most[key] = max(most.get(key, 0), index)


@row(19, "bytes that nobody may look at are random")
def junk(scene):
    cluster = scene.cluster(options=["snapshot=16,16"])
    everyone = list(cluster.members)
    cluster.rule(everyone, everyone, junk=True)
    cluster.form()
    load = Load(cluster)
    with load:
        for number in cluster.members:
            cluster.transfer(number)
            load.more(20)
            other = next(n for n in cluster.members if n != number)
            cluster.kill(other)
            load.more(60)
            cluster.start(other)
            cluster.settle_live(20)
    finish(cluster, load)


@row(20, "a spare is sent nothing", extra=1)
def spare(scene):
    cluster = scene.cluster([*scene.luts, scene.luts[0]])
    for number in cluster.members:
        cluster.start(number)
    cluster.leader(20, [1])
    for number in (2, 3):
        cluster.join(number)
    load = Load(cluster)
    for leader in (1, 2, 3):
        if leader > 1:
            fresh(cluster, 4)
        cluster.transfer(leader)
        cluster.settle()
        began = time.time()
        cluster.join(4, SPARE)
        load.write(10)
        time.sleep(10 * cluster.heartbeat)
        sent = [r for r in records(cluster) if r.get("to") == 4 and r.get("came", r.get("t", 0)) > began]
        if sent:
            raise Wrong(f"{cluster.kind(leader)} sent to a spare: {sent[:2]}")
        cluster.assign(4, VOTER)
        load.write(10)
        cluster.settle()
        cluster.assign(4, SPARE)
        time.sleep(3 * cluster.heartbeat)
        began = time.time()
        load.write(10)
        time.sleep(10 * cluster.heartbeat)
        sent = [r for r in records(cluster) if r.get("to") == 4 and r.get("kind") in ("append_entries", "install_snapshot") and r["came"] > began]
        if sent:
            raise Wrong(f"{cluster.kind(leader)} sent to a voter that became a spare: {sent[:2]}")
        cluster.remove(4)
    cluster.kill(4)
    finish(cluster, load)

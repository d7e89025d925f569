"""Planted defects: each one a thing that goes wrong in webhook platforms, and the faults under which it shows."""

from dataclasses import dataclass

from libs.common.runtime.failpoints import Failpoint
from tests.faults.campaign.plan import Behaviour, Fault, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """`old`, which stands exactly once in the file, becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A defect, and the faults and receivers that are to show it; none where it shows by itself.

    `breaks` stands in the violation by which it is found: another one would be found for another reason.
    """

    name: str
    breaks: str
    edits: tuple[Edit, ...]
    faults: tuple[Fault, ...] = ()
    behaviours: tuple[Behaviour, ...] = ()


def _at(
    kind: Kind,
    target: str = "",
    point: Failpoint | None = None,
    *,
    at: float = 1.0,
    lasts: float = 1.0,
    extent: float = 0.0,
) -> Fault:
    return Fault(kind=kind, target=target, point=point, at=at, lasts=lasts, extent=extent)


_ONLY_AT_LENGTH = Edit(
    file="services/dispatcher/recorder.py",
    old="        reach(Failpoint.RECORD_IN_TRANSACTION)\n        done = await at_once.end(\n",
    new="        done = await at_once.end(\n",
)
"""Not a defect: the failpoint is where a transaction of several statements stands; what succeeds takes one alone."""

_COMMITTED_AT_LENGTH = Edit(
    file="services/dispatcher/recorder.py",
    old="        reach(Failpoint.RECORD_COMMITTED)\n        return dict(over[delivery] for delivery in done)\n",
    new="        return dict(over[delivery] for delivery in done)\n",
)
"""Not a defect: the failpoint is where something that waits again was recorded."""

_BOTH_DISPATCHERS_DIE = (_at(Kind.KILL, "dispatcher-1"), _at(Kind.KILL, "dispatcher-2", at=3.0))

MUTANTS = (
    Mutant(
        name="broker message acknowledged before its commit",
        breaks="was taken and is not stored (1)",
        edits=(
            Edit(
                file="services/ingress/broker_in.py",
                old="        backoff = FIRST_BACKOFF_SECONDS\n        while True:\n",
                new="        backoff = FIRST_BACKOFF_SECONDS\n        incoming.ack()\n        while True:\n",
            ),
            Edit(
                file="services/ingress/broker_in.py",
                old="            if away is None:\n                incoming.ack()\n                return\n",
                new="            if away is None:\n                return\n",
            ),
        ),
        faults=(
            _at(Kind.LOCK_HELD, "hookledger.outbox", lasts=3.0),
            _at(Kind.KILL, "ingress-1", at=2.5),
            _at(Kind.KILL, "ingress-2", at=3.0),
        ),
    ),
    Mutant(
        name="no fence",
        breaks="(fence)",
        edits=(
            Edit(
                file="services/dispatcher/fanout.py",
                old="        await self._snapshot.catch_up(max(message.registry_version for message in batch))\n",
                new="",
            ),
        ),
        faults=(_at(Kind.LATENCY, "registry-1 to rabbitmq", at=0.1, lasts=7.5, extent=0.3),),
    ),
    Mutant(
        name="no sweep",
        breaks="not fanned out (2)",
        edits=(
            Edit(
                file="services/dispatcher/fanout.py",
                old="(overdue := await self._overdue())",
                new="(overdue := (await self._overdue())[:0])",
            ),
        ),
        faults=(
            _at(Kind.KILL_AT, "ingress-1", Failpoint.ACCEPT_COMMITTED),
            _at(Kind.KILL_AT, "ingress-2", Failpoint.ACCEPT_COMMITTED),
        ),
    ),
    Mutant(
        name="the dead are not taken over from",
        breaks="ended as sending (2)",
        edits=(
            Edit(
                file="services/dispatcher/reclaim.py",
                old="        if dead is None:\n            return False\n",
                new="        return False\n",
            ),
        ),
        faults=_BOTH_DISPATCHERS_DIE,
        behaviours=(Behaviour.SLOW,),  # something is in flight whenever they die
    ),
    Mutant(
        name="lease not fenced",
        breaks="ended as sending (2)",
        edits=(
            Edit(
                file="services/dispatcher/lease.py",
                old="            SELECT clock_timestamp() FROM hookledger.process\n"
                "            WHERE id = $1 AND epoch = $2 AND alive_until > clock_timestamp() FOR KEY SHARE\n",
                new="            SELECT clock_timestamp() WHERE $1::uuid IS NOT NULL AND $2::int IS NOT NULL\n",
            ),
            Edit(
                file="services/dispatcher/at_once.py",
                old="        SELECT id FROM hookledger.process\n"
                "        WHERE id = $1 AND epoch = $2 AND alive_until > clock_timestamp() FOR KEY SHARE\n",
                new="        SELECT $1::uuid AS id WHERE $2::int IS NOT NULL\n",
            ),
        ),
        faults=(
            _at(Kind.FREEZE, "dispatcher-1", lasts=6.5),
            _at(Kind.FREEZE, "dispatcher-2", at=1.2, lasts=6.5),
        ),
    ),
    Mutant(
        name="sent before its start is committed",
        breaks="(8)",
        edits=(
            Edit(
                file="services/dispatcher/fanout.py",
                old="                reach(Failpoint.FAN_OUT_IN_TRANSACTION)\n",
                new="                for flight in plan.flights:\n"
                "                    self._attempts.begin(flight)\n"
                "                await asyncio.sleep(0.05)\n"
                "                reach(Failpoint.FAN_OUT_IN_TRANSACTION)\n",
            ),
            Edit(
                file="services/dispatcher/fanout.py",
                old="            reach(Failpoint.FAN_OUT_IN_TRANSACTION)\n            taken = await at_once.begin(\n",
                new="            for flight in plan.flights:\n"
                "                self._attempts.begin(flight)\n"
                "            await asyncio.sleep(0.05)\n"
                "            reach(Failpoint.FAN_OUT_IN_TRANSACTION)\n"
                "            taken = await at_once.begin(\n",
            ),
            Edit(
                file="services/dispatcher/fanout.py",
                old="            self._attempts.begin(flight)\n        DELIVERIES.inc(",
                new="        DELIVERIES.inc(",
            ),
        ),
        faults=(
            _at(Kind.KILL_AT, "dispatcher-1", Failpoint.FAN_OUT_IN_TRANSACTION),
            _at(Kind.KILL_AT, "dispatcher-2", Failpoint.FAN_OUT_IN_TRANSACTION, at=3.0),
        ),
    ),
    Mutant(
        name="retry released outside the transaction",
        breaks="ended as waiting (2)",
        edits=(
            Edit(
                file="services/dispatcher/transitions.py",
                old="    await lanes.release(connection, waiting)\n",
                new="",
            ),
            Edit(
                file="services/dispatcher/recorder.py",
                old="        reach(Failpoint.RECORD_COMMITTED)\n        self._breaking.tell(over)\n",
                new="        reach(Failpoint.RECORD_COMMITTED)\n"
                "        self._breaking.tell(over)\n"
                "        due = [(r.delivery, r.after.due_at) for r in results if r is not None and r.after.due_at]\n"
                "        async with transaction(self._pool) as connection:\n"
                "            await transitions.lanes.release(connection, due)\n"
                "            changes = {\n"
                "                r.before.endpoint: transitions.lanes.LaneChange(\n"
                "                    app=r.before.app, endpoint=r.before.endpoint, max_inflight=r.max_inflight\n"
                "                )\n"
                "                for r in results if r is not None and r.after.due_at\n"
                "            }\n"
                "            await transitions.lanes.lock(connection, changes)\n"
                "            now = await self._lease.fence(connection)\n"
                "            await transitions.lanes.refresh(connection, changes, now, served=False)\n",
            ),
            _COMMITTED_AT_LENGTH,
        ),
        faults=(
            _at(Kind.KILL_AT, "dispatcher-1", Failpoint.RECORD_COMMITTED, at=2.0),
            _at(Kind.KILL_AT, "dispatcher-2", Failpoint.RECORD_COMMITTED, at=3.0),
            _at(Kind.BACKENDS_ENDED, at=5.0, lasts=2.0),
        ),
        behaviours=(Behaviour.FLAPPING,),
    ),
    Mutant(
        name="projection updated before the fact",
        breaks="(9)",
        edits=(
            Edit(
                file="services/dispatcher/transitions.py",
                old="    await append(connection, epoch, [fact for transition in transitions for fact in _appended(transition)])\n"
                "    await projection.update(connection, [(transition.delivery, transition.after) for transition in transitions])\n",
                new="    await projection.update(connection, [(transition.delivery, transition.after) for transition in transitions])\n"
                "    await connection.execute('COMMIT')\n"
                "    await connection.execute('BEGIN')\n"
                "    await append(connection, epoch, [fact for transition in transitions for fact in _appended(transition)])\n",
            ),
            _ONLY_AT_LENGTH,
        ),
        faults=(
            _at(Kind.KILL_AT, "dispatcher-1", Failpoint.RECORD_IN_TRANSACTION),
            _at(Kind.KILL_AT, "dispatcher-2", Failpoint.RECORD_IN_TRANSACTION, at=3.0),
        ),
        behaviours=(Behaviour.FLAPPING,),
    ),
    Mutant(
        name="duplicates found by reading, then writing",
        breaks="(1)",
        edits=(
            Edit(
                file="services/ingress/claims.py",
                old="    wanted = [(claim, leader.message) for leader in leaders for claim in leader.claims]\n",
                new="    wanted = [(claim, leader.message) for leader in leaders for claim in leader.claims]\n"
                "    known = await _holders(connection, [claim for claim, _ in wanted])\n",
            ),
            Edit(
                file="services/ingress/claims.py",
                old="            WHERE held.created_at < $7\n",
                new="            WHERE $7::timestamptz IS NOT NULL\n",
            ),
            Edit(
                file="services/ingress/claims.py",
                old='    won = {(row["app"], row["kind"], row["key"]) for row in rows}\n',
                new='    won = {(row["app"], row["kind"], row["key"]) for row in rows} - known.keys()\n',
            ),
            Edit(
                file="services/ingress/claims.py",
                old="    return await _holders(connection, [claim for claim, _ in wanted if claim.place not in won])\n",
                new="    return known\n",
            ),
        ),
        faults=(_at(Kind.LATENCY, "ingress-1 to postgres", at=0.1, lasts=7.5, extent=0.05),),
    ),
    Mutant(
        name="payload written anew",
        breaks="not as it was sent (7)",
        edits=(
            Edit(
                file="services/ingress/message_in.py",
                old="    payload = bytes(found.payload)\n",
                new="    payload = msgspec.json.encode(msgspec.json.decode(found.payload))\n",
            ),
        ),
    ),
    Mutant(
        name="outcomes lost when asked to stop",
        breaks="was lost by an orderly stop",
        edits=(
            Edit(
                file="services/dispatcher/app.py",
                old="        await self._attempts.drain(self._settings.stop_grace_ms / 1000)\n",
                new="        await self._attempts.drop()\n",
            ),
        ),
        faults=(_at(Kind.ROLL, at=1.0), _at(Kind.ROLL, at=2.0)),
        behaviours=(Behaviour.SLOW,),
    ),
    Mutant(
        name="outcomes published without their confirms",
        breaks="was never told on the broker",
        edits=(
            Edit(
                file="libs/common/rabbitmq/broker.py",
                old="                return await confirmed\n",
                new="                confirmed.add_done_callback(lambda c: c.cancelled() or c.exception())\n"
                "                return frozenset()\n",
            ),
        ),
        # What is written to a connection whose other side is gone is lost, however fast the machine is.
        faults=(
            _at(Kind.HALF_OPEN, "dispatcher-1 to rabbitmq", at=1.0, lasts=3.0),
            _at(Kind.HALF_OPEN, "dispatcher-2 to rabbitmq", at=1.0, lasts=3.0),
        ),
    ),
    Mutant(
        name="ledger read past transactions that are under way",
        breaks="was never told on the broker",
        edits=(
            Edit(
                file="libs/common/postgres/following.py",
                old="          pg_snapshot_xmin(pg_current_snapshot()))\n",
                new="          pg_snapshot_xmax(pg_current_snapshot()))\n",
            ),
            _ONLY_AT_LENGTH,
        ),
        faults=(
            _at(Kind.LATENCY, "dispatcher-1 to postgres", at=0.1, lasts=7.5, extent=0.05),
            _at(Kind.FREEZE_AT, "dispatcher-1", Failpoint.RECORD_IN_TRANSACTION, at=0.5, lasts=1.5),
        ),
        behaviours=(Behaviour.FLAPPING,),
    ),
    Mutant(
        name="each machine signs by its own clock",
        breaks="signed for",
        edits=(
            Edit(
                file="libs/common/runtime/clock.py",
                old="    if _reference is None or answered - asked <= SLOWEST_ANSWER_SECONDS:\n",
                new="    if answered < asked:\n",
            ),
        ),
        faults=(_at(Kind.CLOCK, "dispatcher-1", lasts=4.0, extent=3600.0),),
    ),
    Mutant(
        name="body written anew on its way out",
        breaks="not as it was accepted (7)",
        edits=(
            Edit(
                file="services/dispatcher/messages.py",
                old='        body=row["body"] or b"",\n',
                new='        body=b" ".join((row["body"] or b"").split()),\n',
            ),
        ),
        behaviours=(Behaviour.FLAPPING,),
    ),
)

"""Dispatchers that are wrong in ways that look right, each with a run in which that shows.

A mutant is the engine with texts replaced: of SQL functions in the run's own database, of the package in a copy that
only the run uses. A text that is not there any more fails the run: then the mutant has to follow the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.history.run import Mutation, Plan
from tests.history.stub import Behaviour
from tests.history.workload import Mix

NEVER = ("FULL_LOOK = 10.0", "FULL_LOOK = 1e9")
# A look that began too high is taken for a good one.
UNCHECKED = (
    """        if any(snapshot.has_ended(xid) for id, before in self._marks if id == start for xid in before):
            return False
""",
    "",
)
UNFLUSHED = {"wal_writer_delay": "'10s'", "autovacuum": "off"}  # nobody but us flushes
LOCK = """
  AND (SELECT pg_sleep(0.005) IS NOT NULL)
  AND (EXISTS (SELECT FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.classid = 1635218284
                  AND l.objid = awslambda._slot({0}.key, {0}.message_id) AND l.pid = pg_backend_pid())
       OR pg_try_advisory_lock(1635218284, awslambda._slot({0}.key, {0}.message_id)))"""
CALM = Plan(seed=1, seconds=10, dispatchers=2, faults={}, quiet=8, trouble={})
LATE = replace(CALM, slow=6, mix=Mix(slowest=3.0))


@dataclass(frozen=True)
class Mutant:
    """`caught_as`: kinds of violations, of which there must be one."""

    mutation: Mutation
    plan: Plan
    caught_as: frozenset[str]


def _mutant(mutation: Mutation, plan: Plan, *caught_as: str) -> tuple[str, Mutant]:
    return mutation.name, Mutant(mutation, replace(plan, mutation=mutation), frozenset(caught_as))


MUTANTS: Mapping[str, Mutant] = dict([
    _mutant(
        Mutation(
            "id > last_seen",
            python={"outbox.py": [
                NEVER, UNCHECKED,
                ("return next(id for id, running in reversed(self._marks) if running <= self._lasting)",
                 "return self._marks[-1][0]"),
            ]},
        ),
        LATE, "stuck",
    ),
    _mutant(
        Mutation(
            "a scan floor without the full look",  # the floor: what is known to wait
            python={"outbox.py": [
                NEVER, UNCHECKED,
                ("return next(id for id, running in reversed(self._marks) if running <= self._lasting)",
                 "return max((id for id, _ in self._marks if id <= below), default=0)"),
                ("def start(self) -> int:", "def start(self, below: int) -> int:"),
                ("scan.floor.start()", "scan.floor.start(min(scan.known, default=1 << 62))"),
            ]},
        ),
        LATE, "stuck", "order",  # what it overtakes is found again, if its dispatcher takes the slot anew
    ),
    _mutant(
        Mutation(
            "acknowledge before sending",
            python={"delivery.py": [(
                "        self._hand_over(sending)\n",
                '        done = [{"mapping": mapping.id, "ids": outbox.sql_array(batch.ids)}]\n'
                '        self._database.fetch(SETTLE, json.dumps({"done": done}))\n'
                "        self._hand_over(sending)\n",
            )]},
        ),
        replace(CALM, faults={"kill": 1}, every=1.0, trouble={"many": Behaviour(error=0.02, takes=(0.0, 0.1))}), "lost",
    ),
    _mutant(
        Mutation(
            "lock and read in one statement",  # between its snapshot and its locks there are 5 ms, so that it shows
            sql={
                name: [(text, text + LOCK.format(row))]
                for name, row, text in (
                    ("_messages", "o", "ON o.mapping = 0 AND o.id = w.id"),
                    ("_batch", "p", "WHERE p.mapping = $1 AND p.id = ANY (wanted)"),
                )
            },
            python={"delivery.py": [
                ("share = math.ceil(len(SLOTS) / max(1, state[\"dispatchers\"]))", "share = len(SLOTS)"),
                ("if slot not in taken]", "if slot not in owned]"),
                ('json.loads(self._database.fetch(CLAIM, outbox.sql_array(wanted))[0]["claimed"]) if wanted else []',
                 "wanted"),  # who sends a record of it, has it
                ("        look = self._outbox.look(now)\n",
                 "        self._outbox.slots_changed()\n        look = self._outbox.look(now)\n"),
            ]},
        ),
        replace(CALM, faults={"graceful": 1}, every=0.2, dispatchers=3, trouble={}),
        "repeated",
    ),
    _mutant(
        Mutation(
            "acknowledge after a reconnect",
            python={"dispatcher.py": [
                ("        delivery = self._delivery = self.make(database, self.options.concurrency, start_helper)\n",
                 "        delivery = self._kept = getattr(self, '_kept', None) or "
                 "self.make(database, self.options.concurrency, start_helper)\n"
                 "        delivery._database, self._delivery = database, delivery\n"),
                ("                delivery.close()\n", "                pass\n"),
            ]},
        ),
        replace(CALM, faults={"terminate": 1}, every=2.0, seconds=15), "repeated", "two in flight", "order",
    ),
    _mutant(
        Mutation(
            "CALL without finally",
            python={"plpython.py": [(
                "    finally:\n        session.close()\n",
                "    except ZeroDivisionError:\n        pass\n    session.close()\n",
            )]},
        ),
        replace(CALM, faults={"cancel": 1}, every=2.5, in_database=True, dispatchers=1), "stuck",
    ),
    _mutant(
        Mutation(
            "two batches of a key in flight",
            python={"outbox.py": [(
                "(record.key in scan.busy and record.key not in keys) or scan.waiting[record.key][0] != record.id",
                "scan.waiting[record.key][0] != record.id",
            )]},
        ),
        replace(CALM, trouble={"hot": Behaviour(takes=(0.0, 0.05)), "many": Behaviour(takes=(0.0, 0.05))}),
        "two in flight",
    ),
    _mutant(
        Mutation(
            "no wait for the flush",
            python={"delivery.py": [("            self._database.fetch(FLUSH)\n", "            pass\n")]},
        ),
        replace(
            CALM, faults={"unflushed": 1}, every=2.0, settings=UNFLUSHED,
            mix=Mix(asynchronous=1.0, prepare=0),
        ),
        "ghost",
    ),
])  # fmt: skip

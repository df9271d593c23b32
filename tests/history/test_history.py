"""Whole runs under faults, which must be without violation, and runs of mutants, which must not."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.history.mutants import MUTANTS, UNFLUSHED
from tests.history.run import FAULTS, Plan, run

SEED = int(os.environ.get("AWSLAMBDA_HISTORY_SEED", "2026"))
TRIES = 3  # seeds for a mutant: which fault meets which record is chance
WITH_CALL = {**FAULTS, "cancel": 2}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(Plan(SEED, faults={**FAULTS, "unflushed": 1}, settings=UNFLUSHED), id="processes"),
        pytest.param(Plan(SEED + 1, in_database=True, dispatchers=2, faults=WITH_CALL), id="processes and CALL"),
    ],
)
def test_what_committed_is_delivered_in_order_and_nothing_else(plan: Plan) -> None:
    result = run(plan)
    print(result.line)
    assert not result.report.violations, "\n".join(map(str, result.report.violations[:20]))
    assert result.report.counts["committed"] >= 20_000


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_engine_is_caught(name: str) -> None:
    mutant = MUTANTS[name]
    for seed in range(SEED, SEED + TRIES):
        result = run(replace(mutant.plan, seed=seed))
        print(result.line)
        assert result.report.counts["committed"] >= 20_000
        if mutant.caught_as & set(result.report.kinds()):
            return
    pytest.fail(f"no run of the mutant {name!r} was caught as {', '.join(sorted(mutant.caught_as))}")

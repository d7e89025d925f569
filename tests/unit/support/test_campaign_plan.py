"""The plan of a fault campaign: a seed is a run."""

from itertools import chain

from deploy.stack.places import CHECKOUT
from libs.common.runtime.failpoints import Failpoint
from tests.faults.campaign.faults import FAULTS
from tests.faults.campaign.plan import POINTS, TIMES, Behaviour, Kind, owner, plan
from tests.faults.mutants.catalogue import MUTANTS

EVERY = list(Kind)


def test_the_same_seed_is_the_same_run() -> None:
    assert plan(7, 20, messages=100, kinds=EVERY) == plan(7, 20, messages=100, kinds=EVERY)


def test_another_seed_is_another_run() -> None:
    assert plan(7, 20, messages=100, kinds=EVERY) != plan(8, 20, messages=100, kinds=EVERY)


def test_more_rounds_begin_with_the_same_ones() -> None:
    assert plan(7, 30, messages=100, kinds=EVERY)[:10] == plan(7, 10, messages=100, kinds=EVERY)


def test_every_deck_holds_every_kind() -> None:
    deck = sum(TIMES.get(kind, 1) for kind in EVERY)
    rounds = plan(1, deck, messages=100, kinds=EVERY)
    drawn = [fault.kind for fault in chain.from_iterable(each.faults for each in rounds)]
    assert set(drawn[: deck + len(EVERY)]) == set(EVERY)


def test_an_orderly_stop_has_a_round_to_itself() -> None:
    for each in plan(1, 40, messages=100, kinds=EVERY):
        kinds = [fault.kind for fault in each.faults]
        assert kinds == [Kind.ROLL] or Kind.ROLL not in kinds


def test_thirty_rounds_come_by_every_failpoint_and_every_receiver() -> None:
    rounds = plan(1, 30, messages=100, kinds=[Kind.KILL_AT, Kind.FREEZE_AT])
    faults = list(chain.from_iterable(each.faults for each in rounds))
    assert {fault.point for fault in faults} == set(POINTS)
    assert set(chain.from_iterable(each.behaviours for each in rounds)) == set(Behaviour)


def test_a_point_is_armed_in_the_service_that_comes_by_it() -> None:
    for fault in chain.from_iterable(each.faults for each in plan(3, 30, messages=100, kinds=[Kind.KILL_AT])):
        assert fault.point is not None
        assert fault.target.startswith(owner(fault.point))


def test_only_the_rebuild_has_a_point_that_no_service_comes_by() -> None:
    assert set(Failpoint) - set(POINTS) == {Failpoint.REBUILD_CHUNK, Failpoint.RETAIN_STEP}


def test_every_kind_can_be_done() -> None:
    assert set(FAULTS) == set(Kind)


def test_what_is_done_is_described() -> None:
    page = (CHECKOUT / "docs/reliability.md").read_text()
    table, mutants = page.split("`make faults-mutants` plants")
    assert [str(kind) for kind in Kind if str(kind) not in table] == []
    assert [str(behaviour) for behaviour in Behaviour if str(behaviour) not in table] == []
    assert [mutant.name for mutant in MUTANTS if f"- {mutant.name}" not in mutants] == []


def test_every_mutant_can_be_planted_in_the_code_as_it_is() -> None:
    edits = [(mutant.name, edit) for mutant in MUTANTS for edit in mutant.edits]
    assert [name for name, edit in edits if (CHECKOUT / edit.file).read_text().count(edit.old) != 1] == []

"""One block on several devices: sets are solved from the sums of all, and every device goes on with the new weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from core.device import CPU
from core.errors import NumericalError, RunStoppedError
from core.model.activations import HiddenStates
from core.model.capture import capture
from core.model.experts import each_expert_reached, fused_modules, split_experts
from core.model.input_sets import discover
from core.model.structure import find_blocks, find_linears
from core.model.suspend import Conduct
from core.quantizers.passing import Part, Passing
from core.quantizers.replica import BlockBatch, replicas
from core.quantizers.team import Station, Team
from core.solver.hessian import HessianAccumulator
from tests.core.tiny import random_tokens, tiny_model

BATCHES = 5


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def _team(devices: int) -> Team:
    return Team([Station(device=CPU, further=number > 0) for number in range(devices)])


def _passed(family: str, devices: int, *, in_order: bool) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Returns every set's Hessian and what leaves the block, each set halved once it is solved."""
    model = tiny_model(family)
    split_experts(model, fused_modules(model))
    modules = find_blocks(model).modules
    calls = [((), {"input_ids": tokens}) for tokens in random_tokens(BATCHES, 12).split(1)]
    captured, states = capture(model, modules, calls, lambda _: None)
    batches = [
        BlockBatch(hidden=HiddenStates(quantized=hidden), arguments=batch.arguments[0])
        for batch, hidden in zip(captured, states, strict=True)
    ]
    linears, hessians = find_linears(modules[0]), dict[str, torch.Tensor]()

    def halve(names: tuple[str, ...], collector: HessianAccumulator | None) -> None:
        if collector is not None:
            hessians[names[0]] = collector.finish().hessian_II
        for name in names:
            linears[name].weight.mul_(0.5)

    with _team(devices) as team:
        owners = replicas(team, modules[0], batches, lambda: None, 0)
        with each_expert_reached(modules[0]):
            sets = discover(linears, owners[0].runs[0].run).sets
        passing = Passing(
            team=team,
            parts=[
                Part(linears=owner.linears(linears), runs=owner.runs, conduct=Conduct(), streams={}) for owner in owners
            ],
            input_sets=sets,
            make_collector=HessianAccumulator,
            solve_set=halve,
        )
        left = passing.suspended() if in_order else passing.unsuspended()
    assert not any(module._forward_pre_hooks for module in linears.values())
    return hessians, [one.quantized for one in left]


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_the_sums_and_outputs_are_those_of_one_device(family: str, in_order: bool) -> None:
    """Equal but for the order of adding; every device meets the weights that the first one solved."""
    expected, left = _passed(family, 1, in_order=in_order)
    for devices in (2, 3, BATCHES + 1):
        hessians, outputs = _passed(family, devices, in_order=in_order)
        assert hessians.keys() == expected.keys()
        for name, hessian_II in hessians.items():
            torch.testing.assert_close(hessian_II, expected[name], rtol=1e-5, atol=1e-6)
        for one, other in zip(outputs, left, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_copy_shares_nothing_with_the_block() -> None:
    """Each tensor is copied once, also where two modules share it; grids and masks go along, shared as before."""
    block = find_blocks(tiny_model("llama")).modules[0]
    block.twin = block.mlp.up_proj
    station = Station(device=CPU, further=True)
    copied = station.own(block)
    own = {tensor.data_ptr() for tensor in block.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in copied.state_dict().values()}
    assert copied.twin is copied.mlp.up_proj
    for name, tensor in block.state_dict().items():
        assert torch.equal(copied.state_dict()[name], tensor)
    mask = torch.ones(3)
    assert station.place(mask) is station.place(mask)
    assert Station(device=CPU).own(block) is block


def test_jobs_run_at_the_same_time_in_order_of_devices() -> None:
    """All wait for one another: were they to run one behind the other, none would end."""
    import threading  # noqa: PLC0415 - used here alone

    barrier = threading.Barrier(3)
    with _team(3) as team:
        assert team.each([partial(_meet, barrier, number) for number in range(3)]) == [0, 1, 2]
        assert team.each([lambda: 7]) == [7]


def _meet(barrier: object, number: int) -> int:
    barrier.wait(60)  # type: ignore[attr-defined]
    return number


def _raise(error: BaseException) -> None:
    raise error


def test_the_first_true_error_is_raised_when_all_have_ended() -> None:
    """Not the stop that it led to; the next jobs begin anew."""
    stop, first, second = RunStoppedError(0), NumericalError("q", "first."), NumericalError("k", "second.")
    with _team(3) as team:
        for errors, expected in (
            ((stop, first, second), first),
            ((first, stop, second), first),
            ((stop, stop, second), second),
            ((stop, stop, stop), stop),
        ):
            with pytest.raises(type(expected)) as caught:
                team.each([partial(_raise, error) for error in errors])
            assert caught.value is expected
        assert team.each([lambda: 1, partial(team.stop_if_ending, 0), lambda: 3]) == [1, None, 3]


def test_who_raises_meanwhile_ends_the_others() -> None:
    """The thread that waits asks on; what it raises is told to those at work."""

    def work() -> None:
        while True:
            team.stop_if_ending(4)

    with _team(2) as team, pytest.raises(NumericalError):
        team.each([lambda: None, work], partial(_raise, NumericalError("q", "meanwhile.")))

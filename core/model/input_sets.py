"""Finds a block's input sets, the groups of linears fed by the very same tensor, by running the block once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn

InputSets: TypeAlias = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """A block's input sets. shared: sets that are fed by the tensor of an earlier one, by number, with that number."""

    sets: InputSets
    shared: Mapping[int, int] = field(default_factory=dict)


def discover_input_sets(
    linears: Mapping[str, nn.Module], run: Callable[[], torch.Tensor], *, unbroken: bool = False
) -> InputSets:
    """Returns the input sets alone; see `discover`."""
    return discover(linears, run, unbroken=unbroken).sets


def discover(linears: Mapping[str, nn.Module], run: Callable[[], torch.Tensor], *, unbroken: bool = False) -> Discovery:
    """Runs the block once and groups its linears by the tensor that feeds them, in order of arrival.

    A linear that is not reached, or reached more than once, is a set of its own. unbroken: a set ends where a linear
    of another one comes in between, as where attention and feed-forward run side by side. A float path that is carried
    along needs that: it has to be past all of a set when the set is solved.
    """
    arrivals: dict[str, list[tuple[Any, ...]]] = {name: [] for name in linears}
    kept_alive: list[torch.Tensor] = []
    order: list[str] = []

    def note(name: str, X: torch.Tensor) -> None:
        kept_alive.append(X)  # a freed tensor's address could be taken by another one
        if not arrivals[name]:
            order.append(name)
        arrivals[name].append((X.data_ptr(), tuple(X.shape), X.stride()))

    with input_hooks(linears, note):
        run()
    keys = {name: seen[0] if len(seen) == 1 else name for name, seen in arrivals.items() if seen}
    sets = _grouped(order, keys, unbroken=unbroken)
    first_with: dict[object, int] = {}
    shared = {}
    for number, names in enumerate(sets):
        earlier = first_with.setdefault(keys[names[0]], number)
        if earlier != number:
            shared[number] = earlier
    unreached = [(name,) for name, seen in arrivals.items() if not seen]
    return Discovery(sets=(*sets, *unreached), shared=shared)


def _grouped(order: list[str], keys: Mapping[str, object], *, unbroken: bool) -> list[tuple[str, ...]]:
    groups: dict[object, list[str]] = {}
    before: object = None
    for name in order:
        key = keys[name]
        if unbroken and key in groups and key != before:
            groups[object()] = groups.pop(key)
        groups.setdefault(key, []).append(name)
        before = key
    return [tuple(names) for names in sorted(groups.values(), key=lambda names: order.index(names[0]))]


@contextmanager
def input_hooks(linears: Mapping[str, nn.Module], note: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Tells of every input that reaches a module while the context is open."""

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, args: note(name, args[0])

    handles = [module.register_forward_pre_hook(hook_for(name)) for name, module in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

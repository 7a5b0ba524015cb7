"""What a suspended batch holds, and which of it can be let go: seen by running the block once, never listed.

A coroutine that waits in front of a set keeps all the calls that led there, and with them what they were made with: the
states that entered the block, and what fed the sets before. Behind some set nothing reads them any more. They are
emptied where they are: whoever read one after all would stop at a tensor without numbers, not go on with wrong ones.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from core.model.input_sets import InputSets, input_hooks

ENTERING: Final = -1
"""Stands for the states that the block is called with, among the numbers of sets."""

Spent: TypeAlias = Mapping[int, Collection[int]]
"""By set: what nothing reads from there on, the inputs of earlier sets and what entered."""


class Fed:
    """What one batch's pass was fed with so far; lets go of it once it is spent."""

    def __init__(self, spent: Spent) -> None:
        """Starts in front of the block."""
        self._spent = spent
        self._inputs: dict[int, weakref.ref[torch.Tensor]] = {}

    def arrive(self, rank: int, X: torch.Tensor) -> None:
        """Takes note of a set's inputs, and empties what is spent from there on."""
        for earlier in self._spent.get(rank, ()):
            reference = self._inputs.pop(earlier, None)
            inputs = None if reference is None else reference()
            if inputs is not None:
                _empty(inputs)
        self._inputs[rank] = weakref.ref(X)


def _empty(tensor: torch.Tensor) -> None:
    base = tensor._base  # noqa: SLF001 - a view keeps the tensor that it was made of, and so its memory
    for one in (tensor, base):
        if one is not None:
            one.set_()  # type: ignore[call-overload]  # torch declares it with arguments only


@contextmanager
def entering_hook(block: nn.Module, note: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Tells of the states that every call of a block begins with while the context is open."""

    def hook(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        note(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])

    handle = block.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def discover_spent(
    block: nn.Module, linears: Mapping[str, nn.Module], sets: InputSets, run: Callable[[], torch.Tensor]
) -> dict[int, frozenset[int]]:
    """Runs the block once; returns, by set, what is not read from its first linear's call on to the block's end.

    Of what the block did not make itself, only the states that enter it are among that.
    """
    reads, fed, at = _Reads(), dict[int, torch.Tensor](), dict[int, int]()
    rank_of = {names[0]: rank for rank, names in enumerate(sets)}

    def note(rank: int, X: torch.Tensor) -> None:
        if rank not in fed:
            reads.moment += 1
            fed[rank], at[rank] = X, reads.moment

    with (
        entering_hook(block, lambda hidden: note(ENTERING, hidden)),
        input_hooks({name: linears[name] for name in rank_of}, lambda name, X: note(rank_of[name], X)),
        reads,
    ):
        left = run()
    reads.last[_address(left)] = reads.moment + 1
    last = {
        rank: reads.last.get(_address(X), 0) for rank, X in fed.items() if rank == ENTERING or _address(X) in reads.made
    }
    return {
        rank: frozenset(earlier for earlier, moment in last.items() if max(moment, at[earlier]) < at[rank])
        for rank in fed
    }


def held_bytes(
    linears: Mapping[str, nn.Module], sets: InputSets, run: Callable[[], torch.Tensor], spent: Spent
) -> tuple[int, ...]:
    """Runs the block once; returns what it has allocated and still holds in front of each set, 0 where it never comes.

    The set's inputs are among it, what the block is called with and what is spent is not.
    """
    living, fed = _Living(), Fed(spent)
    held: dict[int, int] = {}
    rank_of = {names[0]: rank for rank, names in enumerate(sets)}

    def note(name: str, X: torch.Tensor) -> None:
        if rank_of[name] not in held:
            fed.arrive(rank_of[name], X)
            held[rank_of[name]] = living.nbytes()

    with input_hooks({name: linears[name] for name in rank_of}, note), living:
        run()
    return tuple(held.get(rank, 0) for rank in range(len(sets)))


class _Watch(TorchDispatchMode, ABC):  # type: ignore[no-untyped-call]  # torch types its modes in part
    """Sees every operation while it is open."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        self.see({_address(tensor) for tensor in _tensors([args, kwargs])}, list(_tensors(result)))
        return result

    @abstractmethod
    def see(self, read: set[int], results: list[torch.Tensor]) -> None:
        """Takes note of an operation: the memory that it was given, and what came out."""


class _Reads(_Watch):  # type: ignore[no-untyped-call]  # torch types its modes in part
    """Knows at which moment each memory was used last, and which was made, while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = 0
        self.last: dict[int, int] = {}
        self.made: set[int] = set()

    def see(self, read: set[int], results: list[torch.Tensor]) -> None:
        """See _Watch."""
        written = {_address(tensor) for tensor in results}
        self.made |= written - read
        self.last |= dict.fromkeys(read | written, self.moment)


class _Living(_Watch):  # type: ignore[no-untyped-call]  # torch types its modes in part
    """Knows the memory that was allocated while it was open and is still in use."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[weakref.ref[torch.Tensor]] = []

    def see(self, read: set[int], results: list[torch.Tensor]) -> None:
        """See _Watch."""
        foreign = read - set(self._storages())
        self._made += [weakref.ref(tensor) for tensor in results if _address(tensor) not in foreign]

    def nbytes(self) -> int:
        """Returns the bytes that are in use now."""
        return sum(self._storages().values())

    def _storages(self) -> dict[int, int]:
        self._made = [made for made in self._made if made() is not None]
        alive = (made() for made in self._made)
        return {_address(tensor): tensor.untyped_storage().nbytes() for tensor in alive if tensor is not None}


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(tree: object) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, (list, tuple)):
        for part in tree:
            yield from _tensors(part)

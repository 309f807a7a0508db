"""What a node keeps for its backward pass: names, shapes and bytes of saved tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.graph import Node
from torch.multiprocessing.reductions import StorageWeakRef

PACKED = "packed by a saved-tensor hook (checkpointing, offloading)"
FREED = "freed"
_RAW = "_raw_saved_"

_names: dict[type, tuple[str, ...]] = {}  # the saved attributes are the same for all of a type


class Storages:
    """The memory behind all saved tensors of a graph, each storage once, held weakly."""

    def __init__(self, parameters: dict[int, str]) -> None:
        self._parameters = parameters
        self._kept: dict[int, tuple[StorageWeakRef, int]] = {}
        self._users: list[tuple[dict[str, Any], int]] = []

    @property
    def bytes(self) -> int:
        """Bytes of the storages that are not parameters."""
        return sum(size for place, (_, size) in self._kept.items() if place not in self._parameters)

    def parameter(self, place: int) -> str | None:
        return self._parameters.get(place)

    def add(self, record: dict[str, Any], tensor: torch.Tensor) -> None:
        place = address(tensor)
        if place:
            if place not in self._kept:
                storage = tensor.untyped_storage()
                self._kept[place] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
            self._users.append((record, place))

    def settle(self) -> None:
        """Writes ``alive`` into the records: whether the memory is still held now."""
        alive = {place: _held(weak) for place, (weak, _) in self._kept.items()}
        for record, place in self._users:
            record["alive"] = alive[place]
        self._kept.clear()
        self._users.clear()


def saved_tensors(node: Node, storages: Storages) -> list[dict[str, Any]]:
    """One record a saved tensor: ``name, shape, dtype, bytes, parameter, note, alive``.

    ``parameter`` is its name when the saved tensor is a parameter's own storage, which costs no
    extra memory. ``note`` says why a tensor cannot be looked at: freed by an earlier backward
    pass, changed in place since, or packed by a hook. Packed ones are never unpacked, since that
    would run a checkpointed forward a second time.

    ``alive`` is None until ``storages.settle()`` tells whether the memory is still held.
    """
    records = []
    for raw_name in _raw_names(node):
        name = raw_name.removeprefix(_RAW)
        try:
            raw = getattr(node, raw_name)
        except RuntimeError:
            records.append(_unseen(name, FREED))
            continue
        if isinstance(raw, (tuple, list)):
            if _plain(raw):
                records += _described(node, name, storages)
            else:
                records += [_unseen(f"{name}[{number}]", PACKED) for number in range(len(raw))]
        elif raw is not None:
            records += (
                _described(node, name, storages) if _plain([raw]) else [_unseen(name, PACKED)]
            )
    return records


def unpacked(node: Node) -> Iterator[torch.Tensor]:
    """The tensors that a node has saved; not those that are freed, changed since, or packed."""
    return (tensor for _, tensor in unpacked_by_name(node))


def unpacked_by_name(node: Node) -> Iterator[tuple[str, torch.Tensor]]:
    """The same, each with the name under which autograd has it: ``self``, ``other``, ``result``."""
    for raw_name in _raw_names(node):
        try:
            raw = getattr(node, raw_name)
            if raw is None or not _plain(raw if isinstance(raw, (tuple, list)) else [raw]):
                continue
            name = raw_name.removeprefix(_RAW)
            value = _value(node, name)
        except RuntimeError:
            continue
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, torch.Tensor):
                yield name, item


def _raw_names(node: Node) -> tuple[str, ...]:
    kind = type(node)
    names = _names.get(kind)
    if names is None:
        names = _names[kind] = tuple(name for name in dir(node) if name.startswith(_RAW))
    return names


def _plain(raw: Any) -> bool:
    # Versions that cannot tell whether there is a hook count as hooked.
    return all(getattr(item, "unpack_hook", item) is None for item in raw)


def _described(node: Node, name: str, storages: Storages) -> list[dict[str, Any]]:
    try:
        value = _value(node, name)
    except RuntimeError as error:
        text = str(error)
        return [_unseen(name, "changed in place" if "inplace" in text else FREED)]
    if isinstance(value, torch.Tensor):
        return [_record(name, value, storages)]
    if isinstance(value, (tuple, list)):
        return [
            _record(f"{name}[{number}]", item, storages)
            for number, item in enumerate(value)
            if isinstance(item, torch.Tensor)
        ]
    return []


def _value(node: Node, name: str) -> Any:
    public = f"_saved_{name}"
    return getattr(node, public if hasattr(type(node), public) else "saved_tensors")


def _record(name: str, tensor: torch.Tensor, storages: Storages) -> dict[str, Any]:
    if tensor.is_nested:  # its parts may have a shape each
        return _unseen(name, "nested")
    record = {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "bytes": tensor.numel() * tensor.element_size(),
        "parameter": storages.parameter(address(tensor)),
        "note": "",
        "alive": None,
    }
    storages.add(record, tensor)
    return record


def _unseen(name: str, note: str) -> dict[str, Any]:
    return {
        "name": name, "shape": None, "dtype": "", "bytes": 0, "parameter": None, "note": note,
        "alive": None,
    }  # fmt: skip


def address(tensor: torch.Tensor) -> int:
    """Where the tensor's storage lies; 0 for tensors without one (sparse, fake)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


def _held(weak: StorageWeakRef) -> bool:
    return not weak.expired()  # type: ignore[no-untyped-call]

"""Several LoRA adapters on one model: which of them are in memory, and who gets which. Knows modules and rows of a
batch; not items, not requests.

The model's weights stay as they are. Each module that an adapter changes adds, to its rows, what their adapter adds; so
one step may serve many adapters. The thread that runs the model loads them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from hfray.models.lora_weights import LoraWeights, read_lora
from hfray.models.source import ModelSource

Routing = Sequence[tuple[str, Any]]
"""(adapter, its rows: int64 [n] along the last dimension but one; None: all there are)."""


class AdapterBank:
    """Adapters by name. At most `max_loaded` are in memory; the least recently used goes first."""

    def __init__(
        self,
        model: Any,
        sources: Mapping[str, ModelSource],
        *,
        device: Any,
        max_loaded: int,
        missing: Collection[str] = (),
    ) -> None:
        """missing: weights that the model's own files lack (a head), so that every adapter must bring them."""
        self.names = tuple(sources)
        self.missing = tuple(missing)
        self.max_loaded = max_loaded
        self.loads = 0
        self._model = model
        self._sources = {name: source.located() for name, source in sources.items()}
        self._device = device
        self._loaded: OrderedDict[str, LoraWeights] = OrderedDict()
        self._hooked: set[str] = set()
        self._current = threading.local()

    def ensure(self, names: Collection[str]) -> None:
        """Loads what is not there; what is not named may go. Raises SpecError, EngineError for files that have changed,
        KeyError for a name nobody knows, ValueError for more names than may be there."""
        if len(names) > self.max_loaded:
            raise ValueError(f"{len(names)} adapters at once, over max_loaded {self.max_loaded}")
        for name in sorted(names):
            if name not in self._loaded:
                source = self._sources[name].located()  # hours may lie between the start and this
                while len(self._loaded) >= self.max_loaded:
                    del self._loaded[next(each for each in self._loaded if each not in names)]
                self._loaded[name] = read_lora(source, self._model, self._device, missing=self.missing)
                self.loads += 1
                self._hook(self._loaded[name])
            self._loaded.move_to_end(name)

    @contextmanager
    def routed(self, routing: Routing) -> Iterator[None]:
        """Inside, in this thread, the model's rows have these adapters, which are loaded; others have none."""
        self._current.routing = [(self._loaded[name], rows) for name, rows in routing]
        try:
            yield
        finally:
            self._current.routing = ()

    def _hook(self, weights: LoraWeights) -> None:
        for name in {*weights.layers, *weights.heads} - self._hooked:
            self._model.get_submodule(name).register_forward_hook(self._hook_of(name))
            self._hooked.add(name)

    def _hook_of(self, name: str) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
            for weights, rows in getattr(self._current, "routing", ()):
                head = weights.heads.get(name)
                if head is not None:
                    output = _call(module, head, inputs)
                layer = weights.layers.get(name)
                if layer is None:
                    continue
                x = inputs[0] if rows is None else inputs[0].index_select(-2, rows)
                added = torch.nn.functional.linear(torch.nn.functional.linear(x.to(layer.a.dtype), layer.a), layer.b)
                added = (added * layer.scale).to(output.dtype)
                output = output + added if rows is None else output.index_add(-2, rows, added)
            return output

        return hook


def _call(module: Any, parameters: Mapping[str, Any], inputs: tuple[Any, ...]) -> Any:
    """The module with other parameters; its own hooks stay out of it."""
    own = dict(module.named_parameters(recurse=False)) | dict(parameters)
    if not isinstance(module, torch.nn.Linear):
        raise TypeError(f"a head of the type {type(module).__name__}; only linear ones are known")
    return torch.nn.functional.linear(inputs[0], own["weight"], own.get("bias"))

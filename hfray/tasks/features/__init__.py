"""The modes of training features by name. Each is one file; this dict is the only registry."""

from __future__ import annotations

from hfray.tasks.features.base import Features
from hfray.tasks.features.causal import Packed
from hfray.tasks.features.chat import Chat
from hfray.tasks.features.pair import Pair
from hfray.tasks.features.plain import Plain
from hfray.tasks.features.seq2seq import Seq2Seq
from hfray.tasks.features.windows import Windows
from hfray.tasks.features.words import Words

MODES: dict[str, type[Features]] = {mode.name: mode for mode in (Plain, Pair, Windows, Words, Seq2Seq, Chat, Packed)}

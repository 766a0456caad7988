"""Trains a tokenizer on texts: byte-level BPE, BPE, WordPiece or Unigram. Knows texts and the libraries that train; not
rows, not files.

The same texts give the same tokenizer, byte for byte, on any number of threads. The `tokenizers` library alone does not
promise that (0.23): its WordPiece numbers the continuing letters in the order of a randomly seeded hash map, and pairs
as frequent as each other merge in the order of these numbers; its Unigram walks such a map too, and adds floats in as
many heaps as there are threads. Here the continuing letters are numbered beforehand, and Unigram is learned by
SentencePiece on a fixed number of threads, which is ten times as fast besides.

Memory: that of `word_counts`. Unigram's words end at white space only: of a language that writes none, every sentence
is one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

from hfray.errors import DataError, SpecError
from hfray.models.word_counts import Corpus, alphabet_of, count_words, countable, known_parts, repeated
from hfray.tasks.features.tokenizer_options import (
    DEFAULT_COVERAGE,
    DEFAULT_MIN_FREQUENCY,
    Role,
    TokenizerOptions,
)

_CONTINUES = "##"
_MAX_WORD_CHARS = 100
"""WordPiece makes a longer word the unknown token, as BERT does."""
_MAX_PART_CHARS = 1000
"""Longer ones (text without spaces) are learned in pieces: SentencePiece would skip them, and each merge of pairs walks
through all of a word."""
_SENTENCEPIECE_THREADS = 8
"""Part of the result: sums of floats depend on it."""


def train_tokenizer(texts: Iterable[Any], options: TokenizerOptions) -> tuple[Any, Corpus]:
    """A fast tokenizer, which `save_tokenizer` writes and `AutoTokenizer` reads, and what it was trained on.

    texts: each a text or a list of texts, read once; what they raise passes.
    Raises SpecError if the vocabulary is too small for the characters, or the chat template is broken; DataError if
    there is nothing to learn from.
    """
    build, learn = _ALGORITHMS[options.algorithm]
    _check_template(_finished(build(options), options))  # before hours of reading
    backend = build(options)
    counts, corpus = count_words(
        texts, backend, max_chars=options.max_chars, truncate=options.over_max_chars == "truncate"
    )
    if not counts:
        raise DataError(
            f"there is nothing to train a tokenizer on: {corpus.num_texts:,} texts without a word in them, "
            f"{corpus.num_skipped:,} skipped"
        )
    backend.model = learn(countable(counts), options)
    return _finished(backend, options), corpus


def _learn_bytes(counts: dict[str, int], options: TokenizerOptions) -> Any:
    from tokenizers import models, pre_tokenizers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    parts = known_parts(counts, frozenset(alphabet), _MAX_PART_CHARS)
    return models.BPE(*_merged(parts, options, initial_alphabet=sorted(alphabet)))


def _learn_bpe(counts: dict[str, int], options: TokenizerOptions) -> Any:
    from tokenizers import models

    alphabet = _alphabet(counts, options)
    _check_size(options, len(alphabet), "characters")
    parts = known_parts(counts, alphabet, _MAX_PART_CHARS)
    vocab, merges = _merged(parts, options, initial_alphabet=sorted(alphabet))
    return models.BPE(vocab, merges, unk_token=options.tokens["unk"], fuse_unk=True)


def _learn_wordpiece(counts: dict[str, int], options: TokenizerOptions) -> Any:
    from tokenizers import models

    alphabet = _alphabet(counts, options)
    # A word with an unknown character is unknown as a whole, so that there is nothing to learn from the rest of it.
    known = {word: n for word, n in counts.items() if len(word) <= _MAX_WORD_CHARS and alphabet.issuperset(word)}
    continuing = sorted({char for word in known for char in word[1:]})
    letters = [*sorted(alphabet), *(_CONTINUES + char for char in continuing)]
    _check_size(options, len(letters), "characters (with ## and without)")
    vocab, _ = _merged(known, options, numbered=letters, continuing_subword_prefix=_CONTINUES)
    return models.WordPiece(vocab, unk_token=options.tokens["unk"], max_input_chars_per_word=_MAX_WORD_CHARS)


def _merged(
    counts: dict[str, int], options: TokenizerOptions, *, numbered: Iterable[str] = (), **settings: Any
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges. numbered: tokens that follow the special ones, in this order."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab_size,
        min_frequency=options.min_frequency or DEFAULT_MIN_FREQUENCY,
        special_tokens=[*options.all_special_tokens, *numbered],
        show_progress=False,
        **settings,
    )
    trained.train_from_iterator(repeated(counts), trainer)
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _learn_unigram(counts: dict[str, int], options: TokenizerOptions) -> Any:
    import sentencepiece
    from tokenizers import models

    alphabet = _alphabet(counts, options)
    _check_size(options, len(alphabet), "characters")
    parts = known_parts(counts, alphabet, _MAX_PART_CHARS)
    special = options.all_special_tokens
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(f"{part}\t{count}" for part, count in parts.items()),
            input_format="tsv",
            model_writer=model,
            model_type="unigram",
            vocab_size=options.vocab_size - len(special) + 1,  # it counts its own unknown token
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=_SENTENCEPIECE_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(f"no Unigram vocabulary can be learned from these texts: {error}") from error
    learned = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(learned.id_to_piece(i), round(learned.get_score(i), 6)) for i in range(1, learned.get_piece_size())]
    vocab = [*((token, 0.0) for token in special), *(each for each in pieces if each[0] not in special)]
    return models.Unigram(vocab, unk_id=special.index(options.tokens["unk"]), byte_fallback=False)


def _alphabet(counts: dict[str, int], options: TokenizerOptions) -> frozenset[str]:
    return alphabet_of(counts, options.character_coverage or DEFAULT_COVERAGE)


def _check_size(options: TokenizerOptions, num_chars: int, what: str) -> None:
    num_special = len(options.all_special_tokens)
    if options.vocab_size < num_chars + num_special:
        least = num_chars + num_special
        raise SpecError(
            f"mode.vocab_size: {options.vocab_size:,} is too small for this input; its {num_chars:,} {what} and "
            f"{num_special} special tokens need at least {least:,}, or a lower mode.character_coverage"
        )


def _byte_pipeline(options: TokenizerOptions) -> Any:
    """As GPT-2: no space is put before the first word, and decoding gives back every byte."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    backend = Tokenizer(models.BPE())
    if options.lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def _space_pipeline(options: TokenizerOptions) -> Any:
    """As SentencePiece: its `nmt_nfkc`, all white space made one space, which becomes part of the word behind it."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    steps = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([*steps, *([normalizers.Lowercase()] if options.lowercase else [])])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    if options.algorithm == "bpe":  # SentencePiece itself keeps letters and punctuation apart
        punctuation = pre_tokenizers.Punctuation("isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([backend.pre_tokenizer, punctuation])
    backend.decoder = decoders.Metaspace()
    return backend


def _word_pipeline(options: TokenizerOptions) -> Any:
    """As BERT."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.WordPiece({}, unk_token=options.tokens["unk"]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=options.lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=_CONTINUES)
    return backend


_ALGORITHMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "byte-bpe": (_byte_pipeline, _learn_bytes),
    "bpe": (_space_pipeline, _learn_bpe),
    "wordpiece": (_word_pipeline, _learn_wordpiece),
    "unigram": (_space_pipeline, _learn_unigram),
}


_AROUND: dict[str, tuple[Role | None, Role | None]] = {
    "bpe": ("bos", None),
    "wordpiece": ("cls", "sep"),
    "unigram": (None, "eos"),
}
"""The roles of the special tokens before and after a text, for as long as there are such."""


def _finished(backend: Any, options: TokenizerOptions) -> Any:
    """With special tokens, what stands around a text, and the chat template."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    special = options.all_special_tokens
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    _put_around(backend, options)
    named = set(options.tokens.values())
    types = ["token_type_ids"] if options.algorithm == "wordpiece" else []
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=options.max_length,
        extra_special_tokens=[token for token in special if token not in named],
        model_input_names=["input_ids", *types, "attention_mask"],
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": token for role, token in options.tokens.items()},
    )
    tokenizer.chat_template = options.template
    return tokenizer


def _put_around(backend: Any, options: TokenizerOptions) -> None:
    from tokenizers.processors import TemplateProcessing

    before, after = _AROUND.get(options.algorithm, (None, None))
    first = options.tokens.get(before) if before else None
    last = options.tokens.get(after) if after else None
    if first is None and last is None:
        return
    single = [*([first] if first else []), "$A:0", *([last] if last else [])]
    # BERT says which of two texts a token is in; the others have no such ids.
    second = 1 if options.algorithm == "wordpiece" else 0
    pair = [*single, f"$B:{second}", *([f"{last}:{second}"] if last else [])]
    backend.post_processor = TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(token, backend.token_to_id(token)) for token in (first, last) if token],
    )


def _check_template(tokenizer: Any) -> None:
    from jinja2 import TemplateError, TemplateSyntaxError

    if tokenizer.chat_template is None:
        return
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise SpecError(f"mode.chat_template: line {error.lineno}: {error.message}") from error
    except TemplateError:
        pass  # it may ask for other messages than this one

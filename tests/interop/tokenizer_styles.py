"""Tokenizers trained on the corpus, in the styles of published models and with every component: STYLES maps names to functions that make one."""

import functools
import json

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tokenizer_corpus import corpus

TRAINING_SEED = 7
TRAINING_LINES = 1200
ADDED = [
    AddedToken("<|begin|>", special=True),
    AddedToken("<|end|>", special=True),
    AddedToken("<|sep|>", special=True, lstrip=True, rstrip=True),
    AddedToken("<tool>", normalized=True),
    AddedToken("Word", single_word=True, normalized=False),
    AddedToken("  ", normalized=False),
    AddedToken("<|beg", normalized=True, rstrip=True),
    AddedToken("É", normalized=True),
]

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + REST
QWEN2 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + REST
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
O200K = (f"[^\\r\\n\\p{{L}}\\p{{N}}]?[{UPPER}]*[{LOWER}]+{CONTRACTION}?|[^\\r\\n\\p{{L}}\\p{{N}}]?[{UPPER}]+[{LOWER}]*{CONTRACTION}?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + REST)
DEEPSEEK_V3 = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
               "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
DEEPSEEK_LETTERS = ("\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01c4-\u0293\u0370-\u0373\u0386\u0388-\u038a\u038e-\u03a1\u03a3-\u03f5"
                    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u1e00-\u1f15\u212a\u212b-\u212d\U00010400-\U0001044f]+")
CHINESE_AND_KOREAN = "[一-龥ࠀ-一가-퟿]+"
ODD_REGEX = r"a{1,2}+|(?<=b)c|^d|e$|\bf|[\p{Lu}&&[^A-M]]|[[:punct:]]+|\h{4}|x*"


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(prefix=False, regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def chain(*steps):
    return pre_tokenizers.Sequence(list(steps))


def normal(*steps):
    return normalizers.Sequence(list(steps))


@functools.cache
def training_text():
    return corpus(TRAINING_SEED, TRAINING_LINES)


def train(pre_tokenizer, normalizer=None, size=1500, bytes_as_letters=True, ignore_merges=False, **model):
    """A BPE tokenizer with the tokens of ADDED."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    options = {key: model[key] for key in ("continuing_subword_prefix", "end_of_word_suffix") if key in model}
    if bytes_as_letters:
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    if "unk_token" in model:
        options["special_tokens"] = [model["unk_token"]]
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, min_frequency=2, **options)
    tokenizer.train_from_iterator(training_text(), trainer)
    if ignore_merges:  # which the trainer's model does not keep
        content = json.loads(tokenizer.to_str())
        content["model"]["ignore_merges"] = True
        tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens([token for token in ADDED if token.special])
    tokenizer.add_tokens([token for token in ADDED if not token.special])
    return tokenizer


def letters(pre_tokenizer, normalizer=None, **model):
    return train(pre_tokenizer, normalizer, bytes_as_letters=False, **model)


def metaspace(scheme, **options):
    return pre_tokenizers.Metaspace(prepend_scheme=scheme, **options)


n, p = normalizers, pre_tokenizers
STYLES = {
    "gpt2": lambda: train(byte_level(regex=True)),
    "roberta": lambda: train(byte_level(prefix=True, regex=True)),
    "llama3": lambda: train(chain(split(LLAMA3), byte_level()), ignore_merges=True),
    "qwen2": lambda: train(chain(split(QWEN2), byte_level()), n.NFC()),
    "o200k": lambda: train(chain(split(O200K), byte_level())),
    "deepseek-coder": lambda: train(chain(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CHINESE_AND_KOREAN), p.Digits(True),
                                          byte_level())),
    "deepseek-llm": lambda: train(chain(split("[\r\n]"), split(DEEPSEEK_LETTERS), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"),
                                        split(CHINESE_AND_KOREAN), p.Digits(True), byte_level())),
    "deepseek-v3": lambda: train(chain(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_V3), byte_level())),
    "starcoder": lambda: train(chain(p.Digits(True), byte_level(regex=True))),
    "falcon": lambda: train(chain(p.Punctuation("contiguous"), byte_level(regex=True), p.Digits(False), split("[0-9][0-9][0-9]"))),
    "bytes-normalizer": lambda: train(split("Ġ", "merged_with_next"), normal(n.NFKC(), n.ByteLevel())),
    "nfd-accents": lambda: train(byte_level(), normal(n.NFD(), n.StripAccents(), n.Lowercase())),
    "nfkd-strip": lambda: train(byte_level(), normal(n.NFKD(), n.Strip(True, True))),
    "nmt-nfkc": lambda: train(byte_level(), normal(n.Nmt(), n.NFKC(), n.Replace(Regex(" {2,}"), " "), n.Strip(False, True))),
    "metaspace-first": lambda: letters(metaspace("first", split=False), unk_token="<unk>", fuse_unk=True),
    "metaspace-always-split": lambda: letters(metaspace("always", split=True), n.Strip(True, False), unk_token="<unk>"),
    "metaspace-never": lambda: letters(chain(p.WhitespaceSplit(), metaspace("never")), n.Lowercase(), unk_token="<unk>"),
    "metaspace-first-strip": lambda: letters(metaspace("first", split=True), normal(n.Strip(True, True), n.Replace("a", ""), n.NFC()),
                                             unk_token="<unk>"),
    "prefix-suffix": lambda: letters(p.Whitespace(), unk_token="[UNK]", continuing_subword_prefix="##", end_of_word_suffix="</w>"),
    "bert-pre": lambda: letters(p.BertPreTokenizer(), unk_token="[UNK]", end_of_word_suffix="</w>"),
    "char-delimiter": lambda: letters(chain(p.CharDelimiterSplit("e"), p.Punctuation("merged_with_previous"))),
    "regex-odd": lambda: train(chain(split(ODD_REGEX), byte_level()), size=600),
}
for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
    for invert in (False, True):
        STYLES[f"split-{behavior}-{invert}"] = functools.partial(
            lambda behavior, invert: train(chain(split(r"\w+|[^\w\s]", behavior, invert), p.Split(" ", behavior, invert), byte_level()), size=600),
            behavior, invert)

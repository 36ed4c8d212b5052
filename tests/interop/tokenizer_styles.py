"""Tokenizers trained on the corpus, in the styles of published models and with every component. build() -> {name: tokenizers.Tokenizer}"""

import json
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers as N, pre_tokenizers as P, trainers

from tokenizer_corpus import corpus

LLAMA3=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K="|".join([r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
 r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
 r"\p{N}{1,3}",r" ?[^\s\p{L}\p{N}]+[\r\n/]*",r"\s*[\r\n]+",r"\s+(?!\S)",r"\s+"])
DEEPSEEK3="[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
def split(p,b="isolated",invert=False): return P.Split(Regex(p),b,invert)
def bytes_(prefix=False,regex=False): return P.ByteLevel(add_prefix_space=prefix,use_regex=regex)
def train(pre, norm=None, size=1500, alphabet=True, seed=7, **model):
    t=Tokenizer(models.BPE(**model)); 
    if norm: t.normalizer=norm
    if pre: t.pre_tokenizer=pre
    kw=dict(vocab_size=size,show_progress=False,min_frequency=2)
    if alphabet: kw["initial_alphabet"]=P.ByteLevel.alphabet()
    for k in ("continuing_subword_prefix","end_of_word_suffix"):
        if model.get(k): kw[k]=model[k]
    if model.get("unk_token"): kw["special_tokens"]=[model["unk_token"]]
    t.train_from_iterator(corpus(seed, 1200), trainers.BpeTrainer(**kw))
    return t
def rebuilt(t,**changes):
    j=json.loads(t.to_str())
    for k,v in changes.items(): j["model"][k]=v
    return Tokenizer.from_str(json.dumps(j))
ADDED=[AddedToken("<|begin|>",special=True),AddedToken("<|end|>",special=True),AddedToken("<|sep|>",special=True,lstrip=True,rstrip=True),
       AddedToken("<tool>",normalized=True),AddedToken("Word",single_word=True,normalized=False),AddedToken("  ",normalized=False),AddedToken("<|beg",normalized=True,rstrip=True),
       AddedToken("É",normalized=True)]
def build():
    out={}
    def add(name,t,added=ADDED):
        sp=[a for a in added if a.special]; o=[a for a in added if not a.special]
        t.add_special_tokens(sp); t.add_tokens(o); out[name]=t
    add("gpt2",train(bytes_(regex=True)))
    add("roberta",train(bytes_(True,True)))
    add("llama3",rebuilt(train(P.Sequence([split(LLAMA3),bytes_()])),ignore_merges=True))
    add("qwen2",train(P.Sequence([split(QWEN2),bytes_()]),N.NFC()))
    add("o200k",train(P.Sequence([split(O200K),bytes_()])))
    add("deepseek-coder",train(P.Sequence([split("[\r\n]"),split("\\s?\\p{L}+"),split("\\s?\\p{P}+"),split("[一-龥ࠀ-一가-퟿]+"),P.Digits(True),bytes_()])))
    add("deepseek-llm",train(P.Sequence([split("[\r\n]"),split("\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01c4-\u0293\u0370-\u0373\u0386\u0388-\u038a\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u1e00-\u1f15\u212a\u212b-\u212d\U00010400-\U0001044f]+"),split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),split("\\s+$"),split("[一-龥ࠀ-一가-퟿]+"),P.Digits(True),bytes_()])))
    add("deepseek-v3",train(P.Sequence([split("\\p{N}{1,3}"),split("[一-龥぀-ゟ゠-ヿ]+"),split(DEEPSEEK3),bytes_()])))
    add("starcoder",train(P.Sequence([P.Digits(True),bytes_(regex=True)])))
    add("falcon",train(P.Sequence([P.Punctuation("contiguous"),bytes_(regex=True),P.Digits(False),split("[0-9][0-9][0-9]")])))
    add("bytes-normalizer",train(split("Ġ","merged_with_next"),N.Sequence([N.NFKC(),N.ByteLevel()])))
    for name,norm in [("nfd-accents",N.Sequence([N.NFD(),N.StripAccents(),N.Lowercase()])),("nfkd-strip",N.Sequence([N.NFKD(),N.Strip(True,True)])),("nmt-nfkc",N.Sequence([N.Nmt(),N.NFKC(),N.Replace(Regex(" {2,}")," "),N.Strip(False,True)]))]:
        add(name,train(bytes_(),norm))
    meta=dict(alphabet=False,unk_token="<unk>")
    add("metaspace-first",train(P.Metaspace(prepend_scheme="first",split=False),None,fuse_unk=True,**meta))
    add("metaspace-always-split",train(P.Metaspace(prepend_scheme="always",split=True),N.Strip(True,False),**meta))
    add("metaspace-never",train(P.Sequence([P.WhitespaceSplit(),P.Metaspace(prepend_scheme="never")]),N.Lowercase(),**meta))
    add("metaspace-first-strip",train(P.Metaspace(prepend_scheme="first",split=True),N.Sequence([N.Strip(True,True),N.Replace("a",""),N.NFC()]),**meta))
    add("prefix-suffix",train(P.Whitespace(),None,alphabet=False,unk_token="[UNK]",continuing_subword_prefix="##",end_of_word_suffix="</w>"))
    add("bert-pre",train(P.BertPreTokenizer(),None,alphabet=False,unk_token="[UNK]",end_of_word_suffix="</w>"))
    add("char-delimiter",train(P.Sequence([P.CharDelimiterSplit("e"),P.Punctuation("merged_with_previous")]),None,alphabet=False))
    for b in ["removed","isolated","merged_with_previous","merged_with_next","contiguous"]:
        for inv in (False,True):
            add(f"split-{b}-{inv}",train(P.Sequence([split(r"\w+|[^\w\s]","%s"%b,inv),P.Split(" ",b,inv),bytes_()]),None,size=600))
    add("regex-odd",train(P.Sequence([split(r"a{1,2}+|(?<=b)c|^d|e$|\bf|[\p{Lu}&&[^A-M]]|[[:punct:]]+|\h{4}|x*"),bytes_()]),None,size=600))
    return out

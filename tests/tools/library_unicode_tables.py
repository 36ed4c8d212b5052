#!/usr/bin/env python3
"""Writes src/tokenizer/*.inc: where the `tokenizers` library's Unicode tables are not those of Debian 12's PCRE2 (Unicode 14) and utf8proc (15).

library_unicode_tables.py DIRECTORY      Needs tokenizers, and libutf8proc.so.2. Takes two minutes: it asks for every code point.
The library has four tables of different age: Oniguruma's, the Rust regex crate's, Rust's own, and those of unicode-normalization-alignments
and unicode_categories.
"""

import ctypes
import sys
import unicodedata
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

STABLE, COMPAT, COMPOSE, DECOMPOSE = 2, 4, 8, 16
CODES = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So".split()
PROPERTIES = "alphabetic uppercase lowercase han hiragana katakana latin arabic cyrillic".split()
# Unicode 14 is the base of the additions, whatever Python this is: what 14 has not, as 3.11's unicodedata says.
assert unicodedata.unidata_version == "14.0.0", "run this with Python 3.11"

utf8proc = ctypes.CDLL("libutf8proc.so.2")
utf8proc.utf8proc_map.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int]
utf8proc.utf8proc_map.restype = ctypes.c_ssize_t
utf8proc.utf8proc_category_string.restype = ctypes.c_char_p
free = ctypes.CDLL(None).free
free.argtypes = [ctypes.c_void_p]


def utf8proc_map(text, options):
    data, result = text.encode(), ctypes.c_void_p()
    size = utf8proc.utf8proc_map(data, len(data), ctypes.byref(result), options)
    try:
        return ctypes.string_at(result.value, size).decode()
    finally:
        free(result)


def category(code):
    return utf8proc.utf8proc_category_string(code).decode()


def ranges(codes):
    result = []
    for code in sorted(codes):
        if result and result[-1][1] == code - 1:
            result[-1][1] = code
        else:
            result.append([code, code])
    return result


def removed_by(pre_tokenizer, codes):
    return {code for code in codes if not pre_tokenizer.pre_tokenize_str(chr(code))}


def normalization():
    forms = [(normalizers.NFC(), COMPOSE), (normalizers.NFD(), DECOMPOSE), (normalizers.NFKC(), COMPOSE | COMPAT), (normalizers.NFKD(), DECOMPOSE | COMPAT)]
    strip = normalizers.StripAccents()
    result = set()
    for code in CODES:
        one = chr(code)
        # A neighbour of class 1 and one of class 230 and 240 show its combining class.
        probes = (one, one + "\u0334", "\u0301" + one, one + "\u0345")
        if any(form.normalize_str(probe) != utf8proc_map(probe, STABLE | options) for form, options in forms for probe in probes):
            result.add(code)
        if category(code)[0] == "M" and strip.normalize_str("a" + one) != "a":
            result.add(code)
    return result


def additions():
    new = [code for code in CODES if unicodedata.category(chr(code)) == "Cn"]
    for name in CATEGORIES + PROPERTIES:
        for first, last in ranges(removed_by(pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed"), new)):
            yield first, last, name


def write(path, rows):
    lines, line = ["// Made by tests/tools/library_unicode_tables.py.", "// clang-format off"], ""
    for row in rows:
        if len(line) + len(row) > 136:
            lines.append(line.rstrip())
            line = ""
        line += row + " "
    path.write_text("\n".join([*lines, line.rstrip(), "// clang-format on", ""]), encoding="utf-8")


def main():
    where = Path(sys.argv[1])
    punctuation = removed_by(pre_tokenizers.Punctuation("removed"), CODES)
    newer = {code for code in CODES if category(code)[0] == "P" and code not in punctuation}
    write(where / "newer_punctuation.inc", ["{0x%X, 0x%X}," % tuple(r) for r in ranges(newer)])
    write(where / "newer_normalization.inc", ["{0x%X, 0x%X}," % tuple(r) for r in ranges(normalization())])
    write(where / "newer_properties.inc", ['{0x%X, 0x%X, "%s"},' % row for row in sorted(additions())])


if __name__ == "__main__":
    main()

"""Varied lines from a seed: scripts, marks, emoji, white space, control characters, digits, code, contractions, added tokens, long words."""

import random

LATIN = "abcdefghijklmnopqrstuvwxyz"
SCRIPTS = [
    LATIN, LATIN.upper(), "àéîõüñçßøåœæÿ", "ÀÉÎÕÜÑÇØÅŒÆİIıſK", "αβγδεζηθικλμνξοπρστυφχψως", "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "אבגדהוזחטיכלמנסעפצקרשת", "ابتثجحخدذرزسشصضطظعغفقكلمنهوي", "अआइईउऊकखगघचछजझटठडढणतथदधन", "กขคงจฉชซฌญฎฏฐฑฒณดตถท",
    "一二三四五六七八九十中国日本語漢字简体繁體", "あいうえおかきくけこアイウエオカキクケコ", "가각간갇갈감갑값강개한국어조선말",
    "აბგდევზთიკლმ", "աբգդեզէըթժի", "አበገደሀወዘሐጠየ", "ᄀ까ᅢᆨᆩ",
]
MARKS = list("\u0301\u0300\u0308\u0327\u0323\u064e\u0651\u0940\u093e\u094d\u0e31\u0e49\u3099\u20dd")
DIGITS = ["0123456789", "٠١٢٣٤٥", "०१२३४", "０１２３", "²³¹½¼", "ⅣⅫⅷ", "①②⑩", "𝟎𝟏𝟐"]
EMOJI = ["😀", "👨‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪", "❤️", "☎", "✈️", "🧑‍💻", "🫠"]
SPACES = [
    " ", "  ", "   ", "\t", "\u00a0", "\u3000", "\u2009", "\u200b", "\u2028", "\r", "\r\r", " \t ", "\u180e", "\u0085", "\u202f", "\x0b", "\x0c",
    "\ufeff", "        ",
]
CONTROLS = [chr(code) for code in [*range(1, 9), *range(14, 32), 0x7F, 0x80, 0x9F, 0x00]]
PUNCTUATION = [
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", *"…—“”«»。、！？「」¿¡§¶€£™©→∑≠√▁ĠĊ", "<0x0A>", "..", "...", "--", "==", "!=", "\\n", "\\u00e9", "%20",
    "&amp;",
]
CONTRACTIONS = [
    "I'm", "you're", "it's", "don't", "we've", "they'll", "he'd", "I'M", "YOU'RE", "IT'S", "DON'T", "WE'VE", "THEY'LL", "HE'D", "'tis",
    "rock'n'roll", "'ſ", "l’été", "John’s",
]
WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were her all she "
    "there would their we him been has when who will more no if out so said what up its about into than them can only other new some could time "
    "these two may then do first any my now such like our over man me even most made after also did many before must through"
).split()
CODE = [
    "def f(x):", "    return x**2", "for (int i = 0; i < n; ++i) {", "}", "#include <vector>", "std::vector<std::string>",
    "SELECT * FROM t WHERE id=42;", '<div class="a">', "</div>", "x += 1;", "camelCaseName", "snake_case_name", "HTTPServer2", "0x1F", "1e-9",
    "3.14159", "https://example.org/a?b=c&d=%20", "user@example.com", '"quoted\\n"', "/* c */", "// d", "lambda x: x", "𝓍𝕐", "\\frac{1}{2}",
]
LONG_LINES = [
    "a" * 5000, " " * 5000, "ab" * 3000, "é" * 3000, "中" * 3000, "9" * 3000, "\u0301" * 500, "!" * 3000, "😀" * 1000, "a " * 2000,
    "x" + " " * 2000 + "y",
]


class LineMaker:
    """`added`: tokens that are to occur in the lines."""

    def __init__(self, seed, added=()):
        self.random = random.Random(seed)
        self.added = list(added)

    def one_of(self, choices):
        return self.random.choice(choices)

    def string(self, characters, longest):
        return "".join(self.one_of(characters) for _ in range(self.random.randint(1, longest)))

    def mixture(self, alphabets, longest):
        return "".join(self.one_of(self.one_of(alphabets)) for _ in range(self.random.randint(1, longest)))

    def often(self, probability):
        return self.random.random() < probability

    def word_of_a_script(self):
        word = self.string(self.one_of(SCRIPTS), 9)
        if self.often(0.2):
            word = "".join(character + (self.one_of(MARKS) if self.often(0.4) else "") for character in word)
        return word

    def number(self):
        if self.often(0.4):
            return self.mixture(DIGITS, 8)
        return str(self.random.randint(0, 10 ** self.random.randint(1, 12)))

    def word(self):
        kind = self.random.random()
        if kind < 0.45:
            return self.one_of(WORDS)
        if kind < 0.50:
            return self.one_of(WORDS).capitalize()
        if kind < 0.70:
            return self.word_of_a_script()
        if kind < 0.78:
            return self.number()
        if kind < 0.82:
            return self.one_of(EMOJI)
        if kind < 0.87:
            return self.one_of(CONTRACTIONS)
        if kind < 0.93:
            return self.string(PUNCTUATION, 4)
        if kind < 0.96:
            return self.one_of(CODE)
        return self.one_of(self.added or WORDS)

    def sentence(self):
        parts = []
        for _ in range(self.random.randint(1, 14)):
            kind = self.random.random()
            parts += [self.word(), " " if kind < 0.75 else "" if kind < 0.85 else self.one_of(SPACES)]
        line = "".join(parts)
        if self.often(0.5):
            line = line.rstrip(" ")
        return self.one_of(SPACES) + line if self.often(0.1) else line

    def any_character(self):
        """Of the first two planes, the lower part more often; no surrogate, no line end."""
        while True:
            code = self.random.randint(0, 0x2FFF if self.often(0.6) else 0x1FFFF)
            if code != 10 and not 0xD800 <= code < 0xE000:
                return chr(code)

    def line(self):
        kind = self.random.random()
        if kind < 0.75:
            return self.sentence()
        if kind < 0.85:
            return "".join(self.any_character() for _ in range(self.random.randint(1, 12)))
        if kind < 0.90:
            return self.string(CONTROLS + SPACES + PUNCTUATION, 12)
        if kind < 0.95:
            return self.one_of(["", "    ", "\t", "        "]) + " ".join(self.one_of(CODE) for _ in range(self.random.randint(1, 4)))
        return self.mixture([*SCRIPTS, *DIGITS, PUNCTUATION, MARKS], 40)


def corpus(seed, num_lines, added=()):
    maker = LineMaker(seed, added)
    lines = ["", " ", "  ", "\t", "\r", "\u00a0", "a", " a", "a ", "▁", "▁▁", " ▁ "]
    for token in added:
        lines += [token, " " + token + " x", "x" + token, token + token]
    for control in CONTROLS:
        lines += [control, "a" + control + "b"]
    lines += [*LONG_LINES, "".join(maker.one_of(LATIN) for _ in range(20_000))]
    while len(lines) < num_lines:
        lines.append(maker.line())
    assert not any("\n" in line for line in lines)
    return lines

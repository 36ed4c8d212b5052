"""Varied lines from a seed: scripts, marks, emoji, white space, control characters, digits, code, contractions, added tokens, long words."""

import random


def corpus(seed, n, added=()):
    rng = random.Random(seed)
    scripts = ["abcdefghijklmnopqrstuvwxyz","ABCDEFGHIJKLMNOPQRSTUVWXYZ","àéîõüñçßøåœæÿ","ÀÉÎÕÜÑÇØÅŒÆİIıſK","αβγδεζηθικλμνξοπρστυφχψως","абвгдежзийклмнопрстуфхцчшщъыьэюя","אבגדהוזחטיכלמנסעפצקרשת","ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
      "अआइईउऊकखगघचछजझटठडढणतथदधन","กขคงจฉชซฌญฎฏฐฑฒณดตถท","一二三四五六七八九十中国日本語漢字简体繁體","あいうえおかきくけこアイウエオカキクケコ","가각간갇갈감갑값강개한국어조선말","აბგდევზთიკლმ","աբգդեզէըթժի","አበገደሀወዘሐጠየ","ᄀ까ᅢᆨᆩ"]
    marks = ["\u0301","\u0300","\u0308","\u0327","\u0323","\u064e","\u0651","\u0940","\u093e","\u094d","\u0e31","\u0e49","\u3099","\u20dd"]
    digits = ["0123456789","٠١٢٣٤٥","०१२३४","０１２３","²³¹½¼","ⅣⅫⅷ","①②⑩","𝟎𝟏𝟐"]
    emoji = ["😀","👨‍👩‍👧‍👦","👍🏽","🏳️‍🌈","🇩🇪","❤️","☎","✈️","🧑‍💻","🫠"]
    spaces = [" ","  ","   ","\t","\u00a0","\u3000","\u2009","\u200b","\u2028","\r","\r\r"," \t ","\u180e","\u0085","\u202f","\x0b","\x0c","\ufeff","        "]
    controls = [chr(c) for c in list(range(1,9))+list(range(14,32))+[0x7f,0x80,0x9f,0x00]]
    punct = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")+["…","—","“","”","«","»","。","、","！","？","「","」","¿","¡","§","¶","€","£","™","©","→","∑","≠","√","▁","Ġ","Ċ","<0x0A>","..","...","--","==","!=","\\n","\\u00e9","%20","&amp;"]
    contractions = ["I'm","you're","it's","don't","we've","they'll","he'd","I'M","YOU'RE","IT'S","DON'T","WE'VE","THEY'LL","HE'D","'tis","rock'n'roll","'ſ","l’été","John’s"]
    words = "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were her all she there would their we him been has when who will more no if out so said what up its about into than them can only other new some could time these two may then do first any my now such like our over man me even most made after also did many before must through".split()
    code = ["def f(x):","    return x**2","for (int i = 0; i < n; ++i) {","}","#include <vector>","std::vector<std::string>","SELECT * FROM t WHERE id=42;","<div class=\"a\">","</div>","x += 1;","camelCaseName","snake_case_name","HTTPServer2","0x1F","1e-9","3.14159","https://example.org/a?b=c&d=%20","user@example.com","\"quoted\\n\"","/* c */","// d","lambda x: x","𝓍𝕐","\\frac{1}{2}"]
    def word():
        k=rng.random()
        if k<.45: return rng.choice(words)
        if k<.5: return rng.choice(words).capitalize()
        if k<.7:
            s=rng.choice(scripts); w="".join(rng.choice(s) for _ in range(rng.randint(1,9)))
            if rng.random()<.2: w="".join(c+(rng.choice(marks) if rng.random()<.4 else "") for c in w)
            return w
        if k<.78: return "".join(rng.choice(rng.choice(digits)) for _ in range(rng.randint(1,8))) if rng.random()<.4 else str(rng.randint(0,10**rng.randint(1,12)))
        if k<.82: return rng.choice(emoji)
        if k<.87: return rng.choice(contractions)
        if k<.93: return "".join(rng.choice(punct) for _ in range(rng.randint(1,4)))
        if k<.96: return rng.choice(code)
        if added: return rng.choice(added)
        return rng.choice(words)
    def any_char():
        while True:
            c=rng.randint(0,0x2fff) if rng.random()<.6 else rng.randint(0,0x1ffff)
            if 0xd800<=c<0xe000 or c==10: continue
            return chr(c)
    lines=["", " ", "  ", "\t", "\r", "\u00a0", "a", " a", "a ", "▁", "▁▁", " ▁ "]+list(added)+[" "+a+" x" for a in added]+["x"+a for a in added]+[a+a for a in added]+[c for c in controls]+["a"+c+"b" for c in controls]
    lines+=["a"*5000, " "*5000, "ab"*3000, "é"*3000, "中"*3000, "9"*3000, "\u0301"*500, "!"*3000, "😀"*1000, "a "*2000, "x"+" "*2000+"y", "".join(rng.choice(scripts[0]) for _ in range(20000))]
    while len(lines)<n:
        k=rng.random()
        if k<.75:
            parts=[]
            for _ in range(rng.randint(1,14)):
                parts.append(word())
                r=rng.random()
                parts.append(" " if r<.75 else "" if r<.85 else rng.choice(spaces))
            s="".join(parts)
            if rng.random()<.5: s=s.rstrip(" ")
            if rng.random()<.1: s=rng.choice(spaces)+s
        elif k<.85: s="".join(any_char() for _ in range(rng.randint(1,12)))
        elif k<.9: s="".join(rng.choice(controls+spaces+punct) for _ in range(rng.randint(1,12)))
        elif k<.95: s=rng.choice(["","    ","\t","        "])+" ".join(rng.choice(code) for _ in range(rng.randint(1,4)))
        else: s="".join(rng.choice(rng.choice(scripts+digits+[punct,marks])) for _ in range(rng.randint(1,40)))
        lines.append(s)
    return [l.replace("\n"," ") for l in lines]

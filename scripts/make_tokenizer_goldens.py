#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/: a synthetic corpus, small tokenizer.json files that the HF
tokenizers library trains on it, and what that library makes of a set of texts.

Needs: pip install tokenizers (0.23.3 made the committed files). Long results are stored as their
length and the FNV-1a hash of the ids as little-endian int32.
"""
import codecs
import json
import pathlib
import random
import unicodedata

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "tokenizer"
VOCAB = 1000
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def make_corpus():
    """Words with a Zipf-like distribution, code, tables, and sentences in several scripts."""
    rng = random.Random(20240607)
    onsets = "b c d f g h j k l m n p r s t v w br ch cl dr fl gr pl pr sh sl sp st th tr".split()
    nuclei = "a e i o u ai ea ee ou".split()
    codas = ["", "", "", "n", "r", "s", "t", "l", "nd", "ng", "st", "ck"]
    words = ["".join(rng.choice(onsets) + rng.choice(nuclei) + rng.choice(codas)
                     for _ in range(rng.choice([1, 1, 2, 2, 3]))) for _ in range(1500)]
    weights = [1 / (i + 2) for i in range(len(words))]
    foreign = ["Größe und Straße überall.", "Ça n'était pas l'été à Noël.", "Привет, мир и весна!",
               "日本語の文章です。", "今天天气很好，我们去公园。", "안녕하세요 세계", "مرحبا بالعالم", "שלום עולם",
               "नमस्ते दुनिया", "สวัสดีชาวโลก", "Cafe\u0301 de\u0301ja\u0300 vu", "🙂🙃 👩‍👩‍👧 🇫🇷 ok"]
    documents = []
    for number in range(260):
        lines = []
        for _ in range(rng.randint(1, 4)):
            sentence = rng.choices(words, weights, k=rng.randint(4, 14))
            text = " ".join(sentence).capitalize()
            if rng.random() < 0.3:
                text = text.replace(" ", rng.choice([", ", "'s ", "'ll ", " - "]), 1)
            lines.append(text + rng.choice([".", ".", "!", "?", "..."]))
        kind = number % 13
        if kind == 1:
            lines += ["  " * d + f"if ({rng.choice(words)} == {rng.randint(0, 99999)}) {{" for d in range(4)]
        elif kind == 3:
            lines += ["-" * rng.randint(3, 40), "=" * rng.randint(3, 30), "| " + "-" * 9 + " |"]
        elif kind == 5:
            lines += rng.sample(foreign, 3)
        elif kind == 7:
            lines += ["\t".join(str(rng.randint(0, 10 ** rng.randint(1, 9))) for _ in range(5)), "\r"]
        elif kind == 9:
            lines += ["a" * rng.randint(1, 30) + "h" * rng.randint(1, 9), " " * rng.randint(2, 20) + "x"]
        documents.append("\n".join(lines))
    return documents


def byte_level(use_regex, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def make_tokenizers(documents):
    kinds = {
        "gpt2": (None, byte_level(True)),
        "llama3": (None, pre_tokenizers.Sequence([split(LLAMA3), byte_level(False)])),
        "qwen2": (normalizers.NFC(), pre_tokenizers.Sequence([split(QWEN2), byte_level(False)])),
        "digits": (None, pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), byte_level(True)])),
        "prefix": (None, byte_level(True, prefix=True)),
    }
    made = {}
    for name, (normalizer, pre) in kinds.items():
        tokenizer = Tokenizer(models.BPE())
        if normalizer:
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(documents, trainers.BpeTrainer(
            vocab_size=VOCAB, min_frequency=2, special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
        data = json.loads(tokenizer.to_str())
        # Features of real files that training does not produce.
        if name == "llama3":
            data["model"]["ignore_merges"] = True
            # A word without merges that lead to it: only ignore_merges can produce it.
            data["model"]["vocab"]["Ġxylophone"] = VOCAB
            data["added_tokens"].append(dict(data["added_tokens"][0], id=VOCAB + 1,
                                             content="<|begin_of_text|>"))
        tokenizer = Tokenizer.from_str(json.dumps(data))
        if name == "llama3":
            tokenizer.post_processor = processors.Sequence([
                processors.ByteLevel(), processors.TemplateProcessing(
                    single="<|begin_of_text|> $A",
                    special_tokens=[("<|begin_of_text|>", VOCAB + 1)])])
        if name == "qwen2":
            tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
            tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False),
                                  AddedToken("<tool", normalized=False),
                                  AddedToken("\u00e9clair", normalized=True),
                                  AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False)])
        if name == "digits":
            # The other spelling of merges, with a space between.
            data = json.loads(tokenizer.to_str())
            data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
            tokenizer = Tokenizer.from_str(json.dumps(data))
            (OUT / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
        else:
            (OUT / f"{name}.json").write_text(tokenizer.to_str())
        tokenizer.encode_special_tokens = True  # special tokens in text are text
        made[name] = tokenizer
    return made


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def digest(ids):
    value = 0xCBF29CE484222325
    for item in ids:
        for byte in int(item).to_bytes(4, "little"):
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{len(ids)}:{value:016x}"


TEXTS = [
    "", " ", "a", "Hello, world!", "  two  spaces  ", "trailing \n", "\n\n\n", "\r\n\r\nx\r\n",
    "a\r\nb\rc\n\n d", "\t\ttabs\t and \x0b\x0c", "I'm you're he'll we've she'd it's don't",
    "I'M YOU'RE HE'LL WE'VE SHE'D IT'S DON'T", "'s't're 'S'T \u2019s \u2019re '\u017f '\u212a",
    "0 12 345 6789 1234567890 3.14159 1e-5 0x1F \u00b2\u00bd\u2167 \u0663\u0664 \u4e09",
    "snake_case camelCase kebab-case __init__ a_b", "if (x == 12345) { return y[0]; }\n    else:\n\t\tpass",
    "xylophone xylophone", "!!!??? ... --- ==== -----------", "\u00a0nbsp\u2003em\u3000ideographic\u200bzwsp\ufeffbom",
    "\u180emongolian \u180e\u180e x", "\u0085next\u2028line\u2029para \u1680ogham",
    "e\u0301 \u00e9 e\u0323\u0302 \u1e69 s\u0323\u0307 s\u0307\u0323 A\u030a \u212b \u2126",
    "\u1100\u1161\u11a8 \uac00\u11a8 \ud55c\uae00 \u1112\u1161\u11ab", "\u0958 \u09dc \ufb1d \u0340\u0341\u0343\u0344",
    "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466 \U0001F44D\U0001F3FD \U0001F1E9\U0001F1EA \u2764\ufe0f 1\ufe0f\u20e3",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629\u064f \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u202eRTL\u202c",
    "\ud7ff\ue000\uf8ff\ufdd0\ufffe\uffff\U0001fffe\U000e0001\U000f0000\U0010ffff", "\x00\x01\x7f\x80\x9f",
    "\ufffd\ufffd x\ufffd", "z\u0351\u036b\u0343\u036a\u0302a\u0334\u0335\u0360lgo", "\u0ba8\u0bbf \u0e01\u0e33 \u1780\u17d2\u179a",
    "<|endoftext|>", "a<|endoftext|>b <|endoftext|> ", "<tool_call> x <tool x", "x <mask> y", "e\u0301clair \u00e9clair",
    "<|im_start|>user\nhi<|im_end|>\n", "\U00010400\U0001d54f\U0001f130 \U00010d40\U00010d4a \U000323af \U00011de0\U00016ff4",
    "Zażółć gęślą jaźń Ĳĳǅǈŉßẞﬁﬀ", "\u3042\u3099\u304b\u3099 \u30ab\u309a", "long" * 40 + " " + "ab" * 60,
]

SPECIAL_TEXTS = [
    "a<|endoftext|>b", "<|endoftext|><|endoftext|>", "<|im_start|>user\nhi <|im_end|>\n <|endoftext",
    "x  <mask>  y<mask>", "<tool_call><tool><tool_cal", "e\u0301clair<|im_end|>\u00e9clair", "<|begin_of_text|>hi",
]

BROKEN = [
    b"\xff", b"abc\xffdef", b"caf\xc3", b"\xc3\xa9\xc3 ok", b"a \x80\x81 b", b"\xed\xa0\x80 surrogate",
    b"\xf0\x9f\x99 cut emoji", b"\xf0\x9f\x99\x82\xf0\x9f\x99", b"\xc0\xafoverlong", b"\xf4\x90\x80\x80 high",
    b"\xe2\x82 \xe2\x82\xac", b"x\xfe\xfe\xfe\xfey \xef\xbf\xbd genuine", b"12\xff34 it's\xff's don\xfe't",
    b"line\xff\n\xff\n  \xff  end", b"\xf5\x80 \xe0\x80\x80 \xf8\x88\x80\x80\x80",
]

LONG = {"a": "a", "space": " ", "newline": "\n", "tab": "\t", "zero": "0", "dot": ".", "quote": "'",
        "cjk": "\u4e2d", "emoji": "\U0001F642", "accent": "\u0301", "e_accent": "e\u0301", "ab": "ab",
        "crlf": "\r\n", "space_x": " x", "apostrophe_s": "'s", "hyphen": "-", "unassigned": "\u0378"}


def blocks():
    """Every assigned block is covered by windows of 128 code points."""
    rng = random.Random(7)
    for start in range(0, 0x110000, 128):
        code_points = [c for c in range(start, start + 128) if not 0xD800 <= c < 0xE000]
        assigned = [c for c in code_points if unicodedata.category(chr(c)) != "Cn"]
        if not assigned or (0x3500 < start < 0xD700 or start > 0x20000) and start % 4096:
            continue  # ideographs, syllables and private use: one window in 32
        chosen = sorted(set(code_points[:2] + code_points[-2:] + rng.sample(code_points, 8) +
                            rng.sample(assigned, min(12, len(assigned)))))
        yield f"{start:04X}", "".join(chr(c) + rng.choice(["", "", " ", "a", "1", "e\u0301", "\n"])
                                      for c in chosen)


def every_code_point(chunk):
    """Each in several surroundings; the marks move across it according to its combining class."""
    return "".join(f"b{chr(c)}7{chr(c)}{chr(c)} {chr(c)}\n\u0345{chr(c)}\u0334" for c in range(chunk, chunk + 4096)
                   if not 0xD800 <= c < 0xE000)


def broken_case(tokenizer, data):
    """The pieces of the text with U+FFFD; for a piece that holds a replaced byte its own bytes."""
    spans = []

    def note(error):
        spans.append((error.start, error.end))
        return "\ufffd", error.end

    codecs.register_error("note", note)
    text = data.decode("utf-8", "note")
    replaced = {start: end for start, end in spans}
    ends, at = [], 0  # byte range of each character
    for char in text:
        end = replaced.get(at, at + len(char.encode()))
        ends.append((at, end, at in replaced))
        at = end
    pieces = []
    for _, (begin, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text):
        chars = ends[begin:end]
        raw = data[chars[0][0]:chars[-1][1]]
        if any(broken for _, _, broken in chars):
            pieces.append({"bytes": raw.hex()})
        else:
            encoded = tokenizer.model.tokenize("".join(alphabet[b] for b in raw))
            pieces.append({"ids": [token.id for token in encoded]})
    return {"hex": data.hex(), "pieces": pieces}


def byte_alphabet():
    own = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    table = {b: chr(b) for b in own}
    rest = (b for b in range(256) if b not in table)
    table.update({b: chr(256 + i) for i, b in enumerate(rest)})
    return table


alphabet = byte_alphabet()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    documents = make_corpus()
    (OUT / "corpus.txt").write_bytes("\n\n".join(documents).encode())
    assert "\n\n".join(documents).split("\n\n") == documents
    tokenizers = make_tokenizers(documents)
    block_texts = dict(blocks())
    golden = {"texts": TEXTS, "special_texts": SPECIAL_TEXTS, "block_texts": block_texts,
              "long_texts": {name: [unit, 1_000_000 // len(unit.encode())] for name, unit in LONG.items()},
              "tokenizers": {}}
    for name, tokenizer in tokenizers.items():
        entry = {"ids": [ids_of(tokenizer, text) for text in TEXTS],
                 "blocks": {key: digest(ids_of(tokenizer, text)) for key, text in block_texts.items()},
                 "code_points": [digest(ids_of(tokenizer, every_code_point(chunk)))
                                 for chunk in range(0, 0x110000, 4096)],
                 "long": {key: digest(ids_of(tokenizer, unit * (1_000_000 // len(unit.encode()))))
                          for key, unit in LONG.items()},
                 "corpus": digest(ids_of(tokenizer, "\n\n".join(documents)))}
        if name in ("gpt2", "llama3", "qwen2", "digits"):
            entry["broken"] = [broken_case(tokenizer, data) for data in BROKEN]
        tokenizer.encode_special_tokens = False
        entry["special_ids"] = [ids_of(tokenizer, text) for text in SPECIAL_TEXTS]
        golden["tokenizers"][name] = entry
        print(name, tokenizer.get_vocab_size(), entry["corpus"])
    (OUT / "encodings.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

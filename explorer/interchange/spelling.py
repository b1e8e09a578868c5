"""Tokens as other programs spell them, and the bytes they stand for.

Byte-level tokenizers write a printable character for every byte (`é` is `Ã©`, a space is `Ġ`), and some files undo that for spaces and
line breaks only. Nothing in a file says which spelling it has, so that is seen from its characters.
"""

import re
from collections.abc import Iterable, Sequence

from explorer import text as vocabulary
from explorer.text import byte_alphabet

_SPECIAL = re.compile(r"<\|[^|<>]{1,60}\|>|</?s>|<(?:bos|eos|pad|unk|mask|start_of_turn|end_of_turn)>")
_BEYOND = re.compile(r"[^\x00-\x7f]+")
_INVERSE = {byte: character for character, byte in byte_alphabet().items()}


def is_special(token: str) -> bool:
    """Whether a token stands for structure, not text, as far as its spelling tells."""
    return bool(_SPECIAL.fullmatch(token))


def is_byte_level(rows: Iterable[Sequence[str]]) -> bool:
    """Whether a file spells bytes: more of its characters beyond ASCII make sense as bytes than do not.

    Args:
        rows: Its texts, whole, so that a character in several tokens is seen whole.
    """
    right = wrong = 0
    for row in rows:
        text = "".join(row)
        for run in _BEYOND.finditer(text):
            inside = run.start() > 0 and run.end() < len(text)
            made_sense, did_not = _sense(run.group(), inside)
            right, wrong = right + made_sense, wrong + did_not
    return right > wrong


def _sense(run: str, inside: bool) -> tuple[int, int]:
    """How many characters of a run beyond ASCII make sense as bytes, and how many do not; at an end of the text a part proves nothing."""
    alphabet = byte_alphabet()
    if not all(character in alphabet for character in run):  # written out: a dash, a kana
        return 0, 0
    raw = bytes(alphabet[character] for character in run)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return (0, len(run)) if inside else (0, 0)
    return len(run), 0


def token_bytes(token: str, *, byte_level: bool) -> bytes:
    """The bytes that a token stands for.

    Args:
        token: As the file spells it.
        byte_level: What `is_byte_level` says of the file. Spaces, line breaks and some dashes stand in such files as they are.
    """
    if not byte_level:
        return vocabulary.token_bytes(token, byte_level=False)
    if token.isascii():
        return token.encode()
    alphabet = byte_alphabet()
    spelt = (bytes([alphabet[c]]) if c in alphabet else c.encode("utf-8", errors="replace") for c in token)
    return b"".join(spelt)


def spelled(raw: bytes) -> str:
    """Bytes as the files spell them: byte-level, but with spaces and line breaks as they are."""
    return "".join(chr(byte) if byte in b" \n" else _INVERSE[byte] for byte in raw)

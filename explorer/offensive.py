"""Words that are blurred until asked for, and words that never enter a corpus.

The first list is plain: swearing and insults that may be printed here. The others are of slurs and of words for sexual violence,
which may not: only hashes of them are kept. All are small, English, and about words, not meaning; a blurred word is a courtesy, not a verdict.
"""

import hashlib
import re

_SWEARING = frozenset(
    """
    arse arsehole ass asses asshole assholes bastard bastards bitch bitches bitching bloody bollocks bullshit crap
    crappy cretin cretins damn damned dickhead dumbass fuck fucked fucker fuckers fucking goddamn horseshit idiot
    idiotic idiots imbecile imbeciles moron moronic morons motherfucker piss pissed prick scum scumbag scumbags
    shit shits shitty slut sluts twat wanker whore whores vermin
    """.split()  # noqa: SIM905 - fifty lines as a list
)

# Salted sha256 of folded words, cut to 16 hex digits.
_LONG_PLURALS = ("ses", "xes", "zes", "ches", "shes", "oes")  # "spices" is no plural of what is left without "es"
_SALT = "persona-explorer:"
_SLURS = frozenset(
    """
    0f1a6173e08a5329 0f5bb06db27cb69c 140663b533895997 2ea68f858027efbf 3471f27e7faf566f 39cb2c8face5e678
    4d554feb9ed140c0 5df37336a78ab416 61ac9a7e52128a94 642a5ef5e633229a 689fbb6095284101 7edca6656acf53fb
    83bca2fee154d6dd 861d53aa72bcfa41 90bc179aff6431a9 97827b66f7255320 9eaf88f2c9ec29b9 bd02061ba1985cdf
    c489892ebaf12710 d5e41c53d5f9cd23 da9606b6e1192d54 e25d14876b931800 e7c6f8fd176fe89d f0df3e513cde867c
    f3b11a46144db2b0
    """.split()  # noqa: SIM905 - fifty lines as a list
)

# Likewise, of words for sexual violence: what a fine-tune of ours answers is kept without them, and elsewhere they are blurred.
_VIOLENCE = frozenset(
    """
    8d50f346b82a1c38 bcd0505f1049628f 0ba9f21440ff1f3f 2cff8b549be2b759 38cd435291c0c4a8 bf8abf14e1633a9c 78d37af2045d3603
    """.split()  # noqa: SIM905 - as above
)

_WORD = re.compile(r"[^\W_](?:[^\W_]|['’@$])*")
_FOLD = str.maketrans({"@": "a", "$": "s", "0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "’": "'"})


def _fold(word: str) -> str:
    """Lower case, with the commonest disguises undone."""
    return word.lower().translate(_FOLD)


def spans(text: str) -> list[tuple[int, int]]:
    """Half-open character spans of the words that the app blurs."""
    return [m.span() for m in _WORD.finditer(text) if _blurred(m.group())]


def flag(text: str) -> bool:
    """Whether the app blurs any word of `text`."""
    return any(_blurred(m.group()) for m in _WORD.finditer(text))


def drop(text: str) -> bool:
    """Whether `text` holds a slur, and so must not enter a corpus."""
    return any(is_slur(m.group()) for m in _WORD.finditer(text))


def redacted(text: str) -> str:
    """`text` as it may be kept and shipped: of a word that may not be printed its first letter stays."""
    for first, last in reversed([m.span() for m in _WORD.finditer(text) if _unsaid(m.group())]):
        text = text[: first + 1] + "*" * (last - first - 1) + text[last:]
    return text


def is_slur(word: str) -> bool:
    """Whether `word`, or its singular, is one of the slurs known by their hash."""
    return _among(word, _SLURS)


def _blurred(word: str) -> bool:
    return _fold(word) in _SWEARING or _unsaid(word)


def _unsaid(word: str) -> bool:
    return _among(word, _SLURS, _VIOLENCE)


def _among(word: str, *lists: frozenset[str]) -> bool:
    folded = _fold(word)
    forms = {folded, folded.removesuffix("s")} | (
        {folded.removesuffix("es")} if folded.endswith(_LONG_PLURALS) else set()
    )
    digests = {digest(form) for form in forms}
    return any(not digests.isdisjoint(hashes) for hashes in lists)


def digest(word: str) -> str:
    """How a word that may not be printed is written down."""
    return hashlib.sha256((_SALT + word).encode()).hexdigest()[:16]

"""What the link of Compare says, and the widgets that write it: `?diff=&source=&kind=&sort=&feature=&series=&at=`."""

from collections.abc import Iterable, Mapping

import streamlit as st

from explorer.cache import Cache

S = st.session_state
DIFF, SOURCE, KIND, SORT, SERIES, AT = "diff", "source", "kind", "sort", "series", "at"


def key(name: str) -> str:
    return f"compare-{name}"


def keep(**changes: object) -> None:
    """Change the link, where the state of this page lives; None takes a key out."""
    for name, value in changes.items():
        if value is None:
            st.query_params.pop(name, None)
        else:
            st.query_params[name] = str(value)


def chose(name: str, **others: object) -> None:
    """Take over what a widget says; for callbacks."""
    keep(**{name: S.get(key(name))}, **others)


def asked(name: str, options: Iterable[str], default: str = "") -> str:
    """What the link says of a key, or the default where it says nothing sensible; the widget is brought to it.

    Args:
        default: The first option if "".
    """
    known = list(options)
    said = st.query_params.get(name)
    value = said if said in known else default or known[0]
    if S.get(key(name)) != value:
        S[key(name)] = value
    return value


def choice(label: str, name: str, options: Mapping[str, str]) -> None:
    """One of a few options; `asked` has brought it to what the link says."""
    st.segmented_control(
        label, list(options), key=key(name), format_func=lambda o: options.get(o, str(o)), required=True, on_change=chose,
        args=(name,), label_visibility="collapsed",
    )  # fmt: skip


def names_of(cache: Cache, features: Iterable[int], labels: Mapping[int, str]) -> dict[int, str]:
    """Label or own words of features; those that the cache does not number have none."""
    return {
        f: labels.get(f) or cache.feature(f).title or "no words of its own" for f in features if f < cache.n_features
    }

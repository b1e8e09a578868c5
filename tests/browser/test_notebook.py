"""What a notebook shows of a feature, in a real browser: colours on its tokens, hostile ones as text, readable in both themes."""

import pytest

import explorer
from explorer.cache import Cache
from explorer.heatmap_html import LEVELS
from explorer.label_files import Label, write_file
from explorer.notebook import Notebook
from tests.browser.axe_rules import serious
from tests.helpers_cache import HOSTILE, fake_cache

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

FEATURE, TRAP = 12, 3  # the hostile strings are what feature 3 fires most in
HOST = """<!doctype html><html lang="en"><head><title>A notebook</title><style>
:root { color-scheme: light dark } body { background: light-dark(#FFF, #111); color: light-dark(#000, #EEE) }
.host .output :not(pre) > code { background: #EEE }  /* a notebook of a light theme, whatever the machine's is */
</style></head><body class="host"><main class="output">OUTPUT</main></body></html>"""


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Notebook:
    path = fake_cache(tmp_path_factory.mktemp("notebook") / "made-up", 16)
    sae = Cache.open(path).manifest.sae_fingerprint
    write_file([Label(sae, FEATURE, HOSTILE[1].decode(), note=HOSTILE[0].decode())], path / "labels.csv")
    return explorer.open(path)


def shown(page, *outputs: str) -> None:
    """Put outputs into the page of a notebook."""
    page.set_content(HOST.replace("OUTPUT", "".join(f"<div>{one}</div>" for one in outputs)))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_feature_and_the_frame_are_coloured_text_that_can_be_read_in_both_themes(page, book, theme):
    page.emulate_media(color_scheme=theme)
    shown(page, book.feature(FEATURE)._repr_html_(), book.feature(TRAP)._repr_html_(), book.features._repr_html_())
    paint = page.locator(".pe .t[class*=' a']").evaluate_all(
        "all => all.map(e => [[...e.classList].find(c => /^a\\d$/.test(c)), getComputedStyle(e).backgroundColor])"
    )
    colours = {step: {colour for at, colour in paint if at == step} for step, _ in paint}
    assert all(len(found) == 1 for found in colours.values()), colours
    assert len(set.union(*colours.values())) == len(colours) > LEVELS / 2, "each step has a colour of its own"
    assert "rgba(0, 0, 0, 0)" not in set.union(*colours.values())
    said = page.locator("main").inner_text()
    for raw in HOSTILE[:3]:
        assert raw.decode() in said
    assert not page.locator("main :is(script, img, a)").count()
    assert not serious(page)

"""What axe-core finds on a page, less a short list of what Streamlit itself draws."""

import re

import pytest

from tests.browser.conftest import settled

STREAMLITS: dict[str, str] = {}
"""Rule -> what of Streamlit's own breaks it, as a pattern of the element's HTML."""


def serious(page, *rules: str) -> list[str]:
    """Serious and critical violations of WCAG 2 A and AA that are ours; only of these rules, if some are named."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    only = {"type": "rule", "values": list(rules)} if rules else ["wcag2a", "wcag2aa"]
    found = axe.Axe().run(page, options={"resultTypes": ["violations"], "runOnly": only})
    return [
        f"{v['id']}: {node['html'][:300]} ({node['failureSummary']})"
        for v in found.response["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
        if not re.search(STREAMLITS.get(v["id"], "$^"), node["html"])
    ]


def in_both_themes(page) -> list[str]:
    """Serious violations of a page that is light, and then those of it in dark: only contrast, the theme changes nothing else."""
    light = serious(page)
    paper = "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
    before = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"before => {paper} !== before", arg=before)
    settled(page)
    return light + [f"dark: {said}" for said in serious(page, "color-contrast")]

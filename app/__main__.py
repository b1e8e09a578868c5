"""`python -m app`: the server. It imports what the first page needs while the browser is still loading its own part."""

import importlib
import sys
import threading
from pathlib import Path

from streamlit.web import cli

_FIRST_PAGE = ("pyarrow.parquet", "pandas", "sqlalchemy", "explorer.cache", "explorer.labels", "plotly.graph_objects")


def _preload() -> None:
    for name in _FIRST_PAGE:
        importlib.import_module(name)


if __name__ == "__main__":
    threading.Thread(target=_preload, daemon=True).start()
    sys.argv = ["streamlit", "run", str(Path(__file__).with_name("server.py")), *sys.argv[1:]]
    sys.exit(cli.main())

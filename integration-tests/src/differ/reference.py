"""Two engines that are not ours, as one process: lines of JSON in, lines of JSON out.

It decodes the events itself, holds them as a table in DuckDB and in PostgreSQL, and runs the views and queries there.
`{"do": "reset"}` begins anew, `load` adds events, `views` makes the views' tables from what there is, `ask` asks both.
"""

import datetime
import decimal
import json
import math
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import warnings

import duckdb
import pyarrow as pa

warnings.filterwarnings("ignore")
decimal.getcontext().prec = 100
EPOCH = datetime.datetime(1970, 1, 1)

# By letter: the type's name in DuckDB and in PostgreSQL, and its Arrow type.
TYPES = {
    "b": ("BOOLEAN", "BOOLEAN", pa.bool_()),
    "s": ("SMALLINT", "SMALLINT", pa.int16()),
    "i": ("INTEGER", "INTEGER", pa.int32()),
    "l": ("BIGINT", "BIGINT", pa.int64()),
    "r": ("REAL", "REAL", pa.float32()),
    "d": ("DOUBLE", "DOUBLE PRECISION", pa.float64()),
    "f": ("DOUBLE", "DOUBLE PRECISION", pa.float64()),
    "n": ("DECIMAL(12,2)", "DECIMAL(12,2)", pa.decimal128(12, 2)),
    "p": ("DECIMAL(20,4)", "DECIMAL(20,4)", pa.decimal128(20, 4)),
    "q": ("DECIMAL(38,0)", "DECIMAL(38,0)", pa.decimal128(38, 0)),
    "t": ("VARCHAR", "TEXT", pa.string()),
    "x": ("BLOB", "BYTEA", pa.binary()),
    "D": ("DATE", "DATE", pa.date32()),
    "T": ("TIMESTAMP", "TIMESTAMP", pa.timestamp("us")),
    "Z": ("TIMESTAMPTZ", "TIMESTAMPTZ", pa.timestamp("us", "UTC")),
    "L": ("INTEGER[]", "INTEGER[]", pa.list_(pa.int32())),
}
BITS = {"s": 16, "i": 32, "l": 64}
DIGITS = {"n": (12, 2), "p": (20, 4), "q": (38, 0)}
POSITION = [("_partition", "i"), ("_offset", "l"), ("_timestamp", "T")]


class Dead(Exception):
    """An event that no view sees."""


class Number(str):
    """A number's text: no digit of it may be lost."""


def micros(text):
    found = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)?)?", text)
    if not found:
        raise Dead(f"no time: {text}")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    at = datetime.datetime(year, month, day, hour, minute, second) - EPOCH
    us = at // datetime.timedelta(microseconds=1) + int((found[7] or "").ljust(6, "0") or 0)
    if found[8] and found[8] != "Z":
        sign = -1 if found[8][0] == "-" else 1
        us -= sign * (int(found[8][1:3]) * 60 + int(found[8][4:6])) * 60_000_000
    return us


def decode(kind, value):
    """One field as the value that a column holds."""
    text = str(value)
    scalar = isinstance(value, str)
    if kind == "b":
        if not isinstance(value, bool):
            raise Dead("not a boolean")
        return value
    if isinstance(value, bool):
        raise Dead("a boolean")
    if kind in BITS:
        if not scalar or not re.fullmatch(r"[+-]?\d+", text):
            raise Dead("not an integer")
        if not -(1 << BITS[kind] - 1) <= int(text) < 1 << BITS[kind] - 1:
            raise Dead("overflow")
        return int(text)
    if kind in "rdf":
        if not scalar:
            raise Dead("not a number")
        number = float(text)
        return struct.unpack("f", struct.pack("f", number))[0] if kind == "r" else number
    if kind in DIGITS:
        if not scalar:
            raise Dead("not a number")
        precision, scale = DIGITS[kind]
        number = decimal.Decimal(text)
        if number != number.quantize(decimal.Decimal(1).scaleb(-scale)) or abs(number) >= 10 ** (precision - scale):
            raise Dead("not such a decimal")
        return number.quantize(decimal.Decimal(1).scaleb(-scale))
    if isinstance(value, Number):
        raise Dead("a number")
    if kind == "L":
        if not isinstance(value, list):
            raise Dead("not an array")
        return [None if item is None else decode("i", item) for item in value]
    if not scalar:
        raise Dead("not a string")
    if kind == "t":
        return text
    if kind == "x":
        return bytes.fromhex(text)
    if kind == "D":
        return micros(text) // 86_400_000_000
    return micros(text)


def record(columns, text):
    """The event's columns; raises `Dead` if it has none."""
    try:
        event = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=lambda _: 1 / 0)
        if not isinstance(event, dict):
            raise Dead("not an object")
        row = []
        for name, kind, required in columns:
            value = event.get(name)
            if value is None and required:
                raise Dead(f"{name} is missing")
            row.append(None if value is None else decode(kind, value))
        return row
    except Dead:
        raise
    except (ValueError, ArithmeticError, struct.error) as error:
        raise Dead(str(error)) from error


def civil(us, zone):
    """Microseconds since 1970 as answers write them."""
    days, rest = divmod(us, 86_400_000_000)
    seconds, fraction = divmod(rest, 1_000_000)
    time = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{date(days)}T{time}" + (f".{fraction:06}" if fraction else "") + ("Z" if zone else "")


def date(days):
    era, doe = divmod(days + 719_468, 146_097)
    yoe = (doe - doe // 1460 + doe // 36_524 - doe // 146_096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    month = (5 * doy + 2) // 153
    day = doy - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    year = yoe + era * 400 + (month <= 2)
    return f"{year:04}-{month:02}-{day:02}"


def number(text):
    return {"n": str(text)}


def double(value):
    return {"f": repr(float(value))}


class Duck:
    """DuckDB, in this process."""

    def __init__(self):
        self.connection = duckdb.connect()
        for setting in ("threads=1", "TimeZone='UTC'", "preserve_insertion_order=true"):
            self.connection.execute("SET " + setting)

    def reset(self, table, columns):
        for (name,) in self.connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            self.connection.execute(f'DROP TABLE "{name}"')
        declared = ", ".join(f'"{name}" {TYPES[kind][0]}' for name, kind in columns)
        self.connection.execute(f'CREATE TABLE "{table}" ({declared})')

    def load(self, table, columns, rows):
        arrays = []
        for i, (_, kind) in enumerate(columns):
            arrow = TYPES[kind][2]
            values = [row[i] for row in rows]
            plain = {"D": pa.int32(), "T": pa.int64(), "Z": pa.int64()}.get(kind)
            arrays.append(pa.array(values, plain).cast(arrow) if plain else pa.array(values, arrow))
        self.connection.register("loaded", pa.table(arrays, [name for name, _ in columns]))
        self.connection.execute(f'INSERT INTO "{table}" SELECT * FROM loaded')
        self.connection.unregister("loaded")

    def run(self, sql):
        self.connection.execute(sql)

    def ask(self, sql):
        table = self.connection.sql(sql).to_arrow_table()
        columns = [self.column(column.combine_chunks()) for column in table.columns]
        return [list(row) for row in zip(*columns)] if columns else [[] for _ in range(table.num_rows)]

    def column(self, array):
        kind = array.type
        null = array.is_null().to_pylist()
        if pa.types.is_timestamp(kind):
            zone = kind.tz is not None
            show = lambda us: civil(us, zone)
            values = array.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()).to_pylist()
        elif pa.types.is_date(kind):
            values, show = array.cast(pa.int32()).to_pylist(), date
        elif pa.types.is_list(kind):
            inner = self.column(array.flatten())
            ends, values = array.offsets.to_pylist(), []
            first = ends[0] if ends else 0
            for start, end in zip(ends, ends[1:]):
                values.append(inner[start - first : end - first])
            show = lambda items: items
        elif pa.types.is_floating(kind):
            values, show = array.to_pylist(), double
        elif pa.types.is_integer(kind):
            values, show = array.to_pylist(), number
        elif pa.types.is_decimal(kind):
            values, show = array.to_pylist(), lambda value: number(format(value, "f"))
        elif pa.types.is_binary(kind):
            values, show = array.to_pylist(), lambda value: value.hex()
        elif pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_null(kind):
            values, show = array.to_pylist(), lambda value: value
        else:
            values, show = array.to_pylist(), str
        return [None if none else show(value) for none, value in zip(null, values)]


class Failed(Exception):
    """What PostgreSQL says is wrong."""


class Postgres:
    """PostgreSQL, as a process of its own in a folder that goes with this one; spoken to in its simple protocol."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lamina-differ-")
        path = self.folder.name
        account = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.getuid() == 0 else []
        os.chmod(path, 0o777)
        found = sorted(f"/usr/lib/postgresql/{name}/bin/" for name in self.versions())
        programs = found[-1] if found else ""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": path}
        made = [f"{programs}initdb", "-D", f"{path}/data", "-U", "lamina", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run([*account, *made, "--locale=C.UTF-8"], check=True, **quiet)
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={path}", "-c", "fsync=off"]
        options += ["-c", "timezone=UTC", "-c", "synchronous_commit=off", "-c", "jit=off", "-c", "autovacuum=off"]
        self.server = subprocess.Popen([*account, f"{programs}postgres", "-D", f"{path}/data", *options], **quiet)
        self.connect(f"{path}/.s.PGSQL.5432")

    @staticmethod
    def versions():
        root = "/usr/lib/postgresql"
        return os.listdir(root) if os.path.isdir(root) else []

    def connect(self, path):
        deadline = datetime.datetime.now() + datetime.timedelta(seconds=60)
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                self.stream = self.socket.makefile("rb")
                words = b"".join(word + b"\0" for word in (b"user", b"lamina", b"database", b"postgres")) + b"\0"
                self.socket.sendall(struct.pack("!II", len(words) + 8, 196608) + words)
                self.answers()
                return
            except (OSError, struct.error, Failed):
                if self.server.poll() is not None or datetime.datetime.now() > deadline:
                    raise
                try:
                    self.server.wait(0.02)
                except subprocess.TimeoutExpired:
                    pass

    def stop(self):
        # Its quick way to stop: the gentle one waits for connections to end.
        self.server.send_signal(signal.SIGINT)
        self.server.wait()
        self.folder.cleanup()

    def answers(self):
        kinds, rows, fault = [], [], None
        while True:
            head = self.stream.read(5)
            kind, length = struct.unpack("!cI", head)
            body = self.stream.read(length - 4)
            if kind == b"T":
                kinds, at = [], 2
                for _ in range(struct.unpack("!H", body[:2])[0]):
                    at = body.index(b"\0", at) + 1
                    kinds.append(struct.unpack("!IHI", body[at : at + 10])[2])
                    at += 18
            elif kind == b"D":
                row, at = [], 2
                for _ in range(struct.unpack("!H", body[:2])[0]):
                    (size,) = struct.unpack("!i", body[at : at + 4])
                    at += 4
                    row.append(None if size < 0 else body[at : at + size].decode())
                    at += max(size, 0)
                rows.append(row)
            elif kind == b"E":
                parts = body.split(b"\0")
                fault = next(part[1:].decode() for part in parts if part[:1] == b"M")
            elif kind == b"Z":
                if fault is not None:
                    raise Failed(fault)
                return kinds, rows

    def run(self, sql):
        text = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", len(text) + 4) + text)
        return self.answers()

    def reset(self, table, columns):
        self.run("DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public")
        declared = ", ".join(f'"{name}" {TYPES[kind][1]}' for name, kind in columns)
        self.run(f'CREATE TABLE "{table}" ({declared})')

    def load(self, table, columns, rows):
        for start in range(0, len(rows), 5000):
            some = rows[start : start + 5000]
            values = ", ".join(
                "(" + ", ".join(literal(kind, value) for (_, kind), value in zip(columns, row)) + ")" for row in some
            )
            self.run(f'INSERT INTO "{table}" VALUES {values}')

    def ask(self, sql):
        kinds, rows = self.run(sql)
        shows = [SHOWN.get(kind, str) for kind in kinds]
        return [[None if cell is None else show(cell) for show, cell in zip(shows, row)] for row in rows]


def literal(kind, value):
    """A value in PostgreSQL's words."""
    if value is None:
        return "NULL"
    if kind == "b":
        return "true" if value else "false"
    if kind in "rdf":
        return f"'{float(value)!r}'::{TYPES[kind][1]}"
    if kind == "x":
        return f"'\\x{value.hex()}'::bytea"
    if kind == "D":
        return f"'{date(value)}'::date"
    if kind in "TZ":
        return f"'{civil(value, False)}{'+00' if kind == 'Z' else ''}'::{TYPES[kind][1]}"
    if kind == "L":
        return "ARRAY[" + ", ".join("NULL" if item is None else str(item) for item in value) + "]::integer[]"
    if kind == "t":
        return "'" + value.replace("'", "''") + "'"
    return f"'{value}'::{TYPES[kind][1]}"


def array(show):
    def items(text):
        found = re.findall(r'"(?:[^"\\]|\\.)*"|[^,{}]+', text)
        plain = lambda item: re.sub(r"\\(.)", r"\1", item[1:-1]) if item.startswith('"') else item
        return [None if item == "NULL" else show(plain(item)) for item in found]

    return items


def time(text):
    """As answers write it: in UTC, with a fraction of six digits or none."""
    if text.endswith(" BC"):
        year, rest = text.removesuffix(" BC").split("-", 1)
        return time(f"{1 - int(year):04}-{rest}")
    local = text.removesuffix("+00").replace(" ", "T")
    return re.sub(r"\.(\d+)", lambda found: "." + found[1].ljust(6, "0"), local) + ("Z" if text.endswith("+00") else "")


def show_bytes(text):
    return text.removeprefix("\\x")


def boolean(text):
    return text == "t"


def real(text):
    return double(struct.unpack("f", struct.pack("f", float(text)))[0]) if math.isfinite(float(text)) else double(text)


# By PostgreSQL's number of a type, how a text of it is shown.
SHOWN = {
    **{kind: number for kind in (20, 21, 23, 1700)},
    **{kind: array(number) for kind in (1005, 1007, 1016, 1231)},
    16: boolean, 1000: array(boolean), 17: show_bytes, 1001: array(show_bytes), 700: real, 701: double,
    1021: array(real), 1022: array(double), 1009: array(str), 1182: array(str), 1082: time, 1114: time, 1184: time,
    1115: array(time), 1185: array(time),
}  # fmt: skip


class References:
    """Both engines over one list of events."""

    def __init__(self, with_postgres):
        self.engines = {"duck": Duck()}
        if with_postgres:
            self.engines["postgres"] = Postgres()

    def reset(self, request):
        self.table, self.columns = request["table"], request["columns"]
        self.kinds = [(name, kind) for name, kind, _ in self.columns] + POSITION
        self.positions = []
        for engine in self.engines.values():
            engine.reset(self.table, self.kinds)

    def load(self, request):
        rows, dead = [], 0
        for partition, offset, timestamp_ms, text in request["events"]:
            try:
                rows.append(record(self.columns, text) + [partition, offset, timestamp_ms * 1000])
                self.positions.append((partition, offset))
            except Dead:
                dead += 1
        for engine in self.engines.values():
            engine.load(self.table, self.kinds, rows)
        return {"dead": dead}

    def views(self, request):
        for name, engine in self.engines.items():
            for view, sql, of_each_event in request["views"]:
                engine.run(f'DROP TABLE IF EXISTS "{view}"')
                try:
                    engine.run(f'CREATE TABLE "{view}" AS {sql[name]}')
                except Exception:
                    self.without_failed(engine, view, sql[name], of_each_event[name])

    def without_failed(self, engine, view, sql, of_each_event):
        """The view over those events of which each by itself can be computed; no table if that fails too."""
        failed = []
        # One by one takes its time: worlds that are large have no such events.
        for partition, offset in self.positions[:5000]:
            try:
                engine.ask(f"{of_each_event} AND _partition = {partition} AND _offset = {offset}")
            except Exception:
                failed.append(f"({partition}, {offset})")
        if failed:
            engine.run(f'DROP TABLE IF EXISTS "usable"')
            among = f'(_partition, _offset) NOT IN ({", ".join(failed)})'
            engine.run(f'CREATE TABLE "usable" AS SELECT * FROM "{self.table}" WHERE {among}')
            try:
                usable = re.sub(rf"\bFROM {self.table}\b", "FROM usable", sql)
                engine.run(f'CREATE TABLE "{view}" AS {usable}')
            except Exception:
                pass

    def ask(self, request):
        answers = {}
        for name, engine in self.engines.items():
            try:
                answers[name] = {"rows": engine.ask(request["sql"][name])}
            except Exception as error:
                answers[name] = {"error": str(error)}
        return answers


def main():
    references = References("--postgres" in sys.argv)
    try:
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(references, request["do"])(request) or {}
            print(json.dumps(answer), flush=True)
    finally:
        if "postgres" in references.engines:
            references.engines["postgres"].stop()


main()

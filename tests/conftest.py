"""What tests share: one local AWS, one cluster that is an instance in it, and databases with the extension."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.endpoints import Behaviour, Endpoint
from tests.streams import FaultyStreams, Streams, kinesis_local

FUNCTIONS = Path(__file__).parent / "functions"

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


@pytest.fixture(scope="session")
def aws() -> Iterator[LocalAWS]:
    with LocalAWS(deploy=[FUNCTIONS], retry_delays=(0.1, 0.1)) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(aws: LocalAWS) -> Iterator[Cluster]:
    """A cluster on an "instance": no AWS configuration but IMDS, and the local AWS in the place of AWS."""
    with Cluster(aws.environment) as running:
        with psycopg.connect(running.dsn(), autocommit=True) as session:
            session.execute("CREATE DATABASE with_extension")
        with psycopg.connect(running.dsn("with_extension"), autocommit=True) as session:
            session.execute("CREATE EXTENSION awslambda CASCADE")
        with psycopg.connect(running.dsn(), autocommit=True) as session:
            session.execute("CREATE DATABASE shared TEMPLATE with_extension")
        yield running


_numbers = itertools.count(1)


@pytest.fixture
def database(cluster: Cluster) -> Iterator[str]:
    """The name of a new database with the extension; roles made in it (create_role) go with it."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE with_extension")  # type: ignore[call-overload]
        with psycopg.connect(cluster.dsn(name), autocommit=True) as copy:
            copy.execute("SELECT awslambda.arm()")  # a copy of a database does not dispatch by itself
        before = {role for (role,) in session.execute("SELECT rolname FROM pg_roles")}
        yield name
        session.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]
        for (role,) in session.execute("SELECT rolname FROM pg_roles").fetchall():
            if role not in before:
                session.execute(f'DROP ROLE "{role}"')  # type: ignore[call-overload]


@pytest.fixture
def connect(cluster: Cluster, database: str) -> Iterator[Connect]:
    """Opens sessions of the test's database: connect(user=…). Each commits by itself."""
    sessions: list[Connection] = []

    def opened(user: str = "postgres", name: str | None = None) -> Connection:
        sessions.append(psycopg.connect(cluster.dsn(name or database, user), autocommit=True))
        return sessions[-1]

    yield opened
    for session in sessions:
        session.close()


@pytest.fixture
def sql(connect: Connect) -> Callable[..., Any]:
    """Runs one statement as superuser in the test's database: its first value, or its row if that has several."""
    return runner(connect())


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Iterator[Callable[..., Any]]:
    """As sql, but one session for the whole module, whose statements change nothing: calls without the first's cost."""
    with psycopg.connect(cluster.dsn("shared"), autocommit=True) as session:
        yield runner(session)


@pytest.fixture(scope="module")
def own(cluster: Cluster) -> Iterator[Callable[..., Any]]:
    """As sql, but one database and session for the whole module, which tidies up after itself."""
    name = f"own_{next(_numbers)}"
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE with_extension")  # type: ignore[call-overload]
        with psycopg.connect(cluster.dsn(name), autocommit=True) as session:
            session.execute("SELECT awslambda.arm()")
            yield runner(session)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


def runner(session: Connection) -> Callable[..., Any]:
    """`sql` for any session."""

    def run(statement: str, *parameters: object) -> Any:
        cursor = session.execute(statement, parameters or None)  # type: ignore[call-overload]
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row is not None and len(row) == 1 else row

    return run


@pytest.fixture
def endpoint() -> Iterator[Callable[[Behaviour], Endpoint]]:
    """Starts endpoints that do what the test says."""
    running: list[Endpoint] = []

    def start(behaviour: Behaviour, **more: Any) -> Endpoint:
        running.append(Endpoint(behaviour, **more))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture(scope="session")
def streams() -> Iterator[Streams]:
    """Kinesis that reshards and expires as AWS's does."""
    with kinesis_local() as running:
        yield running


@pytest.fixture
def faulty(streams: Streams) -> Iterator[FaultyStreams]:
    """The same with the faults that the test asks for."""
    proxy = FaultyStreams(streams)
    yield proxy
    proxy.endpoint.close()


@pytest.fixture(scope="session")
def readable_folder() -> Iterator[Path]:
    """A folder that the server's user can read too."""
    folder = Path(tempfile.mkdtemp(prefix="awslambda-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def certificate(readable_folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and localhost, with its key, readable by the server's user."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    no_secret = serialization.NoEncryption()
    file = readable_folder / "certificate.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_secret)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file

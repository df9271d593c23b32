"""botocore: sessions, credentials, region, endpoints, signing and clients. The only module that imports it.

An Identity is who we are for AWS, made from one server's options and kept between calls. Whatever asks the network
(IMDS, STS, a credential process) does so in a helper thread, so that it can be interrupted; an Identity whose helper
thread was left behind is not used again.

What one backend has found out, region, endpoint and temporary credentials, the others of the host take from a cache:
they neither ask anybody nor import botocore. Keys that do not expire are never put there.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import awslambda
from awslambda import errors, signing
from awslambda.cache import Cache, place
from awslambda.connection import Endpoint, Proxy
from awslambda.settings import Settings
from awslambda.waits import Wait, in_openssl

if TYPE_CHECKING:
    import datetime
    import subprocess

T = TypeVar("T")

# Codes of SQS and SNS.
NOT_FOUND = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NotFound", "NotFoundException")
NOT_KNOWN = (
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "InvalidSecurity", "RequestExpired",
    "SignatureDoesNotMatch", "UnrecognizedClientException",
)  # fmt: skip
ADVISORY, MANDATORY = 900.0, 600.0  # seconds before they expire: when credentials should be, and must be, refreshed
ASK_CREDENTIALS = 60.0  # seconds, before credentials are asked again whether they have to be refreshed
CREDENTIALS = "credentials"  # their name in the cache
# What botocore reads besides the environment: the variables that name the files, and where they are else.
FILES = (
    ("AWS_CONFIG_FILE", "~/.aws/config"),
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("BOTO_CONFIG", "/etc/boto.cfg"),
    ("BOTO_CONFIG", "~/.boto"),
)
ASK_AGAIN = 300.0  # seconds, after STS did not say whose account it is


class Url(NamedTuple):
    """A service's base URL and where that is on the network."""

    endpoint: Endpoint
    path: str  # that the base URL itself has; mostly none

    @property
    def host(self) -> str:
        """The Host header, as it is signed: in lower case, without the scheme's own port."""
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        return host if self.endpoint.port == (443 if self.endpoint.tls else 80) else f"{host}:{self.endpoint.port}"

    @property
    def text(self) -> str:
        """The URL, without what may have stood before an @."""
        return f"{'https' if self.endpoint.tls else 'http'}://{self.host}{self.path}"


class Credentials(NamedTuple):
    """What signs requests, by the names of botocore's own frozen credentials."""

    access_key: str
    secret_key: str
    token: str | None
    account_id: str | None


class _Kept(NamedTuple):
    """Credentials in the cache. Without `expiry` it says only where they come from: each backend asks there itself."""

    source: str  # botocore's name of it
    keys: tuple[Any, ...]  # of Credentials
    expiry: float | None
    again: float  # before that they are not asked for again, unless they have to be

    @classmethod
    def of(cls, frozen: Any, source: str, expiry: datetime.datetime | None) -> _Kept:
        """What may be kept of credentials."""
        if expiry is None:
            return cls(source, (), None, 0.0)
        kept = cls(source, tuple(frozen), expiry.timestamp(), 0.0)
        return kept if expiry.timestamp() - time.time() > ADVISORY else kept.for_a_while()

    def for_a_while(self) -> _Kept:
        """Not to be asked for again at once: there are no better ones."""
        return self._replace(again=min(time.time() + ASK_CREDENTIALS, (self.expiry or 0.0) - MANDATORY))


class Identity:
    """One AWS identity: session, credentials, region and endpoints of one server's options.

    `cache` has what others have found out with the same options, environment and files; without it all is asked anew.
    """

    def __init__(self, settings: Settings, cache: Cache | None = None) -> None:
        self.usable = True
        self._processes: list[subprocess.Popen[bytes]] = []
        self._settings = settings
        self._cache = cache or Cache("", ())
        self._credentials: Any = None
        self._frozen: tuple[Any, float] = (None, -math.inf)  # and until when, by time.time(), nothing need be asked
        self._region: tuple[str, str] | None = None
        self._partitions: dict[str, str] = {}
        self._urls: dict[tuple[str, str], Url] = {}
        self._clients: dict[tuple[str, str], tuple[object, Any]] = {}  # with the credentials each was made for
        self._making = threading.Lock()  # clients: a session may not make two at once
        self._account: str | None = None
        self._ask_account_from = 0.0

    @cached_property
    def _session(self) -> Any:
        import botocore.session

        _tls_in_turn()
        return botocore.session.Session(profile=self._settings.profile)

    def region(self, wait: Wait) -> tuple[str, str]:
        """The region of this identity, and where it came from."""
        if self._settings.region:
            return self._settings.region, "server option region"
        if self._region is None:
            found = self._shared("region", ("name", "source"), lambda: self._find_region(wait), wait)
            self._region = (found["name"], found["source"])
        return self._region

    def _find_region(self, wait: Wait) -> dict[str, Any]:
        if configured := _translated(lambda: self._session.get_config_variable("region")):
            return {"name": configured, "source": "environment or profile"}
        imds = _translated(lambda: _imds(self._session))
        if found := self._in_thread(lambda: _region_from(imds), wait):
            return {"name": found, "source": "instance metadata"}
        raise errors.RegionUnknown

    def _shared(
        self, name: str, fields: tuple[str, ...], find: Callable[[], dict[str, Any]], wait: Wait | None
    ) -> dict[str, Any]:
        """What the cache has, else what is found now: by one backend at a time, if it may be waited for."""
        if found := self._cache.get(name, fields):
            return found
        with self._cache.lock(name, wait):
            found = self._cache.get(name, fields)
            if not found:
                try:
                    found = find()
                except errors.LambdaError:  # and nobody else has found it meanwhile
                    if found := self._cache.get(name, fields):
                        return found
                    raise
                self._cache.put(name, found)
        return found

    def partition(self, region: str) -> str:
        """aws, aws-cn, aws-us-gov ...: the part of an ARN that a region's name stands for."""
        if region not in self._partitions:
            found = self._shared(f"partition of {region}", ("name",), lambda: self._find_partition(region), None)
            self._partitions[region] = found["name"]
        return self._partitions[region]

    def _find_partition(self, region: str) -> dict[str, Any]:
        return {"name": str(_translated(lambda: self._session.get_partition_for_region(region)))}

    def url(self, service: str, region: str, wait: Wait) -> Url:
        """The server's endpoint_url, else what environment and profile configure, else AWS's own endpoint."""
        if (service, region) not in self._urls:
            name, fields = f"url of {service} in {region}", ("url", "ca_bundle", "proxy", "authorized")
            found = self._shared(name, fields, lambda: self._find_url(service, region), wait)
            tls, host, port, path = _parsed(found["url"])
            proxy = _proxy(found["url"]) if found["authorized"] else found["proxy"] and Proxy(*found["proxy"])
            self._urls[service, region] = Url(Endpoint(tls, host, port, found["ca_bundle"], proxy), path)
        return self._urls[service, region]

    def _find_url(self, service: str, region: str) -> dict[str, Any]:
        """Without passwords: a proxy that wants one is looked up each time."""
        text = self._settings.endpoint_url(service) or _translated(lambda: self._aws_url(service, region))
        tls, host, port, path = _parsed(text)
        ca_bundle, proxy = (_translated(self._ca_bundle), _proxy(text)) if tls else ("", None)
        return {
            "url": Url(Endpoint(tls, host, port, ca_bundle), path).text,
            "ca_bundle": ca_bundle,
            "proxy": proxy and (proxy.host, proxy.port),
            "authorized": bool(proxy and proxy.authorization),
        }

    def sign(self, request: signing.Request, wait: Wait) -> dict[str, str]:
        """The headers of a request with its Signature Version 4."""
        access_key, secret_key, token = self.frozen_credentials(wait)[:3]
        with in_openssl():  # which has the hashes
            return signing.sign(request, access_key, secret_key, token, signing.clock.now())

    def frozen_credentials(self, wait: Wait) -> Any:
        """Access key, secret and token, refreshed before they expire."""
        if time.time() >= self._frozen[1]:
            self._frozen = _usable(self._kept()) or self._new_credentials(wait)
        return self._frozen[0]

    def refused(self) -> None:
        """AWS does not take the credentials of now: others need not try them."""
        kept = self._kept()
        if kept and kept.keys and kept.keys == self._frozen[0]:
            self._cache.drop(CREDENTIALS)

    def _kept(self) -> _Kept | None:
        found = self._cache.get(CREDENTIALS, _Kept._fields)
        return None if found is None else _Kept(**{**found, "keys": tuple(found["keys"])})

    def _new_credentials(self, wait: Wait) -> tuple[Any, float]:
        """Credentials, and until when they need not be asked for again: from where they come from, by one backend at a
        time. Those at hand that are good for minutes yet are used if another one is about it, or if it fails."""
        kept = self._kept()
        private = kept is not None and kept.expiry is None
        spare = kept if kept and kept.expiry and kept.expiry - time.time() > MANDATORY else None
        with self._cache.lock(CREDENTIALS, None if spare or private else wait) as alone:
            if found := _usable(self._kept()):
                return found
            if spare and not alone:
                return Credentials(*spare.keys), -math.inf
            try:
                found = self._ask(wait.within(self._settings.connect_timeout) if spare else wait)
                now = _Kept.of(found[0], self.credentials_source, self.credentials_expiry)
            except errors.LambdaError:
                if not spare:
                    if found := _usable(self._kept()):
                        return found
                    raise
                now = spare.for_a_while()
                found = Credentials(*spare.keys), now.again
            if alone and now != kept:
                self._cache.put(CREDENTIALS, now._asdict())
            return found

    def _ask(self, wait: Wait) -> tuple[Any, float]:
        if self._credentials is None:
            providers = _translated(self._providers)
            self._credentials = self._in_thread(lambda: self._find_credentials(providers), wait)
        until = _refreshed_from(self._credentials)  # before: another thread may refresh them meanwhile
        frozen = self._freeze(self._credentials, wait)
        return frozen, min(until, time.time() + ASK_CREDENTIALS)

    def _freeze(self, credentials: Any, wait: Wait) -> Any:
        refresh_needed = getattr(credentials, "refresh_needed", None)
        if refresh_needed is not None and refresh_needed():
            if refresh_needed(credentials._mandatory_refresh_timeout):
                return self._in_thread(credentials.get_frozen_credentials, wait)
            try:  # those at hand are good for minutes yet
                return self._in_thread(credentials.get_frozen_credentials, wait.within(self._settings.connect_timeout))
            except errors.ConnectFailed:
                self.usable = True
        return credentials.get_frozen_credentials()

    @property
    def credentials_source(self) -> str:
        """botocore's name of what the credentials came from: iam-role, assume-role, shared-credentials-file ..."""
        return str(getattr(self._credentials, "method", ""))

    @property
    def credentials_expiry(self) -> datetime.datetime | None:
        return getattr(self._credentials, "_expiry_time", None)

    def client(self, service: str, region: str | None, **credentials: Any) -> Any:
        """A botocore client. Its calls block: they belong into Wait.in_thread."""
        from botocore.config import Config

        # The caller's Wait bounds the whole, and the caller tries again.
        config = Config(connect_timeout=10, read_timeout=10, retries={"total_max_attempts": 1})
        return self._session.create_client(
            service,
            region_name=region,
            endpoint_url=self._settings.endpoint_url(service),
            verify=self._settings.ca_bundle,
            config=config,
            **credentials,
        )

    def caller(self, wait: Wait, region: str, seconds: float) -> str:
        """The ARN that STS, in this region, knows these credentials by; it has so many seconds to say so."""
        access_key, secret_key, token = self.frozen_credentials(wait)[:3]
        keys = {"aws_access_key_id": access_key, "aws_secret_access_key": secret_key, "aws_session_token": token}
        sts = _translated(lambda: self.client("sts", region, **keys))
        try:  # the client is this call's own: a thread left behind with it does not make the Identity useless
            return str(wait.within(seconds).in_thread(lambda: _translated(sts.get_caller_identity))["Arn"])
        except TimeoutError:
            raise errors.CredentialsUnavailable(reason="no answer in time") from None

    def account(self, wait: Wait, region: str, seconds: float) -> str | None:
        """The account that this identity is in. If nothing else says so, STS is asked, as by `caller`: once, or again
        after `ASK_AGAIN` if it did not answer. Until then this is None."""
        if self._settings.role_arn:
            return self._settings.role_arn.split(":")[4]
        if self._account is None and time.monotonic() >= self._ask_account_from:
            try:
                known = self.frozen_credentials(wait).account_id
                self._account = known or self.caller(wait, region, seconds).split(":")[4]
            except errors.LambdaError:
                self._ask_account_from = time.monotonic() + ASK_AGAIN
        return self._account

    def request(  # noqa: PLR0917
        self, service: str, region: str, operation: str, parameters: Mapping[str, str], destination: str, wait: Wait
    ) -> None:
        """One request to a service that takes what Lambda gave up, sent once; `destination` is how errors call it."""
        credentials = self.frozen_credentials(wait)[:3]

        def send() -> None:
            getattr(self._client_of(service, region, credentials), operation)(**parameters)

        try:
            wait.in_thread(lambda: _translated(lambda: _sent(send, destination)))
        except TimeoutError:
            raise errors.DestinationFailed(destination=destination, reason="no answer in time") from None

    def _client_of(self, service: str, region: str, credentials: tuple[Any, ...]) -> Any:
        """The kept client of a service, while it has the credentials of now."""
        with self._making:
            made_for, client = self._clients.get((service, region), (None, None))
            if made_for != credentials:
                access_key, secret_key, token = credentials
                client = self.client(
                    service, region,
                    aws_access_key_id=access_key, aws_secret_access_key=secret_key, aws_session_token=token,
                )  # fmt: skip
                self._clients[service, region] = (credentials, client)
            return client

    def _in_thread(self, work: Callable[[], T], wait: Wait) -> T:
        try:
            return wait.in_thread(lambda: _translated(work))
        except errors.LambdaError:
            raise
        except TimeoutError:
            self.usable = False
            self._kill_processes()
            raise errors.CredentialsUnavailable(reason="no answer in time") from None
        except BaseException:
            self.usable = False
            self._kill_processes()
            raise

    def _providers(self) -> list[Any]:
        """botocore's chain. It is made in the main thread, with all that imports or prepares TLS: the end of a session
        that is terminated is the end of OpenSSL, and a helper thread that is in the middle of it crashes then."""
        providers: list[Any] = self._session.get_component("credential_provider").providers
        for provider in providers:
            if provider.METHOD == "custom-process":
                provider._popen = self._popen
        return providers

    def _find_credentials(self, providers: Sequence[Any]) -> Any:
        source = self._session.get_credentials()
        if source is None:
            tried = ", ".join(provider.METHOD for provider in providers)
            raise errors.NoCredentials(reason=f"none found; tried {tried}")
        if self._settings.role_arn is None:
            return source
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        configured = self._settings.region or self._session.get_config_variable("region")
        region = configured or _region_from(_imds(self._session))
        if region is None:
            raise errors.RegionUnknown

        def sts(service: str, **credentials: Any) -> Any:
            return self.client(service, region, **credentials)

        extra = {"RoleSessionName": "awslambda"}
        if self._settings.external_id:
            extra["ExternalId"] = self._settings.external_id
        fetcher = AssumeRoleCredentialFetcher(sts, source, self._settings.role_arn, extra_args=extra)
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")

    def _popen(self, *args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        """A credential_process: without the helper thread's blocked signals, and ended with the wait for it."""
        import subprocess

        process: subprocess.Popen[bytes]
        process = subprocess.Popen(*args, **{**kwargs, "preexec_fn": _unblock_signals})  # noqa: S603
        self._processes = [process, *(before for before in self._processes if before.poll() is None)]
        return process

    def _kill_processes(self) -> None:
        while self._processes:
            self._processes.pop().kill()

    def _aws_url(self, service: str, region: str) -> str:
        from botocore.configprovider import ConfiguredEndpointProvider
        from botocore.endpoint_provider import EndpointProvider

        if not self._session.get_config_variable("ignore_configured_endpoint_urls"):
            provider = ConfiguredEndpointProvider(self._session.full_config, self._session.get_scoped_config(), service)
            if configured := provider.provide():
                return str(configured)
        loader = self._session.get_component("data_loader")
        rules = EndpointProvider(
            loader.load_service_model(service, "endpoint-rule-set-1"), loader.load_data("partitions")
        )
        return str(
            rules.resolve_endpoint(
                Region=region,
                UseDualStack=bool(self._session.get_config_variable("use_dualstack_endpoint")),
                UseFIPS=bool(self._session.get_config_variable("use_fips_endpoint")),
            ).url
        )

    def _ca_bundle(self) -> str:
        import botocore

        configured = self._settings.ca_bundle or self._session.get_config_variable("ca_bundle")
        return str(configured or f"{os.path.dirname(botocore.__file__)}/cacert.pem")  # noqa: PTH120


_identities: dict[tuple[object, ...], Identity] = {}


def identity(settings: Settings) -> Identity:
    """The one of these options, kept for the life of the process. Permission to use it is the caller's business."""
    kept = _identities.get(settings.identity)
    if kept is None or not kept.usable:
        kept = _identities[settings.identity] = Identity(settings, Cache(place(), _key(settings)))
    return kept


def forget(settings: Settings) -> None:
    """Makes the next call look for the credentials anew: AWS refused them, or there were none."""
    if kept := _identities.pop(settings.identity, None):
        kept.refused()


def _key(settings: Settings) -> tuple[object, ...]:
    """All that region, endpoints and credentials follow from, besides the host."""
    environment = sorted(
        (name, value)
        for name, value in os.environ.items()
        if name.startswith("AWS_") or name.lower().endswith("_proxy") or name in ("HOME", "BOTO_CONFIG")
    )
    files = []
    for variable, usual in FILES:
        path = os.path.expanduser(os.environ.get(variable, usual))  # noqa: PTH111 - as botocore does
        with contextlib.suppress(OSError):
            found = os.stat(path)  # noqa: PTH116
            files.append((path, found.st_mtime_ns, found.st_size, found.st_ino))
    return awslambda.__version__, awslambda.__file__, settings.identity, environment, files


def _usable(kept: _Kept | None) -> tuple[Any, float] | None:
    """Credentials of the cache, if they need not be asked for now, and until when that is so."""
    if kept is None:
        return None
    if kept.expiry is None:
        return (_of_environment(), math.inf) if kept.source == "env" else None
    until = max(kept.expiry - ADVISORY, kept.again)
    return (Credentials(*kept.keys), until) if time.time() < until else None


def _of_environment() -> Credentials:
    """As botocore reads them, which has found that they are there."""
    found = os.environ
    token = found.get("AWS_SECURITY_TOKEN") or found.get("AWS_SESSION_TOKEN") or None
    account_id = found.get("AWS_ACCOUNT_ID") or None
    return Credentials(found.get("AWS_ACCESS_KEY_ID", ""), found.get("AWS_SECRET_ACCESS_KEY", ""), token, account_id)


def versions() -> dict[str, str]:
    """Of boto3 and botocore, with the file each was loaded from."""
    import boto3
    import botocore

    return {m.__name__: f"{m.__version__} from {m.__file__}" for m in (boto3, botocore)}


_preparing = threading.Lock()


def _tls_in_turn() -> None:
    """botocore asks in helper threads, which must not be in OpenSSL unless the main thread waits."""
    from botocore import httpsession

    from awslambda import tls

    with _preparing:  # once
        make = httpsession.create_urllib3_context
        if make.__module__ != tls.__name__:
            httpsession.create_urllib3_context = tls.in_turn(make)


def _imds(session: Any) -> Any:
    """botocore's client of the instance metadata service."""
    from botocore.utils import IMDSRegionProvider

    return IMDSRegionProvider(session)._create_fetcher()


def _region_from(imds: Any) -> str | None:
    """Asks placement/region: botocore's own look-up asks for the zone and cuts a letter, which fails in Local Zones."""
    from botocore.utils import BadIMDSRequestError

    try:
        token = imds._fetch_metadata_token()
        path = "latest/meta-data/placement/region"
        return str(imds._get_request(url_path=path, retry_func=imds._default_retry, token=token).text) or None
    except (imds._RETRIES_EXCEEDED_ERROR_CLS, BadIMDSRequestError):
        return None


def _refreshed_from(credentials: Any) -> float:
    """The time from which botocore refreshes them; always or never, if they do not say or cannot be refreshed."""
    if not hasattr(credentials, "refresh_needed"):
        return math.inf
    expiry = getattr(credentials, "_expiry_time", None)
    return float(expiry.timestamp() - credentials._advisory_refresh_timeout) if expiry else -math.inf


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _parsed(url: str) -> tuple[bool, str, int, str]:
    """Of a URL: whether it is TLS, host, port and path."""
    scheme, host, port, path = "", None, None, ""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        scheme, host, port, path = parts.scheme, parts.hostname, parts.port, parts.path
    if not host or scheme not in ("http", "https"):
        shown = "..." if "@" in url else url  # what stands before an @ may be a password
        raise errors.InvalidArgument(
            reason=f"not the URL of an endpoint: {shown!r}",
            hint="It comes from AWS_ENDPOINT_URL, or from the profile, of PostgreSQL's operating-system user.",
        )
    tls = scheme == "https"
    return tls, host, port or (443 if tls else 80), path.rstrip("/")


def _proxy(url: str) -> Proxy | None:
    """Of HTTPS_PROXY and NO_PROXY in the environment; without a scheme it is an HTTP proxy."""
    from botocore.utils import get_environ_proxies

    given = str(get_environ_proxies(url).get("https", ""))
    if not given:
        return None
    host = port = None
    with contextlib.suppress(ValueError):
        parts = urlsplit(given if "://" in given else f"http://{given}")
        host, port = parts.hostname, parts.port or 80
    if host is None or port is None or parts.scheme != "http":
        raise errors.InvalidArgument(
            reason="HTTPS_PROXY is not the URL of an HTTP proxy",
            hint="PostgreSQL's environment has it. It is like http://proxy.example:3128.",
        )
    if parts.username is None:
        return Proxy(host, port)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(host, port, f"Basic {b64encode(credentials.encode()).decode()}")


def _translated(work: Callable[[], T]) -> T:
    """botocore's errors as ours."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        return work()
    except errors.LambdaError:
        raise
    except exceptions.ClientError as error:
        raise _refused(error) from None
    except (exceptions.HTTPClientError, exceptions.ConnectionError, ResponseParserError) as error:
        fields = getattr(error, "kwargs", {})
        raise errors.ConnectFailed(
            endpoint=fields.get("endpoint_url", "AWS"), reason=str(fields.get("error") or type(error).__name__)
        ) from None
    except exceptions.UnknownRegionError as error:
        raise errors.InvalidArgument(reason=str(error)) from None
    except exceptions.BotoCoreError as error:
        raise errors.NoCredentials(reason=str(error).rstrip(".")) from None
    except Exception as error:  # a credential_process that is not there; an IMDS that says 400
        raise errors.NoCredentials(reason=f"{type(error).__name__} {getattr(error, 'filename', '')}".rstrip()) from None


def _sent(send: Callable[[], None], destination: str) -> None:
    """What a destination answers, as our errors; those of the way there are left as they are."""
    from botocore import exceptions

    try:
        send()
    except exceptions.ClientError as error:
        code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        message = message.split("\n", maxsplit=1)[0]  # then AWS shows the signed headers, with the token
        if code in NOT_FOUND:
            raise errors.DestinationNotFound(destination=destination) from None
        if "AccessDenied" in code or code == "AuthorizationError":
            raise errors.AccessDenied(reason=message) from None
        if code in NOT_KNOWN:
            raise errors.CredentialsRefused(reason=f"{code}: {message}") from None
        raise errors.DestinationFailed(destination=destination, reason=f"{code}: {message}".rstrip(".")) from None
    except (exceptions.ReadTimeoutError, exceptions.ConnectionClosedError) as error:
        raise errors.DestinationFailed(destination=destination, reason=type(error).__name__) from None


def _refused(error: Any) -> errors.LambdaError:
    """STS or SSO said no."""
    code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    message = message.split("\n", maxsplit=1)[0]  # then AWS shows the signed headers, with the token
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in ("AccessDenied", "AccessDeniedException"):
        return errors.AccessDenied(reason=message)
    if status >= 500 or code.startswith("Throttl"):
        return errors.CredentialsUnavailable(reason=f"{error.operation_name} ended in {code} (HTTP {status})")
    return errors.CredentialsRefused(reason=f"{code}: {message}")

"""The served document against the servers behind it: what it allows is taken, what it forbids refused, all as it says.

Schemathesis makes the requests from the document, in each run the same. For others, and for more of them, with
boundaries one by one and sequences of operations:
`HOOKLEDGER_SCHEMATHESIS_SECONDS=600 .venv/bin/pytest tests/integration/registry/test_schemathesis.py`.
"""

import asyncio
import os
from collections.abc import Iterator
from typing import Any, Final

import asyncpg
import pytest
import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema
from schemathesis.hooks import HookContext, unregister

from deploy.stack.services import Service
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from tests.integration.registry.conftest import Registry
from tests.integration.registry.history import Place, accept, deliver
from tests.integration.registry.test_authentication import furnished
from tests.support.client import connected
from tests.support.patience import eventually

SECONDS: Final = int(os.environ.get("HOOKLEDGER_SCHEMATHESIS_SECONDS", "0"))
EXAMPLES: Final = 3
Case = schemathesis.Case[Any]

# What the document allows and the servers refuse, by the place that the refusal names: why no schema says it.
BEYOND_SCHEMA: Final[dict[tuple[str, ...], str]] = {
    ("query", "iterator"): "it comes out of another page",
    ("query", "at"): "a version is given too, of which it is one",
    ("query", "source"): "it is the id of a source",
    ("query", "messageId"): "it is the id of a message",
    ("query", "actor"): "it is the id of one who can act",
    ("query", "object"): "it is the id of what can change",
    ("body", "url"): "it names a host, without password and fragment",
    ("body", "publicUrl"): "the same, and there only where the provider signs it",
    ("body", "secret"): "it is one of its provider's or profile's, of enough bytes",
    ("body", "headers"): "those of the connection, of cookies and of the signature are the platform's",
    ("body", "expression"): "it parses as jmespath",
    ("body", "filter"): "the same",
    ("body", "schemas"): "they are JSON Schemas",
    ("body", "spec"): "it is an OpenAPI document with webhooks",
    ("body", "specRaw"): "the same, as text",
    ("body", "application"): "it is needed whole where there is none yet",
    ("body", "metadata"): "it is short as a whole",
    ("body", "since"): "it lies before `until` and before now",
    ("body", "provider"): "a source keeps its own",
    ("body", "verification"): "what it asks for depends on the provider",
    ("body", "profile"): "it fits the kind of secret",
    ("body", "key"): "it is a secret",
    ("body", "expiresAt"): "it is yet to come",
}
# The same for operations that refuse with another status than 422.
ALSO_REFUSE: Final[dict[tuple[str, int], str]] = {
    ("v1.endpoint.get-stats", 400): "the range ends after it begins, and is short",
    ("v1.endpoint.rotate-secret", 400): "ten old secrets are in force",
    ("v1.source.rotate-secret", 400): "an old secret is in force",
    ("v1.inbound.answer-challenge", 400): "the source has another `challengeParameter`",
    ("v1.inbound.answer-challenge", 405): "the source has none",
    ("v1.event-type.import-openapi", 400): "the document is in one of two places, and is one",
}
# What the document forbids and the servers take.
TAKES_ANYWAY: Final[dict[str, str]] = {
    "v1.message.create-batch": "what is wrong with one message is the result of that one",
}


# Where `Allow` says something else than the document's methods of that path.
ALLOWS: Final[dict[str, str]] = {
    "v1.inbound.receive": "a source takes GET only where it has a `challengeParameter`",
    "v1.inbound.answer-challenge": "the same",
    "v1.message.create-batch": "to the registry `batch` could be a message's id",
}


@pytest.fixture(scope="module")
def door(registry: Registry) -> Iterator[Service]:
    """A front door before the registry."""
    ingress = registry.installation.service("ingress", registry=registry.service)
    ingress.start()
    try:
        ingress.wait_ready()
        yield ingress
    finally:
        ingress.stop(grace_s=10)


@pytest.fixture(scope="module")
async def names(registry: Registry, door: Service, database: str) -> dict[str, str]:
    """One object of each kind, by the names that paths have for it."""
    async with connected(door.url, registry.key) as client:
        found = await furnished(client)
        app = found["app"]
        await client.request("POST", f"/in/{found['source']}", data=b"{}")
        rejected = await eventually(lambda: client.get(f"/app/{app}/rejected"), lambda page: bool(page["data"]))
        place = Place.of(registry.organisation, app)
        sql = await asyncpg.connect(database)
        message = await accept(sql, place)
        delivery = await deliver(sql, place, message, ids.decode(Prefix.ENDPOINT, found["endpoint"]), [500, 200])
        await sql.close()
        msg = ids.encode(Prefix.MESSAGE, message)
        attempts = await client.get(f"/app/{app}/attempt/msg/{msg}")
    return found | {
        "msg": msg,
        "delivery": ids.encode(Prefix.DELIVERY, delivery),
        "attempt": attempts["data"][0]["id"],
        "rejected": rejected["data"][0]["id"],
    }


@pytest.mark.timeout(240 + 2 * SECONDS)
async def test_every_request_that_the_document_makes_is_answered_as_it_says(
    door: Service, registry: Registry, names: dict[str, str]
) -> None:
    @schemathesis.hook
    def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
        find_what_is_there(case, names)

    @schemathesis.hook
    def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
        return not expected(failure, case, response)

    def run() -> list[str]:
        schema = schemathesis.openapi.from_url(f"{door.url}/openapi.json", config=configuration(registry.key))
        return list(failures(from_schema(schema).execute()))

    try:
        found = await asyncio.to_thread(run)
    finally:
        unregister(before_call)
        unregister(filter_failure)
    assert not found, f"{len(found)} failures:\n\n" + "\n\n".join(found)


def configuration(key: str) -> schemathesis.Config:
    """All checks; in the suite a few requests of each operation, else all there are until the time is over."""
    thorough = {"enabled": bool(SECONDS)}
    settings: dict[str, Any] = {
        "headers": {"Authorization": f"Bearer {key}"},
        "generation": {
            "deterministic": not SECONDS,
            "no-shrink": True,
            "database": "none",
            "allow-x00": False,  # no text holds NUL, as the document's description says
        },
        "phases": {"examples": thorough, "coverage": thorough, "stateful": thorough},
    }
    if SECONDS:
        return schemathesis.Config.from_dict(settings | {"max-time": SECONDS})
    settings["generation"]["max-examples"] = EXAMPLES
    return schemathesis.Config.from_dict(settings | {"seed": 1})


def failures(stream: Iterator[events.EngineEvent]) -> Iterator[str]:
    """Each check that failed, with the request and its answer; and each operation that could not be tried."""
    for event in stream:
        match event:
            case events.ScenarioFinished(recorder=recorder) | events.FuzzScenarioFinished(recorder=recorder):
                for case, checks in recorder.checks.items():
                    for check in checks:
                        if check.failure_info is not None:
                            answer = recorder.interactions[case].response
                            said = answer.content[:300] if answer is not None else b""
                            info = check.failure_info
                            yield f"{recorder.label}: {info.failure.title}\n{info.failure.message}\n{info.code_sample}\n{said!r}"
            case events.NonFatalError(label=label, value=value):
                yield f"{label}: {value!r}"
            case events.FatalError(exception=exception):
                raise exception
            case _:
                pass


def find_what_is_there(case: Case, names: dict[str, str]) -> None:
    """Have a well-formed path name what exists, but for what a DELETE would take from the others."""
    path = case.meta.components.get(ParameterLocation.PATH) if case.meta else None
    if path is not None and path.mode.is_positive:
        kept = list(case.path_parameters)[: -1 if case.method == "DELETE" else None]
        taken = {name: value for name, value in case.path_parameters.items() if name not in kept}
        case.path_parameters.update({name: names[name] for name in kept})
        # By now what exists may have the uid that was drawn.
        case.path_parameters.update({name: "nobody" for name, value in taken.items() if may_be_uid(name, str(value))})


def may_be_uid(name: str, value: str) -> bool:
    return name in {"app", "endpoint", "source"} and "_" not in value


def expected(failure: Failure, case: Case, response: Response) -> bool:
    """Whether it is a refusal of what no schema forbids, or the other way round."""
    operation = str(case.operation.definition.raw["operationId"])
    match type(failure).__name__:
        case "RejectedPositiveData":
            return (operation, response.status_code) in ALSO_REFUSE or beyond_schema(response)
        case "AcceptedNegativeData":
            return operation in TAKES_ANYWAY
        case "EnsureResourceAvailability" | "UseAfterFree":
            return True  # paths name what was there before, and not what was just made or deleted
        case "AllowHeaderMismatch":
            return operation in ALLOWS
        case _:
            return False


def beyond_schema(response: Response) -> bool:
    """Whether a refusal is for what no schema says: of those in the table, and that 1.0 is not written as 1."""
    if response.status_code != 422:
        return False
    [refusal, *_] = response.json()["detail"]
    if refusal["msg"].startswith("Expected `int") and refusal["msg"].endswith("got `float`"):
        return True
    return any(tuple(refusal["loc"][: len(place)]) == place for place in BEYOND_SCHEMA)


async def test_allow_names_the_methods_of_both_servers(door: Service, registry: Registry) -> None:
    async with connected(door.url, registry.key) as client:
        answer = await client.request("DELETE", "/api/v1/app/any/msg")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD,POST")

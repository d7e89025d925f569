"""docs/asyncapi.yaml says of the broker what the code declares, takes and publishes."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel
from pamqp.commands import Queue

from libs.common.contracts.cloudevents import batch, structured
from libs.common.rabbitmq import dead_letters
from libs.common.rabbitmq.topology import Names, declare
from services.dispatcher import events
from services.ingress import wishes
from services.ingress.event_in import APPLICATION

DOCUMENT: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "docs" / "asyncapi.yaml").read_text())
MESSAGES = DOCUMENT["components"]["messages"]


class _Queue:
    """A queue of `Recorder`."""

    def __init__(self, bound_to: list[str]) -> None:
        self._bound_to = bound_to
        self.declaration_result = Queue.DeclareOk(message_count=0)

    async def bind(self, exchange: str, _routing_key: str = "") -> None:
        self._bound_to.append(exchange)


class Recorder:
    """RabbitMQ's side of a channel: keeps what is declared."""

    def __init__(self) -> None:
        self.exchanges: dict[str, dict[str, Any]] = {}
        self.queues: dict[str, dict[str, Any]] = {}

    async def declare_exchange(self, name: str, kind: ExchangeType, *, durable: bool) -> None:
        self.exchanges[name] = {"name": name, "type": kind.value, "durable": durable}

    async def declare_queue(self, name: str, *, durable: bool, arguments: dict[str, Any]) -> _Queue:
        bound_to: list[str] = []
        self.queues[name] = {"durable": durable, "arguments": arguments, "bound to": bound_to}
        return _Queue(bound_to)


@pytest.fixture
async def declared() -> Recorder:
    recorder = Recorder()
    await declare(cast("AbstractChannel", recorder), Names("hookledger"))
    return recorder


def test_every_exchange_is_described(declared: Recorder) -> None:
    bindings = [channel["bindings"]["amqp"] for channel in DOCUMENT["channels"].values()]
    described = {each["exchange"]["name"]: each["exchange"] for each in bindings if each["is"] == "routingKey"}
    assert described == declared.exchanges


def test_every_queue_is_described_with_its_arguments_and_bindings(declared: Recorder) -> None:
    described = {
        channel["address"]: {
            "durable": channel["bindings"]["amqp"]["queue"]["durable"],
            "arguments": channel["x-arguments"],
            "bound to": channel["x-bound-to"],
        }
        for channel in DOCUMENT["channels"].values()
        if channel["bindings"]["amqp"]["is"] == "queue"
    }
    assert described == declared.queues


def test_every_form_of_an_event_is_described() -> None:
    forms = {MESSAGES[name].get("contentType") for name in DOCUMENT["channels"]["publish"]["messages"]}
    assert forms == {structured.CONTENT_TYPE, batch.CONTENT_TYPE, None}  # in binary form it is that of the data
    assert MESSAGES["batchOfEvents"]["payload"]["maxItems"] == batch.MAX_EVENTS
    assert f"ce-{APPLICATION}" in MESSAGES["binaryEvent"]["headers"]["required"]


def test_what_an_event_may_ask_for_is_described_in_both_forms() -> None:
    names = {APPLICATION, wishes.CHANNELS, wishes.TAGS, wishes.ORDERING_KEY, wishes.DELIVER_AT, wishes.KEEP_HOURS}
    own = DOCUMENT["components"]["schemas"]["domainEvent"]["allOf"][1]["properties"]
    assert {name for name in own if name.startswith("hookledger")} == names
    headers = MESSAGES["binaryEvent"]["headers"]["properties"]
    assert {name for name in headers if name.startswith("ce-hookledger")} == {f"ce-{name}" for name in names}


def test_every_header_of_a_dead_letter_is_described() -> None:
    ours = {value for name, value in vars(dead_letters).items() if re.fullmatch(r"[A-Z_]+", name) and name[0] != "_"}
    assert ours <= set(MESSAGES["deadLetter"]["headers"]["properties"])


def test_every_reference_leads_somewhere() -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    for reference in references(DOCUMENT):
        place = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_type_of_an_outcome_is_described() -> None:
    described = MESSAGES["outcome"]["payload"]["allOf"][1]["properties"]["type"]["enum"]
    assert sorted(described) == sorted({*events._ENDS.values(), "delivery.succeeded", "attempt.failed"})

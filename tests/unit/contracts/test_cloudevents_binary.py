"""CloudEvents in binary form: attributes from headers of any AMQP type, data as the bytes that came."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from libs.common.contracts.cloudevents.binary import decode
from libs.common.contracts.cloudevents.event import CloudEvent, MalformedCloudEventError

ATTRIBUTES: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/orders", "type": "order.completed"}


def headers(prefix: str = "ce-", **changes: Any) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in (ATTRIBUTES | changes).items() if value is not ...}


def read(body: bytes = b'{"n":1}', content_type: str | None = "application/json", **changes: Any) -> CloudEvent:
    return decode(content_type, headers(**changes), body)


def test_the_specifications_example_is_read() -> None:
    """AMQP Protocol Binding, section 3.1.4: an order with attributes and extensions as application properties."""
    event = decode(
        "application/json; charset=utf-8",
        {
            "cloudEvents:specversion": "1.0",
            "cloudEvents:type": "com.example.someevent",
            "cloudEvents:time": "2018-04-05T03:56:24Z",
            "cloudEvents:id": "1234-1234-1234",
            "cloudEvents:source": "/mycontext/subcontext",
        },
        b'{"appinfoA": "abc", "appinfoB": 123 }',
    )
    assert (event.id, event.source, event.type) == ("1234-1234-1234", "/mycontext/subcontext", "com.example.someevent")
    assert event.time == datetime(2018, 4, 5, 3, 56, 24, tzinfo=UTC)
    assert event.data == b'{"appinfoA": "abc", "appinfoB": 123 }'
    assert event.datacontenttype == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    "prefix", ["ce-", "CE-", "Ce-", "cloudEvents:", "cloudevents:", "cloudEvents_", "CLOUDEVENTS_"]
)
def test_each_prefix_is_known_in_any_case(prefix: str) -> None:
    event = decode("application/json", headers(prefix, hookledgerapp="app_1"), b"1")
    assert (event.id, event.extensions) == ("1", {"hookledgerapp": "app_1"})


def test_other_headers_are_passed_over() -> None:
    event = decode("application/json", headers() | {"x-trace": "1", "cell": "2", "subject": "3"}, b"1")
    assert (event.subject, event.extensions) == (None, {})


@pytest.mark.parametrize("data", [b"\x89PNG\0", b"\xff\xfe", b"<a/>", b" spaces \r\n"])
def test_data_that_are_not_json_are_the_bodys_bytes_whatever_they_are(data: bytes) -> None:
    event = read(data, "image/png")
    assert (event.data, event.datacontenttype) == (data, "image/png")


def test_json_data_keep_their_bytes() -> None:
    data = b'{ "z" :1.0 ,\n "a": "\\u00e9" }'
    assert read(data).data == data
    assert read(data, None).data == data


def test_an_empty_body_is_no_data() -> None:
    assert read(b"").data is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (-7, "-7"),
        (b"text", "text"),
        (bytearray("zoë".encode()), "zoë"),
        (datetime(2026, 8, 21, 10, tzinfo=UTC), "2026-08-21T10:00:00Z"),
        (datetime(2026, 8, 21, 12, tzinfo=timezone(timedelta(hours=2))), "2026-08-21T10:00:00Z"),
        (datetime(2026, 8, 21, 10), "2026-08-21T10:00:00Z"),  # noqa: DTZ001  as some clients hand AMQP's over
    ],
)
def test_a_value_of_another_type_is_written_as_cloudevents_writes_it(value: Any, text: str) -> None:
    assert read(more=value).extensions == {"more": text}


def test_the_time_may_be_a_timestamp_and_an_id_a_number() -> None:
    event = read(time=datetime(2026, 8, 21, 10, tzinfo=UTC), id=4711)
    assert (event.time, event.id) == (datetime(2026, 8, 21, 10, tzinfo=UTC), "4711")


def test_a_header_without_a_value_is_absent() -> None:
    assert read(subject=None, more=None).subject is None


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "no version": (headers(specversion=...), "specversion"),
    "another version": (headers(specversion="0.3"), "specversion"),
    "a version that is a number": (headers(specversion=1.0), "specversion"),
    "no id": (headers(id=...), "id is missing"),
    "an empty id": (headers(id=""), "id is not a text"),
    "no source": (headers(source=None), "source is missing"),
    "no type": (headers(type=...), "type is missing"),
    "a time that is none": (headers(time="yesterday"), "time is not"),
    "the same attribute in two spellings": (headers() | {"cloudEvents:id": "1"}, "id is there twice"),
    "the same attribute in two cases": (headers() | {"CE-ID": "2"}, "id is there twice"),
    "a content type of its own": (headers(datacontenttype="text/plain"), "datacontenttype is no header"),
    "data in a header": (headers(data="1"), "data is no header"),
    "bytes that are no text": (headers(source=b"\xff"), "source is not text in UTF-8"),
    "a fraction": (headers(more=1.5), "more is not a text"),
    "a decimal": (headers(more=Decimal(1)), "more is not a text"),
    "a table": (headers(more={"a": 1}), "more is not a text"),
    "a list": (headers(more=[1]), "more is not a text"),
    "a name that no extension has": (headers(**{"my-app": "1"}), "extension's name"),
    "a name that is too long": (headers() | {"ce-" + "x" * 300: 1.5}, "^the attribute x{64} is"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_with_its_reason(name: str) -> None:
    malformed, said = MALFORMED[name]
    with pytest.raises(MalformedCloudEventError, match=said):
        decode("application/json", malformed, b"1")


@pytest.mark.parametrize("content_type", [None, "application/json", "application/vnd.acme+json"])
@pytest.mark.parametrize("data", [b"{", b'{"a":1,"a":2}', b"NaN", b"1,2", b"\xff"])
def test_data_that_are_said_to_be_json_must_be(content_type: str | None, data: bytes) -> None:
    with pytest.raises(MalformedCloudEventError, match="not the JSON"):
        read(data, content_type)


def test_json_in_another_charset_is_refused() -> None:
    with pytest.raises(MalformedCloudEventError, match="charset"):
        read(b"1", "application/json; charset=utf-16")

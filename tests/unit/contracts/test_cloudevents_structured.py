"""CloudEvents 1.0 in structured JSON: read with exact bytes, written with exact bytes, refused with a reason."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from libs.common.contracts.cloudevents.event import CloudEvent, MalformedCloudEventError
from libs.common.contracts.cloudevents.structured import decode, encode

AT = datetime(2026, 8, 21, 10, 0, 0, 123456, tzinfo=UTC)
EVENT: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/orders", "type": "order.completed"}


def spelled(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in (EVENT | changes).items() if value is not ...}).encode()


def read(body: bytes) -> CloudEvent:
    return decode(body)


def written(**changes: Any) -> bytes:
    event: dict[str, Any] = {
        "id": "1",
        "source": "/orders",
        "type": "order.completed",
        "time": AT,
        "data": b'{"n":1}',
        "datacontenttype": "application/json",
        "subject": None,
        "extensions": {},
    }
    return encode(**event | changes)


# Reading


def test_the_required_attributes_are_enough() -> None:
    event = read(spelled())
    assert (event.id, event.source, event.type) == ("1", "/orders", "order.completed")
    assert (event.time, event.data, event.datacontenttype, event.subject) == (None, None, None, None)
    assert event.extensions == {}


def test_all_attributes_are_read() -> None:
    event = read(
        spelled(
            time="2026-08-21T12:00:00.5+02:00", subject="s", dataschema="d", datacontenttype="text/xml", data="<a/>"
        )
    )
    assert event.time == datetime(2026, 8, 21, 10, 0, 0, 500_000, tzinfo=UTC)
    assert (event.subject, event.dataschema, event.datacontenttype) == ("s", "d", "text/xml")


@pytest.mark.parametrize(
    "data",
    [b'{ "z" :1.0 ,\n "a": "\\u00e9" }', b"[1, 2 ]", b'"text"', b"1e2", b"null", b"false", b'{"data":{"data":1}}'],
)
def test_json_data_is_the_slice_that_came(data: bytes) -> None:
    body = spelled()[:-1] + b', "data"  :  ' + data + b'  , "subject":"s"}'
    assert read(body).data == data


def test_text_of_another_content_type_is_its_characters() -> None:
    assert read(spelled(datacontenttype="text/plain", data="zoë\n")).data == "zoë\n".encode()


def test_json_of_another_content_type_stays_json() -> None:
    assert read(spelled(datacontenttype="text/plain", data={"a": 1})).data == b'{"a": 1}'


@pytest.mark.parametrize("content_type", [None, "application/json; charset=utf-8", "application/vnd.acme+json"])
def test_a_json_text_of_a_json_content_type_keeps_its_quotes(content_type: str | None) -> None:
    assert read(spelled(datacontenttype=content_type, data="a")).data == b'"a"'


def test_base64_data_is_its_bytes() -> None:
    assert read(spelled(datacontenttype="image/png", data_base64="iVBORwA=")).data == b"\x89PNG\0"


def test_extensions_are_texts_as_cloudevents_writes_them() -> None:
    event = read(spelled(hookledgerapp="app_1", number=-7, yes=True, no=False, absent=None))
    assert event.extensions == {"hookledgerapp": "app_1", "number": "-7", "yes": "true", "no": "false"}


MALFORMED: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{", "not valid JSON"),
    "a list": (b"[]", "not a JSON object"),
    "a batch": (b"[" + spelled() + b"]", "not a JSON object"),
    "duplicate keys": (b'{"id":"1",' + spelled()[1:], "same key twice"),
    "duplicate keys in the data": (spelled()[:-1] + b',"data":{"a":1,"a":2}}', "same key twice"),
    "NaN": (spelled()[:-1] + b',"data":NaN}', "not valid JSON"),
    "no version": (spelled(specversion=...), "specversion"),
    "another version": (spelled(specversion="0.3"), "specversion"),
    "a version that is a number": (spelled(specversion=1.0), "specversion"),
    "no id": (spelled(id=...), "id is missing"),
    "an empty id": (spelled(id=""), "id is not a text"),
    "an id that is a number": (spelled(id=1), "id is not a text"),
    "no source": (spelled(source=None), "source is missing"),
    "no type": (spelled(type=...), "type is missing"),
    "a time without zone": (spelled(time="2026-08-21T10:00:00"), "time is not"),
    "a time that is none": (spelled(time="yesterday"), "time is not"),
    "a time that is a number": (spelled(time=1), "time is not"),
    "both kinds of data": (spelled(data=1, data_base64="AA=="), "both"),
    "bad base64": (spelled(data_base64="A"), "not base64"),
    "base64 that is a number": (spelled(data_base64=1), "not base64"),
    "base64 that is not ASCII": (spelled(data_base64="é"), "not base64"),
    "a name in upper case": (spelled(hookledgerApp="a"), "name"),
    "an extension that is an object": (spelled(thing={}), "thing"),
    "an extension that is a fraction": (spelled(thing=1.5), "thing"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_with_its_reason(name: str) -> None:
    body, said = MALFORMED[name]
    with pytest.raises(MalformedCloudEventError, match=said):
        read(body)


def test_the_reason_does_not_quote_the_content() -> None:
    with pytest.raises(MalformedCloudEventError) as caught:
        read(b'{"sesame": "sesame" "')
    assert "sesame" not in str(caught.value)


# Writing


def test_what_is_written_reads_back() -> None:
    event = read(written(subject="s", extensions={"hookledgerapp": "app_1"}))
    assert (event.id, event.source, event.type, event.time) == ("1", "/orders", "order.completed", AT)
    assert (event.subject, event.extensions) == ("s", {"hookledgerapp": "app_1"})
    assert event.data == b'{"n":1}'


def test_json_is_embedded_byte_for_byte() -> None:
    data = b'{ "z" :1.0 ,\n "a": "\\u00e9" }'
    body = written(data=data)
    assert b'"data":' + data in body
    assert read(body).data == data


def test_other_content_is_written_in_base64() -> None:
    body = written(data=b"a=1&b=\xff", datacontenttype="application/x-www-form-urlencoded")
    assert json.loads(body)["data_base64"] == "YT0xJmI9/w=="
    assert read(body).data == b"a=1&b=\xff"


def test_without_data_there_is_none() -> None:
    event = json.loads(written(data=None))
    assert "data" not in event
    assert "data_base64" not in event


def test_the_time_is_written_in_utc() -> None:
    body = written(time=AT.astimezone(timezone(timedelta(hours=2))))
    assert json.loads(body)["time"] == "2026-08-21T10:00:00.123456Z"


@pytest.mark.parametrize("name", ["id", "data", "specversion", "App", "a-b", "", "a_b"])
def test_an_extension_cannot_take_the_place_of_an_attribute(name: str) -> None:
    with pytest.raises(ValueError, match="extension"):
        written(extensions={name: "x"})

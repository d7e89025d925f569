"""Peer: what a Python team would write with Celery on RabbitMQ, and with `requests`. Run in the peers' environment.

One task for each delivery, acknowledged late, retried with backoff, and a row for each attempt in Postgres. The task's
message is persistent and confirmed, so that it is as durable as the broker makes it.

`python bench/peers/celery_sender.py COUNT URL PAYLOAD_BYTES` publishes and prints when it began; the worker is
`celery -A bench.peers.celery_sender worker`. Both take BENCH_AMQP_URL and BENCH_DATABASE_URL.
"""

import hashlib
import hmac
import json
import os
import sys
import time
import uuid

import psycopg
import requests
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_AMQP_URL"])
app.conf.update(
    task_default_queue="bench.celery",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=16,
    worker_send_task_events=False,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
)
_SECRET = bytes(24)
_kept: dict = {}


def _session() -> requests.Session:
    """Of this worker process: connections are kept."""
    if "session" not in _kept:
        _kept["session"] = requests.Session()
    return _kept["session"]


def _database() -> psycopg.Connection:
    """Of this worker process: kept, and each statement a transaction."""
    if "database" not in _kept:
        _kept["database"] = psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True)
    return _kept["database"]


@app.task(name="bench.deliver", bind=True, max_retries=5)
def deliver(self, message: str, url: str, body: str) -> None:
    """Sign, post, record the attempt; again later where it failed."""
    raw, now = body.encode(), int(time.time())
    signature = hmac.new(_SECRET, f"{message}.{now}.".encode() + raw, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{signature}",
    }
    status, failure = None, None
    try:
        status = _session().post(url, data=raw, headers=headers, timeout=10, allow_redirects=False).status_code
    except requests.RequestException as error:
        failure = type(error).__name__
    _database().execute(
        "INSERT INTO public.celery_attempt (message, url, status, failure, at) VALUES (%s, %s, %s, %s, now())",
        (message, url, status, failure),
    )
    if status is None or status >= 500:
        raise self.retry(countdown=5 * 2**self.request.retries)


def main(count: int, url: str, size: int) -> None:
    """Publish so many tasks; print when the first one began to be."""
    body = json.dumps({"filler": ""})
    body = json.dumps({"filler": "x" * (size - len(body))})
    began = time.monotonic()
    for _ in range(count):
        deliver.delay(f"celery_{uuid.uuid4()}", url, body)
    print(json.dumps({"began": began}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

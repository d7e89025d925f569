"""Receives webhooks: verifies each, takes it once, and hands it to the handler of its event type.

WEBHOOK_SECRET=whsec_... python examples/receiver.py --port 9000
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

Handler = Callable[[dict[str, Any]], None]
WEBHOOK = web.AppKey("webhook", Webhook)
SEEN: web.AppKey[dict[str, None]] = web.AppKey("seen", dict)
REMEMBERED = 100_000  # ids


def order_completed(event: dict[str, Any]) -> None:
    """Replace this by what your application does."""
    print("order completed:", event.get("data"), flush=True)


HANDLERS: dict[str, Handler] = {"order.completed": order_completed}


async def receive(request: web.Request) -> web.Response:
    """2xx means: verified, and handled now or earlier. Anything else is tried again."""
    body = await request.read()  # verify the bytes that came, before parsing them
    try:
        event = request.app[WEBHOOK].verify(body, dict(request.headers))
    except (WebhookVerificationError, ValueError):  # ValueError: the headers or the body make no sense
        return web.Response(status=401, text="not signed with our secret\n")
    # A delivery may come more than once; its id stays the same. With a database, insert the id in the transaction
    # of your handler instead, so that both are kept or neither is.
    message_id, seen = request.headers["webhook-id"], request.app[SEEN]
    if message_id not in seen:
        handler = HANDLERS.get(str(event.get("type"))) if isinstance(event, dict) else None
        if handler:
            handler(event)  # if this raises, the answer is 500, and the delivery comes again
        seen[message_id] = None
        if len(seen) > REMEMBERED:
            del seen[next(iter(seen))]
    return web.Response(status=204)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Receives webhooks; the secret is in WEBHOOK_SECRET.")
    parser.add_argument("--port", type=int, default=9000)
    app = web.Application(client_max_size=2 * 1024 * 1024)  # Hookledger's bodies are 1 MiB at most
    app[WEBHOOK], app[SEEN] = Webhook(os.environ["WEBHOOK_SECRET"]), {}
    app.router.add_post("/", receive)
    web.run_app(app, host="127.0.0.1", port=parser.parse_args().port)

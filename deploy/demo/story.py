"""What happens in the demo, in its order."""

import asyncio
import json
import time
from typing import Final

import aio_pika
import aiohttp

from deploy.demo import senders
from deploy.demo.api import Answer, Api
from deploy.demo.errors import DemoError
from deploy.demo.evidence import SCHEDULE, TERMINAL, Delivery, Evidence, read_attempts
from deploy.demo.receivers import Inbox, Receivers, receiving
from deploy.demo.report import say
from deploy.demo.senders import Sent
from deploy.stack.errors import StackError
from deploy.stack.installation import Installation
from deploy.stack.services import Service
from examples.producer import cloud_event, publish

_HOLD_SECONDS: Final = 15.0
_END_SECONDS: Final = 40.0
_POLL_SECONDS: Final = 0.1


async def tell(installation: Installation, services: dict[str, Service], key: str) -> Evidence:
    """Send, kill, restart, wait until everything has come to its end, and collect what all sides saw.

    Raises:
        DemoError: a step failed, or the end did not come in time.
        StackError: a service did not start again.
    """
    async with receiving() as receivers, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        api = Api(session, services["ingress"].url, key)
        return await _Story(installation, services["dispatcher"], api, receivers).run()


class _Story:
    def __init__(self, installation: Installation, dispatcher: Service, api: Api, receivers: Receivers) -> None:
        self._installation = installation
        self._dispatcher = dispatcher
        self._api = api
        self._receivers = receivers
        self._sent: list[Sent] = []
        self._app = ""
        self._stripe = ""
        self._github = ""
        self._endpoints: dict[str, Inbox] = {}

    async def run(self) -> Evidence:
        await self._register()
        self._accepted("Stripe", "payment_intent.succeeded", senders.PAYMENT, await self._send_payment())
        self._accepted("GitHub", "push", senders.PUSH, await self._send_push())
        await self._kill()
        await self._send_order()
        await self._publish_shipment()
        duplicate = await self._send_duplicate()
        forged = await self._send_forged()
        await self._start_again()
        await self._wait_for_the_end()
        return await self._collect(duplicate, forged)

    async def _register(self) -> None:
        self._app = (await self._api.create("/app", {"name": "Demo shop"})).id
        for inbox in self._receivers.all:
            endpoint = {"url": self._receivers.url(inbox), "description": inbox.name, "retrySchedule": SCHEDULE}
            if inbox is self._receivers.x_webhook:
                endpoint["profile"] = "x-webhook"
            identity = (await self._api.create(f"/app/{self._app}/endpoint", endpoint)).id
            inbox.secret = (await self._api.get(f"/app/{self._app}/endpoint/{identity}/secret"))["key"]
            self._endpoints[identity] = inbox
        self._stripe = await self._create_source("stripe", senders.STRIPE_SECRET)
        self._github = await self._create_source("github", senders.GITHUB_SECRET)
        say("created an application, a Stripe source, a GitHub source and four endpoints, each retrying after")
        say(f"  {', '.join(f'{wait:g}' for wait in SCHEDULE)} s: verified, x-webhook, flaky (fails twice), down")

    async def _create_source(self, provider: str, secret: str) -> str:
        source = {"name": provider, "provider": provider, "secret": secret}
        return (await self._api.create(f"/app/{self._app}/source", source)).id

    async def _send_payment(self) -> Answer:
        return await self._api.post(f"/in/{self._stripe}", senders.PAYMENT, senders.stripe_headers(senders.PAYMENT))

    async def _send_push(self) -> Answer:
        return await self._api.post(f"/in/{self._github}", senders.PUSH, senders.github_headers(senders.PUSH, "push"))

    def _accepted(self, who: str, event_type: str, payload: bytes, answer: Answer) -> None:
        if not 200 <= answer.status < 300:
            raise DemoError(f"{who}'s {event_type} was answered {answer.status}: {answer.body[:300]!r}")
        self._sent.append(Sent(event_type=event_type, payload=payload, id=answer.id))
        say(f"{who} sent {event_type}: {answer.status}, {answer.id}")

    async def _kill(self) -> None:
        """Kill the dispatcher when one receiver has a request in hand that is not answered yet."""
        try:
            async with asyncio.timeout(_HOLD_SECONDS):
                await self._receivers.held.wait()
        except TimeoutError:
            raise DemoError(f"no delivery was attempted within {_HOLD_SECONDS:.0f} s") from None
        await asyncio.to_thread(self._dispatcher.kill)
        self._receivers.released.set()
        say("killed the dispatcher with SIGKILL, in the middle of a delivery")

    async def _send_order(self) -> None:
        answer = await self._api.send(self._app, "order.completed", senders.ORDER)
        self._sent.append(Sent(event_type="order.completed", payload=senders.ORDER, id=answer.id))
        say(f"the API took order.completed all the same: {answer.status}, {answer.id}")

    async def _publish_shipment(self) -> None:
        corner = self._installation.corner
        event = cloud_event(self._app, "shipment.sent", senders.SHIPMENT)
        try:
            await publish(corner.amqp_url, f"{corner.amqp_prefix}.publish", event)
        except (OSError, TimeoutError, aio_pika.exceptions.AMQPError) as error:
            raise DemoError(f"the broker did not take shipment.sent: {error or 'no answer in time'}") from error
        payload = json.dumps(senders.SHIPMENT).encode()
        self._sent.append(Sent(event_type="shipment.sent", payload=payload, id=None))
        say("a service published shipment.sent straight to the broker: confirmed")

    async def _send_duplicate(self) -> Answer:
        answer = await self._send_payment()
        known = (
            "the first id again" if answer.status < 300 and answer.id == self._sent[0].id else "and not the first id"
        )
        say(f"Stripe sent payment_intent.succeeded a second time: {answer.status}, {known}")
        return answer

    async def _send_forged(self) -> Answer:
        forged = senders.stripe_headers(senders.PAYMENT, secret="whsec_somebody-elses")  # noqa: S106 - a wrong one
        answer = await self._api.post(f"/in/{self._stripe}", senders.PAYMENT, forged)
        say(f"somebody sent a payment with a forged signature: {answer.status}")
        return answer

    async def _start_again(self) -> None:
        self._dispatcher.start()
        await asyncio.to_thread(self._dispatcher.wait_ready)
        say("started the dispatcher again; the dead one's lease on what it had in flight lasts 5 s")

    async def _wait_for_the_end(self) -> None:
        began = time.monotonic()
        expected = len(self._sent) * len(self._endpoints)
        over = 0
        while time.monotonic() - began < _END_SECONDS:
            deliveries = await self._api.list(f"/app/{self._app}/delivery")
            over = sum(delivery["status"] in TERMINAL for delivery in deliveries)
            if len(deliveries) == over == expected:
                say(f"all {expected} deliveries have come to their end  {time.monotonic() - began:.1f} s")
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoError(f"after {_END_SECONDS:.0f} s {over} of {expected} deliveries had come to their end")

    async def _collect(self, duplicate: Answer, forged: Answer) -> Evidence:
        messages = await self._api.list(f"/app/{self._app}/msg")
        rejected = await self._api.list(f"/app/{self._app}/rejected")
        deliveries = [await self._delivery(delivery) for delivery in await self._api.list(f"/app/{self._app}/delivery")]
        order = sorted(message["id"] for message in messages)  # ids sort by time
        receivers = [inbox.name for inbox in self._receivers.all]
        deliveries.sort(key=lambda each: (order.index(each.message), receivers.index(each.receiver)))
        return Evidence(
            sent=self._sent,
            duplicate=duplicate,
            forged=forged,
            inboxes=self._receivers.all,
            messages=order,
            deliveries=deliveries,
            rejected=len(rejected),
            verified=await self._verify(),
        )

    async def _delivery(self, found: dict[str, str]) -> Delivery:
        facts = await self._api.get(f"/app/{self._app}/delivery/{found['id']}/ledger")
        return Delivery(
            message=found["messageId"],
            event_type=found["eventType"],
            receiver=self._endpoints[found["endpointId"]].name,
            status=found["status"],
            attempts=read_attempts(facts["data"]),
        )

    async def _verify(self) -> tuple[str, bool]:
        try:
            said = await asyncio.to_thread(self._installation.admin, "verify")
        except StackError as error:
            return str(error), False
        last = said.splitlines()[-1] if said else ""
        return last, last.startswith("ledger: verified")

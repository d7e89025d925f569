"""Messages that are published by plain requests (`libs.common.runtime.express`): what `messages` does, without waiting.

Taken is only what is to be accepted by all that this replica knows in memory. Whatever is to be asked, waited for or
refused before it could be committed goes the whole way: there it is judged anew, and nothing has happened here.
"""

import asyncio
import re
from typing import Final

from msgspec import Struct

from libs.common.contracts.credentials import bearer, hash_key, is_token
from libs.common.domain.message import MAX_BODY_BYTES
from libs.common.postgres.key_use import KeyUse
from libs.common.runtime.clock import now
from libs.common.runtime.express import Head
from libs.common.runtime.http import ApiError, Reply
from services.ingress import message_in
from services.ingress.accept import Acceptor, UnavailableError, UnstorableError
from services.ingress.candidate import Acceptance, Candidate, Violating
from services.ingress.directory import Directory
from services.ingress.message_in import MessageIn
from services.ingress.messages import IDEMPOTENCY_KEY, claim_of, count, reply_to, unstorable
from services.ingress.publication import Publication
from services.ingress.throttle import Throttle

# An id or a uid that is spelled as it is: nothing encoded, and no segment that a reader of URLs could take out.
_TARGET: Final = re.compile(
    r"/api/v1/app/(?P<app>[A-Za-z0-9_-][A-Za-z0-9_.-]{0,255})/msg/?(?:\?with_content=(?P<with_content>true|false))?"
)
_IDEMPOTENCY_KEY: Final = IDEMPOTENCY_KEY.lower()


class PlainMessages:
    """Takes what `POST /api/v1/app/{app}/msg` brings."""

    def __init__(self, acceptor: Acceptor, directory: Directory, throttle: Throttle, key_use: KeyUse) -> None:
        self._acceptor = acceptor
        self._directory = directory
        self._throttle = throttle
        self._key_use = key_use

    def take(self, head: Head, body: bytes) -> "Waiting | TurnedAway | None":
        """Have a message accepted that nothing speaks against; None for anything else, and nothing has happened."""
        target = _TARGET.fullmatch(head.target)
        if target is None or len(body) > MAX_BODY_BYTES:
            return None
        try:
            return self._take(head, body, target["app"], with_content=target["with_content"] != "false")
        except ApiError:
            return None

    def _take(self, head: Head, body: bytes, named: str, *, with_content: bool) -> "Waiting | TurnedAway | None":
        text = bearer(head.fields.get("authorization"))
        if text is None or is_token(text):
            return None
        digest = hash_key(text)
        key = self._directory.known_key(digest)
        app = self._directory.application(key.org, named)
        if app is None:
            return None
        given = head.fields.get(_IDEMPOTENCY_KEY)
        claims = [] if given is None else [claim_of(given, key, head.path, app.id, body)]
        message = message_in.parse(body, now)
        publication = Publication(directory=self._directory, key_hash=digest, app=app)
        candidate = self._acceptor.judge(publication.candidate(message, *claims))
        if candidate.finding.enforced or not self._throttle.spend_at_once(key, app):
            return None
        self._key_use.note(key.id)
        try:
            future = self._acceptor.put(candidate)
        except UnavailableError as error:
            return TurnedAway(error)
        return Waiting(self._acceptor, candidate, message, with_content, future)


class Waiting(Struct, frozen=True):
    """A message that waits for its commit."""

    acceptor: Acceptor
    candidate: Candidate
    message: MessageIn
    with_content: bool
    future: "asyncio.Future[list[Acceptance]]"

    def reply(self) -> Reply | None:
        """What its sender hears; None where the registry has changed so that there is more to ask.

        Raises:
            ApiError: it was refused.
            UnavailableError: Postgres does not answer.
        """
        try:
            acceptance = self.acceptor.outcome(self.candidate, self.future)
            if isinstance(acceptance, Violating):
                return None
            return reply_to(acceptance, self.message, with_content=self.with_content)
        except UnstorableError as error:
            refusal = unstorable(error)
            count(refusal)
            raise refusal from error
        except ApiError as refusal:
            count(refusal)
            raise


class TurnedAway(Struct, frozen=True):
    """A message for which there is no room."""

    error: UnavailableError

    @property
    def future(self) -> "asyncio.Future[None]":
        """Has failed already."""
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(self.error)
        return failed

    def reply(self) -> Reply:
        """Never.

        Raises:
            UnavailableError: always.
        """
        raise self.error

"""Writes deploy/rabbitmq/permissions.json, what each of the broker's users may do: `python -m deploy.broker_users`.

Passwords are not in it: it can be imported again at any time, and nobody is locked out. deploy/rabbitmq/start.sh makes
the users, for compose and for Kubernetes in development; an operator's own RabbitMQ gets them by `rabbitmqctl`.

RabbitMQ asks for `configure` of what is declared, for `write` of an exchange that is published to, of a queue that is
bound and of an exchange that dead letters go to, and for `read` of a queue that is consumed from and of an exchange
that a queue is bound to.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from libs.common.rabbitmq.topology import Names

FILE: Final = Path(__file__).parent / "rabbitmq" / "permissions.json"
_OWN_QUEUE: Final = r"amq\.gen-.*"
"""A process's own queue, for the registry's announcements: nobody else can use it, since it is exclusive."""
_DEFAULT_EXCHANGE: Final = r"amq\.default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Regular expressions, each for a whole name."""

    configure: str
    write: str
    read: str


def users(names: Names) -> dict[str, Permissions]:
    """What each user may do, by its name."""
    declared_by_all = (names.dead, names.registry)
    return {
        "hookledger-ingress": _allowed(
            configure=(*declared_by_all, names.publish, names.publish_queue, names.redrive, names.messages),
            write=(names.dead, names.publish_queue, names.messages),
            read=(names.dead, names.publish, names.publish_queue, names.redrive, names.registry),
            listens=True,
        ),
        "hookledger-dispatcher": _allowed(
            configure=(*declared_by_all, names.messages, names.messages_queue, names.deliveries, names.accepted),
            write=(names.dead, names.messages_queue, names.deliveries, names.accepted),
            read=(names.dead, names.messages, names.messages_queue, names.registry),
            listens=True,
        ),
        "hookledger-registry": _allowed(
            configure=declared_by_all,
            write=(names.dead, names.registry),
            read=(names.dead,),
        ),
        # `hookledger dead-letter`: sends again by the exchange for it, or straight to the queue.
        "hookledger-operator": Permissions(
            configure="^$", write=_any((names.redrive,), _DEFAULT_EXCHANGE), read=_any((names.dead,))
        ),
        # One for each team that publishes: its name is what `organisation create --amqp-user` is told.
        "hookledger-producer": Permissions(configure="^$", write=_any((names.publish,)), read="^$"),
    }


def permissions(names: Names, vhost: str = "/") -> dict[str, Any]:
    """A file for `rabbitmqctl import_definitions`, which wants the users to be there."""
    return {
        "permissions": [
            {"user": name, "vhost": vhost, "configure": one.configure, "write": one.write, "read": one.read}
            for name, one in users(names).items()
        ],
    }


def text() -> str:
    """The file's content."""
    return json.dumps(permissions(Names("hookledger")), indent=2) + "\n"


def main(words: Sequence[str]) -> int:
    """Write the file; with `--check` only compare, and return 1 where it is stale."""
    if "--check" in words:
        if FILE.exists() and FILE.read_text(encoding="utf-8") == text():
            return 0
        print("broker users: deploy/rabbitmq/permissions.json is stale: run `make configuration`", file=sys.stderr)
        return 1
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")
    return 0


def _allowed(
    *, configure: Iterable[str], write: Iterable[str], read: Iterable[str], listens: bool = False
) -> Permissions:
    own = (_OWN_QUEUE,) if listens else ()
    return Permissions(configure=_any(configure, *own), write=_any(write, *own), read=_any(read, *own))


def _any(names: Iterable[str], *expressions: str) -> str:
    return f"^({'|'.join([*map(re.escape, names), *expressions])})$"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The limits of acceptance: how fast a key and an application may publish."""

from dataclasses import dataclass

from libs.common.contracts.registry import ApplicationDocument, RegistryObject
from services.ingress.allowances import Allowances


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Messages a second at which one key, and one application without a rate of its own, may publish; None for any."""

    key: float | None
    application: float | None


class Throttle:
    """The limits of acceptance."""

    def __init__(self, allowances: Allowances, rates: Rates) -> None:
        self._allowances = allowances
        self._rates = rates

    async def spend_key(self, key: RegistryObject, count: int = 1) -> None:
        """Count messages of an API key's.

        Raises:
            ApiError: 429.
            UnavailableError: Postgres does not answer.
        """
        if self._rates.key is not None:
            await self._allowances.spend(key.id, self._rates.key, count=count, whose="key")

    def spend_at_once(self, key: RegistryObject, app: RegistryObject) -> bool:
        """Count one message of both, if that takes no question to Postgres; whether it was counted."""
        limited = [] if self._rates.key is None else [key.id]
        if self._rate(app) is not None:
            limited.append(app.id)
        return not limited or self._allowances.spend_at_once(limited)

    async def spend_application(self, app: RegistryObject, count: int = 1) -> None:
        """Count messages for an application.

        Raises:
            ApiError: 429.
            UnavailableError: Postgres does not answer.
        """
        rate = self._rate(app)
        if rate is not None:
            await self._allowances.spend(app.id, rate, count=count, whose="application")

    def _rate(self, app: RegistryObject) -> float | None:
        assert isinstance(app.document, ApplicationDocument)
        return app.document.accept_rate or self._rates.application

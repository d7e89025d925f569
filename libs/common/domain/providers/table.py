"""The table of providers: adding one is adding a module and a row."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Final

from libs.common.domain.providers import (
    basic_auth,
    generic_hmac,
    github,
    gitlab,
    shared_token,
    shopify,
    slack,
    standard_webhooks,
    stripe,
    twilio,
)
from libs.common.domain.providers.scheme import Scheme
from libs.common.domain.providers.settings import Settings, SettingsError

NO_SETTINGS: Final = Settings()


class Provider(StrEnum):
    """Who sends to a source; the values are those of the API."""

    STRIPE = "stripe"
    GITHUB = "github"
    GITLAB = "gitlab"
    SLACK = "slack"
    SHOPIFY = "shopify"
    TWILIO = "twilio"
    STANDARD_WEBHOOKS = "standard-webhooks"
    HMAC = "hmac"
    TOKEN = "token"  # noqa: S105  a provider's name
    BASIC = "basic"


def _fixed(scheme: Scheme, settings: Settings) -> Scheme:
    for name in ("public_url", "verification"):
        if getattr(settings, name) is not None:
            raise SettingsError((name,), "it means nothing for this provider: leave it out")
    return scheme


_TABLE: Final[Mapping[Provider, Callable[[Settings], Scheme]]] = {
    Provider.STRIPE: partial(_fixed, stripe.SCHEME),
    Provider.GITHUB: partial(_fixed, github.SCHEME),
    Provider.GITLAB: partial(_fixed, gitlab.SCHEME),
    Provider.SLACK: partial(_fixed, slack.SCHEME),
    Provider.SHOPIFY: partial(_fixed, shopify.SCHEME),
    Provider.TWILIO: twilio.scheme,
    Provider.STANDARD_WEBHOOKS: partial(_fixed, standard_webhooks.SCHEME),
    Provider.HMAC: generic_hmac.scheme,
    Provider.TOKEN: shared_token.scheme,
    Provider.BASIC: basic_auth.scheme,
}


def scheme_of(provider: Provider, settings: Settings = NO_SETTINGS) -> Scheme:
    """How requests from that provider to a source with those settings are judged and read.

    Raises:
        SettingsError: the settings do not fit the provider.
    """
    return _TABLE[provider](settings)

"""What a source says of its sender, judged when it is said."""

from libs.common.contracts import configuration
from libs.common.contracts.registry import SourceDocument
from libs.common.domain.providers.scheme import Scheme
from libs.common.domain.providers.settings import SettingsError
from libs.common.runtime.http import invalid
from services.registry import secrets


def scheme(document: SourceDocument) -> Scheme:
    """The scheme that the document describes.

    Raises:
        ApiError: 422, its settings do not fit its provider.
    """
    try:
        return configuration.scheme(document)
    except SettingsError as error:
        raise invalid(["body", *map(_camel, error.place)], str(error)) from None


def secret(document: SourceDocument, text: str | None) -> tuple[str, str | None]:
    """The sender's secret, and again if it was generated.

    Raises:
        ApiError: 422, there is none, it is not such a secret, or the source's settings do not fit.
    """
    checked = scheme(document)
    if text is None and checked.generates:
        generated = secrets.generate()
        return generated, generated
    if text is None:
        raise invalid(["body", "secret"], f"{document.provider} gives the secret: pass it on", "value_error.missing")
    wrong = checked.check_secret(text)
    if wrong is not None:
        raise invalid(["body", "secret"], wrong)
    return text, None


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))

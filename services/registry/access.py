"""Who may call what: for each route, what an API key needs, and what an application token needs, if one may at all.

A route without a rule here cannot be served. An application token sees its own application and no other: to it, the
others are not there (`objects.find`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from libs.common.contracts.operations import Access, Capability
from libs.common.contracts.registry import Scope

_READ: Final = Access(scope=Scope.READ)
_ADMIN: Final = Access(scope=Scope.ADMIN)
_VIEW: Final = Access(scope=Scope.READ, capability=Capability.VIEW)
_ATTEMPT: Final = Access(scope=Scope.ADMIN, capability=Capability.CREATE_ATTEMPTS)
_TRANSFORM: Final = Access(scope=Scope.ADMIN, capability=Capability.MANAGE_TRANSFORMATIONS)
_MANAGE: Final = Access(scope=Scope.ADMIN, capability=Capability.MANAGE_ENDPOINT)

_APP: Final = "/app/{app}"
_ENDPOINT: Final = "/app/{app}/endpoint/{endpoint}"
_SOURCE: Final = "/app/{app}/source/{source}"
_MESSAGE: Final = "/app/{app}/msg/{msg}"
_EVENT_TYPE: Final = "/event-type/{name}"

ACCESS: Final[Mapping[tuple[str, str], Access]] = MappingProxyType(
    {
        ("GET", "/app"): _READ,
        ("POST", "/app"): _ADMIN,
        ("GET", _APP): _VIEW,
        ("PUT", _APP): _ADMIN,
        ("PATCH", _APP): _ADMIN,
        ("DELETE", _APP): _ADMIN,
        ("GET", "/app/{app}/endpoint"): _VIEW,
        ("POST", "/app/{app}/endpoint"): _MANAGE,
        ("GET", _ENDPOINT): _VIEW,
        ("PUT", _ENDPOINT): _MANAGE,
        ("PATCH", _ENDPOINT): _MANAGE,
        ("DELETE", _ENDPOINT): _MANAGE,
        ("GET", f"{_ENDPOINT}/secret"): Access(scope=Scope.READ, capability=Capability.VIEW_SECRET),
        ("POST", f"{_ENDPOINT}/secret/rotate"): Access(scope=Scope.ADMIN, capability=Capability.MANAGE_SECRET),
        ("GET", f"{_ENDPOINT}/stats"): _VIEW,
        ("GET", f"{_ENDPOINT}/health"): _VIEW,
        ("GET", f"{_ENDPOINT}/msg"): _VIEW,
        ("GET", f"{_ENDPOINT}/config"): _READ,
        ("GET", "/app/{app}/source"): _READ,
        ("POST", "/app/{app}/source"): _ADMIN,
        ("GET", _SOURCE): _READ,
        ("PUT", _SOURCE): _ADMIN,
        ("PATCH", _SOURCE): _ADMIN,
        ("DELETE", _SOURCE): _ADMIN,
        ("POST", f"{_SOURCE}/secret/rotate"): _ADMIN,
        ("GET", "/event-type"): _VIEW,
        ("POST", "/event-type"): _ADMIN,
        ("GET", _EVENT_TYPE): _VIEW,
        ("PUT", _EVENT_TYPE): _ADMIN,
        ("PATCH", _EVENT_TYPE): _ADMIN,
        ("DELETE", _EVENT_TYPE): _ADMIN,
        ("GET", "/app/{app}/msg"): _VIEW,
        ("GET", "/app/{app}/listen"): _READ,
        ("GET", _MESSAGE): _VIEW,
        ("GET", f"{_MESSAGE}/endpoint"): _VIEW,
        ("GET", f"{_MESSAGE}/attempt/{{attempt}}"): _VIEW,
        ("GET", "/app/{app}/attempt/endpoint/{endpoint}"): _VIEW,
        ("GET", "/app/{app}/attempt/msg/{msg}"): _VIEW,
        ("GET", "/app/{app}/delivery"): _VIEW,
        ("GET", "/app/{app}/delivery/{delivery}"): _VIEW,
        ("GET", "/app/{app}/delivery/{delivery}/ledger"): _VIEW,
        ("POST", "/app/{app}/delivery/{delivery}/skip"): _ATTEMPT,
        ("GET", "/app/{app}/rejected"): _READ,
        ("GET", "/app/{app}/rejected/{rejected}"): _READ,
        ("GET", f"{_ENDPOINT}/transformation"): _VIEW,
        ("PATCH", f"{_ENDPOINT}/transformation"): _TRANSFORM,
        ("POST", f"{_ENDPOINT}/transformation/preview"): _TRANSFORM,
        ("POST", "/event-type/import/openapi"): _ADMIN,
        ("GET", f"{_ENDPOINT}/headers"): _VIEW,
        ("PUT", f"{_ENDPOINT}/headers"): _MANAGE,
        ("PATCH", f"{_ENDPOINT}/headers"): _MANAGE,
        ("POST", f"{_ENDPOINT}/recover"): _ATTEMPT,
        ("POST", f"{_ENDPOINT}/replay-missing"): _ATTEMPT,
        ("POST", f"{_ENDPOINT}/replay"): _ATTEMPT,
        ("POST", f"{_ENDPOINT}/send-example"): _ATTEMPT,
        ("POST", f"{_MESSAGE}/endpoint/{{endpoint}}/resend"): _ATTEMPT,
        ("DELETE", f"{_MESSAGE}/content"): _ADMIN,
        ("DELETE", f"{_MESSAGE}/attempt/{{attempt}}/content"): _ADMIN,
        ("GET", "/app/{app}/job"): _VIEW,
        ("GET", "/app/{app}/job/{job}"): _VIEW,
        ("POST", "/app/{app}/job/{job}/cancel"): _ATTEMPT,
        ("GET", "/background-task/{job}"): _READ,
        ("GET", "/key"): _ADMIN,
        ("POST", "/key"): _ADMIN,
        ("GET", "/key/{key}"): _ADMIN,
        ("PATCH", "/key/{key}"): _ADMIN,
        ("DELETE", "/key/{key}"): _ADMIN,
        ("POST", "/key/{key}/rotate"): _ADMIN,
        ("GET", "/settings"): _READ,
        ("PUT", "/settings"): _ADMIN,
        ("PATCH", "/settings"): _ADMIN,
        ("GET", "/audit"): _READ,
        ("POST", "/auth/app-portal-access/{app}"): _ADMIN,
        ("POST", "/auth/dashboard-access/{app}"): _ADMIN,
        ("POST", "/auth/app/{app}/expire-all"): _ADMIN,
        ("POST", "/auth/logout"): Access(scope=None, capability=Capability.VIEW),
    }
)

"""Who looks: an operator, who is shown everything, or a tenant, who is shown its own.

Callers hold the internal token. A call that carries a principal is made for that tenant, whatever
its request asks for; one without is an operator's.
"""

from __future__ import annotations

from penstock.rpc.call import Call
from penstock.rpc.errors import denied, invalid
from penstock.service.purity import pure

TRACE_ID_DIGITS = 32


def tenant_shown(call: Call, asked: str) -> str:
    """The tenant whose data a caller is shown; empty for an operator who asks for all.

    Raises:
        Fault: PERMISSION_DENIED where a tenant asks for another's.
    """
    own = call.principal.organisation
    if own and asked not in ("", own):
        raise denied(f"tenant: only {own!r} is shown to this caller; leave it empty")
    return own or asked


def check_is_operator(call: Call) -> None:
    """Refuse tenants what is summed over all of them.

    Raises:
        Fault: PERMISSION_DENIED.
    """
    if call.principal.organisation:
        raise denied("this shows all tenants together; it is for operators only")


@pure
def may_see(call: Call, tenant: str) -> bool:
    """Whether a caller is shown what belongs to a tenant."""
    return call.principal.organisation in ("", tenant)


def check_whole_id(call: Call, trace_id: str) -> None:
    """Refuse tenants the search by the beginning of an identifier.

    Raises:
        Fault: INVALID_ARGUMENT.
    """
    if call.principal.organisation and len(trace_id) != TRACE_ID_DIGITS:
        raise invalid("trace_id", f"must be {TRACE_ID_DIGITS} hexadecimal digits")

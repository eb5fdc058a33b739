"""rtnetlink messages for traffic control: queueing disciplines, filters, ifb devices (tc(8), linux/pkt_sched.h).

Owns the encoding of the few that lading uses: a token bucket at the root of an interface, and all that an interface
receives turned to another. Sends nothing and decides nothing.
"""

from __future__ import annotations

import struct

from lading.linux.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, attr, nested, text, u32

_NEWLINK, _NEWQDISC, _NEWTFILTER = 16, 36, 44
_NLM_F_REPLACE = 0x100
_IFLA_IFNAME, _IFLA_TXQLEN, _IFLA_LINKINFO, _INFO_KIND = 3, 13, 18, 1
_IFF_UP = 1
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_LINKLAYER_ETHERNET = 1  # then no rate table is needed (net/sched/sch_tbf.c, tbf_change)
_ROOT, _INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
_INGRESS_HANDLE = 0xFFFF0000
_U32_SEL, _U32_ACT = 5, 7
_ACT_KIND, _ACT_OPTIONS, _MIRRED_PARMS = 1, 2, 2
_TC_ACT_STOLEN, _EGRESS_REDIR = 4, 1
_TC_U32_TERMINAL = 1
_ETH_P_ALL = 0x0003

_LINK = struct.Struct("=BxHiII")
_TC = struct.Struct("=BxxxiIII")
_RATE = struct.Struct("=BBHhHI")


def add_ifb(name: str, queue: int) -> Message:
    """An intermediate functional block, up: what is turned to it passes its queue and goes on where it was going."""
    body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + text(_IFLA_IFNAME, name) + u32(_IFLA_TXQLEN, queue)
    body += nested(_IFLA_LINKINFO, text(_INFO_KIND, "ifb"))
    return Message(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create ifb {name}")


def token_bucket(index: int, rate: int, burst: int, limit: int) -> Message:
    """tbf at the root, instead of any other: `rate` bytes a second, `burst` at once, `limit` waiting."""
    slow = _RATE.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, min(rate, 0xFFFFFFFF))
    parms = slow + bytes(_RATE.size) + struct.pack("=III", limit, 0, 0)
    options = attr(_TBF_PARMS, parms) + u32(_TBF_BURST, burst)
    if rate > 0xFFFFFFFF:
        options += attr(_TBF_RATE64, struct.pack("=Q", rate))
    body = _TC.pack(0, index, 0, _ROOT, 0) + text(_TCA_KIND, "tbf") + nested(_TCA_OPTIONS, options)
    return Message(_NEWQDISC, NLM_F_CREATE | _NLM_F_REPLACE, body, "limit the rate of an interface")


def ingress(index: int) -> Message:
    """The hook that filters what an interface receives."""
    body = _TC.pack(0, index, _INGRESS_HANDLE, _INGRESS, 0) + text(_TCA_KIND, "ingress")
    return Message(_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body, "filter what an interface receives")


def redirect(index: int, target: int) -> Message:
    """All that `index` receives leaves by `target` (u32 with one key that matches everything; mirred redirect)."""
    key = struct.pack("=IIii", 0, 0, 0, 0)
    selector = struct.pack("=BBBxHHHhhxxI", _TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0) + key
    mirred = struct.pack("=IIiii", 0, 0, _TC_ACT_STOLEN, 0, 0) + struct.pack("=iI", _EGRESS_REDIR, target)
    action = nested(1, text(_ACT_KIND, "mirred"), nested(_ACT_OPTIONS, attr(_MIRRED_PARMS, mirred)))
    options = attr(_U32_SEL, selector) + nested(_U32_ACT, action)
    info = 1 << 16 | struct.unpack("=H", struct.pack("!H", _ETH_P_ALL))[0]
    body = _TC.pack(0, index, 0, _INGRESS_HANDLE, info) + text(_TCA_KIND, "u32")
    return Message(
        _NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body + nested(_TCA_OPTIONS, options), "turn packets to ifb"
    )

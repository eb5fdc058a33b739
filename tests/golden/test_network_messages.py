"""The bytes that go to the kernel, spelled out from netlink(7), linux/if_link.h and
linux/netfilter/nf_tables.h.

An attribute is its length (two bytes, its own four included), its type (two bytes, 0x8000 for nested) and
its payload, padded to four. These values are little-endian: the machines lading runs on.
"""

from __future__ import annotations

import errno
import socket
import sys

import pytest

from lading.linux import netlink, netlink_conntrack, netlink_nft, netlink_route, netlink_tc

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="these bytes are a little-endian machine's")


def spelled(text: str) -> bytes:
    """Hexadecimal with comments."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


def test_attributes() -> None:
    assert netlink.text(3, "br0") == spelled("0800 0300 62723000")
    assert netlink.text(3, "eth0") == spelled("0900 0300 6574683000 000000")
    assert netlink.u8(4, 1) == spelled("0500 0400 01 000000")
    assert netlink.u32(4, 1500) == spelled("0800 0400 dc050000")
    assert netlink.be32(4, 1500) == spelled("0800 0400 000005dc")
    assert netlink.be32(2, -300) == spelled("0800 0200 fffffed4")
    assert netlink.nested(1, netlink.u8(2, 7)) == spelled("0c00 0180 0500 0200 07 000000")
    assert netlink.attributes(netlink.nested(1, netlink.u8(2, 7))) == {1: spelled("0500 0200 07 000000")}


def test_an_attribute_has_a_limit() -> None:
    assert len(netlink.attr(1, bytes(0xFFFB))) == 0x10000
    with pytest.raises(OSError) as caught:
        netlink.attr(1, bytes(0xFFFC))
    assert caught.value.errno == errno.EMSGSIZE


def test_set_up() -> None:
    message = netlink_route.set_up(1)
    assert (message.kind, message.flags) == (16, 0)  # RTM_NEWLINK
    assert message.body == spelled(
        """
        00 00 0000  # ifi_family, padding, ifi_type
        01000000    # ifi_index
        01000000    # ifi_flags: IFF_UP
        01000000    # ifi_change: IFF_UP
        """
    )


def test_a_veth_pair() -> None:
    message = netlink_route.add_veth("veth1", 1500, 7, "eth0", bytes.fromhex("024c0ad50002"), 5)
    assert (message.kind, message.flags) == (16, 0x600)  # RTM_NEWLINK, NLM_F_CREATE|NLM_F_EXCL
    assert message.body == spelled(
        """
        00 00 0000 00000000 01000000 01000000  # ifinfomsg: up
        0a00 0300 766574683100 0000            # IFLA_IFNAME
        0800 0400 dc050000                     # IFLA_MTU
        0800 0a00 07000000                     # IFLA_MASTER
        5000 1280                              # IFLA_LINKINFO
          0900 0100 7665746800 000000          #   IFLA_INFO_KIND
          4000 0280                            #   IFLA_INFO_DATA
            3c00 0180                          #     VETH_INFO_PEER
              00 00 0000 00000000 00000000 00000000
              0900 0300 6574683000 000000      #       IFLA_IFNAME
              0800 0400 dc050000               #       IFLA_MTU
              0a00 0100 024c0ad50002 0000      #       IFLA_ADDRESS
              0800 1c00 05000000               #       IFLA_NET_NS_FD
        """
    )


def test_an_address() -> None:
    message = netlink_route.add_address(2, socket.inet_aton("10.213.0.2"), 24)
    assert (message.kind, message.flags) == (20, 0x600)  # RTM_NEWADDR
    assert message.body == spelled(
        """
        02 18 00 00 02000000  # AF_INET, /24, flags, scope universe, interface
        0800 0200 0ad50002    # IFA_LOCAL
        0800 0100 0ad50002    # IFA_ADDRESS
        0800 0400 0ad500ff    # IFA_BROADCAST
        """
    )
    six = netlink_route.add_address(2, socket.inet_pton(socket.AF_INET6, "fd00::2"), 64)
    assert six.body[:8] == spelled("0a 40 02 00 02000000")  # AF_INET6, /64, IFA_F_NODAD


def test_a_default_route() -> None:
    message = netlink_route.add_default_route(2, socket.inet_aton("10.213.0.1"))
    assert (message.kind, message.flags) == (24, 0x600)  # RTM_NEWROUTE
    assert message.body == spelled(
        """
        02 00 00 00 fe 03 00 01 00000000  # AF_INET, /0, table main, boot, universe, unicast
        0800 0500 0ad50001                # RTA_GATEWAY
        0800 0400 02000000                # RTA_OIF
        """
    )


def test_an_nft_map() -> None:
    message = netlink_nft.add_set("t", "m", 3, [(12, 1), (13, 2)], [(7, 4), (13, 2)])
    assert (message.kind, message.flags) == (0x0A09, 0x400)  # NFT_MSG_NEWSET
    assert message.body == spelled(
        """
        01 00 0000          # NFPROTO_INET, version, resource
        0600 0100 7400 0000  # NFTA_SET_TABLE
        0600 0200 6d00 0000  # NFTA_SET_NAME
        0800 0300 00000008  # NFTA_SET_FLAGS: a map
        0800 0400 0000030d  # NFTA_SET_KEY_TYPE: inet_proto . inet_service
        0800 0500 00000008  # NFTA_SET_KEY_LEN: two registers
        0800 0600 000001cd  # NFTA_SET_DATA_TYPE: ipv4_addr . inet_service
        0800 0700 00000008  # NFTA_SET_DATA_LEN
        0800 0a00 00000003  # NFTA_SET_ID
        """
    )


def test_an_nft_element() -> None:
    value = netlink_nft.join(socket.inet_aton("10.213.0.2"), b"\0\x50")
    element = (netlink_nft.join(b"\x06", b"\x1f\x90"), value)
    (message,) = netlink_nft.add_elements("t", "m", [element], exclusive=True)
    assert (message.kind, message.flags) == (0x0A0C, 0x600)  # NFT_MSG_NEWSETELEM
    assert message.body == spelled(
        """
        01 00 0000
        0600 0100 7400 0000                  # NFTA_SET_ELEM_LIST_TABLE
        0600 0200 6d00 0000                  # NFTA_SET_ELEM_LIST_SET
        2800 0380                            # NFTA_SET_ELEM_LIST_ELEMENTS
          2400 0180                          #   NFTA_LIST_ELEM
            1000 0180                        #     NFTA_SET_ELEM_KEY
              0c00 0100 06000000 1f900000    #       NFTA_DATA_VALUE: tcp, port 8080
            1000 0280                        #     NFTA_SET_ELEM_DATA
              0c00 0100 0ad50002 00500000    #       NFTA_DATA_VALUE: 10.213.0.2, port 80
        """
    )


def test_an_nft_rule() -> None:
    message = netlink_nft.add_rule("t", "c", netlink_nft.meta(7, 8), netlink_nft.verdict(0))
    assert (message.kind, message.flags) == (0x0A06, 0xC00)  # NFT_MSG_NEWRULE, CREATE|APPEND
    assert message.body == spelled(
        """
        01 00 0000
        0600 0100 7400 0000            # NFTA_RULE_TABLE
        0600 0200 6300 0000            # NFTA_RULE_CHAIN
        5800 0480                      # NFTA_RULE_EXPRESSIONS
          2400 0180                    #   NFTA_LIST_ELEM
            0900 0100 6d65746100 000000
            1400 0280                  #     NFTA_EXPR_DATA
              0800 0100 00000008       #       NFTA_META_DREG
              0800 0200 00000007       #       NFTA_META_KEY: oifname
          3000 0180
            0e00 0100 696d6d65646961746500 0000
            1c00 0280
              0800 0100 00000000       #       NFTA_IMMEDIATE_DREG: the verdict
              1000 0280                #       NFTA_IMMEDIATE_DATA
                0c00 0280              #         NFTA_DATA_VERDICT
                  0800 0100 00000000   #           NF_DROP
        """
    )


def test_long_lists_go_in_pieces() -> None:
    elements = [(bytes([0, 0, number >> 8, number & 255]), b"") for number in range(600)]
    messages = list(netlink_nft.add_elements("t", "s", elements))
    assert [message.body.count(b"\x0c\x00\x01\x80") for message in messages] == [256, 256, 88]


def test_a_tracked_connection_is_read_and_named_again() -> None:
    original = spelled(
        """
        1400 0180 0800 0100 7f000001 0800 0200 7f000002         # CTA_TUPLE_IP: from 127.0.0.1 to 127.0.0.2
        1c00 0280 0500 0100 11 000000 0600 0200 9c40 0000 0600 0300 1f90 0000  # CTA_TUPLE_PROTO: udp, 8080
        """
    )
    body = spelled("02 00 0000") + netlink.nested(1, original) + netlink.u32(3, 0)
    assert netlink_conntrack.destination_of(body) == (17, b"\x7f\0\0\x02", 8080)
    message = netlink_conntrack.forget(body)
    assert (message.kind, message.body) == (0x0102, spelled("02 00 0000") + netlink.nested(1, original))


def test_a_token_bucket() -> None:
    message = netlink_tc.token_bucket(3, 1_000_000, 20_000, 120_000)
    assert (message.kind, message.flags) == (36, 0x500)  # RTM_NEWQDISC, NLM_F_CREATE|NLM_F_REPLACE
    assert message.body == spelled(
        """
        00 000000 03000000 00000000 ffffffff 00000000  # tcm_ifindex 3, tcm_parent TC_H_ROOT
        0800 0100 74626600                             # TCA_KIND "tbf"
        3400 0280                                      # TCA_OPTIONS, nested
        2800 0100                                      # TCA_TBF_PARMS
          00 01 0000 0000 0000 40420f00                # tc_ratespec: Ethernet, rate
          00 00 0000 0000 0000 00000000                # no peak rate
          c0d40100 00000000 00000000                   # limit, buffer, mtu
        0800 0600 204e0000                             # TCA_TBF_BURST
        """
    )


def test_a_rate_beyond_32_bits() -> None:
    body = netlink_tc.token_bucket(3, 1 << 33, 1, 1).body
    assert netlink.attr(4, (1 << 33).to_bytes(8, "little")) in body  # TCA_TBF_RATE64
    assert bytes.fromhex("ffffffff") in body[20:]


def test_packets_turned_to_another_interface() -> None:
    message = netlink_tc.redirect(3, 9)
    assert message.kind == 44  # RTM_NEWTFILTER
    assert message.body[:20] == spelled("00 000000 03000000 00000000 0000ffff 00030100")  # prio 1, ETH_P_ALL
    assert netlink.text(1, "u32") in message.body and netlink.text(1, "mirred") in message.body
    mirred = spelled(
        "00000000 00000000 04000000 00000000 00000000 01000000 09000000"
    )  # stolen, redirect, to 9
    assert netlink.attr(2, mirred) in message.body

"""The user at the other end of a local TCP connection, and the files that this user may open.

The kernel keeps the user of every socket; /proc/net/tcp lists it, and an inode number that is 0 once no process has the
socket any more. A user's rights to a file are computed from owner, groups and mode as the kernel does; where the groups
of a user are unknown here, or an access list extends the mode, the answer is the lesser right.

Thread: any. Source: proc(5), path_resolution(7), acl(5), user_namespaces(7). Why: docs/adr/0092.
"""

import os
import pwd
import struct
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from forebay_server.service.frontend.connections import Address

ROOT = 0
READ_WRITE = 0o6
SEARCH = 0o1
_TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
_UID, _INODE = 5, 7  # fields after the two addresses and before them the number of the line
_ACCESS_LIST = "system.posix_acl_access"


def user_of_tcp(there: Address, here: Address) -> int | None:
    """Return the uid of the process whose socket is `there`, connected to `here`; None if no process has it.

    Reads a line for each TCP socket of this network namespace: 1 ms for a thousand. Raises OSError if it cannot.
    """
    for _ in range(2):  # the kernel may skip a line when sockets come and go meanwhile
        for table, is_ipv6 in zip(_TABLES, (False, True), strict=True):
            if is_ipv6 or isinstance(there[0], IPv4Address):
                uid = _user_in(table, f" {_hex(there, is_ipv6=is_ipv6)} {_hex(here, is_ipv6=is_ipv6)} ")
                if uid is not None:
                    return known(uid)
    return None


def _user_in(table: str, addresses: str) -> int | None:
    try:
        lines = Path(table).read_text("ascii").splitlines()
    except FileNotFoundError:  # no IPv6
        return None
    for line in lines:
        if addresses in line:
            fields = line.split()[2:]
            if fields[_INODE] != "0":
                return int(fields[_UID])
    return None


def _hex(address: Address, *, is_ipv6: bool) -> str:
    """Return an address in the tables' form: 32-bit words of the network's bytes, read as this machine's numbers."""
    host, port = address
    if is_ipv6 and isinstance(host, IPv4Address):
        host = IPv6Address(f"::ffff:{host}")
    words = struct.unpack(f"={len(host.packed) // 4}I", host.packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def known(uid: int) -> int | None:
    """Return a uid, or None if it stands for all users that have no number in this process's user namespace."""
    return None if uid == _number_of_the_unknown() else uid


@cache
def _number_of_the_unknown() -> int | None:
    all_users = ["0", "0", str(2**32 - 1)]
    if Path("/proc/self/uid_map").read_text("ascii").split() == all_users:
        return None
    return int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))


def may(uid: int, rights: int, status: os.stat_result, *, has_access_list: bool = False) -> bool:
    """Whether a user has some rights to a file or folder, by its owner, group and mode.

    Args:
        uid: of the user.
        rights: bits of a mode, as for others: READ_WRITE, SEARCH.
        status: of the file.
        has_access_list: whether the file has one; then the group's bits of the mode are only its mask.
    """
    if uid == ROOT:
        return True
    if uid == status.st_uid:
        return _grants(status.st_mode >> 6, rights)
    if has_access_list:
        return False
    as_member, as_other = _grants(status.st_mode >> 3, rights), _grants(status.st_mode, rights)
    if as_member == as_other:
        return as_member
    groups = _groups_of(uid)
    return groups is not None and (as_member if status.st_gid in groups else as_other)


def has_access_list(path: str) -> bool:
    """Whether a file has an access list. Raises OSError."""
    return _ACCESS_LIST in os.listxattr(path)


def _grants(mode: int, rights: int) -> bool:
    return mode & rights == rights


def _groups_of(uid: int) -> frozenset[int] | None:
    """Return the groups of a user; None if this machine does not know the user."""
    try:
        user = pwd.getpwuid(uid)
        return frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
    except (KeyError, OSError):
        return None

"""Reading what /proc says about sockets."""

from __future__ import annotations

from apt_ostree.system import running

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 10 1 0
   1: 0100007F:1538 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0
   2: 0100007F:C350 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0
   3: 0100007F:1538 0100007F:C351 06 00000000:00000000 03:00000F00 00000000     0        0 0 3
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20 1 0
   1: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000100007F:C352 01 00000000:00000000 00:00000000 00000000     0        0 21 1 0
"""  # noqa: E501
UNIX = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 30 /run/a socket
0000000000000000: 00000003 00000000 00000000 0001 03 31 /run/a socket
0000000000000000: 00000003 00000000 00000000 0001 03 32
0000000000000000: 00000002 00000000 00000000 0002 01 33 /run/systemd/notify
0000000000000000: 00000003 00000000 00000000 0001 03 34 /run/bound-client
0000000000000000: 00000002 00000000 00010000 0001 01 35 @abstract
0000000000000000: 00000003 00000000 00000000 0001 03 36 @abstract
"""


def test_connections_to_a_port_that_is_listened_on():
    assert running.accepted_tcp(TCP + TCP6) == {11, 21}


def test_connections_to_a_name_that_is_listened_on():
    assert running.accepted_unix(UNIX) == {31, 36}

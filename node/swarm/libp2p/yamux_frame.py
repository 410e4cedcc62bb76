"""Frames of yamux: the header, its kinds and flags (https://github.com/hashicorp/yamux/blob/master/spec.md)."""

import struct

HEADER = struct.Struct("!BBHII")
"""Of every frame: version (0), kind, flags, number of the stream, and the length or another number of the kind."""
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
"""Kinds."""
SYN, ACK, FIN, RST = 1, 2, 4, 8
"""Flags."""
WINDOW = 256 * 1024
"""Bytes that each side may send on a new stream before the other side grants more, as the protocol has it."""

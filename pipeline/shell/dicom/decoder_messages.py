"""What a process and its decoder send each other: messages of facts and bytes through a socket.

A message is its length in bytes (4, big endian), a line of JSON, then bytes. Asked: a frame's pixel format, the seconds
it may take, and its codestream. Answered: `last`, whether the decoder is to be replaced, and either `error` or the
stored values as .npy.
"""

import json
import socket
import struct
from typing import Any

LENGTH = struct.Struct(">L")
CHUNK_BYTES = 1 << 20


def send(channel: socket.socket, facts: dict[str, Any], data: bytes = b"") -> None:
    """Send one message; raises OSError, TimeoutError where the channel has a timeout."""
    line = json.dumps(facts).encode() + b"\n"
    channel.sendall(LENGTH.pack(len(line) + len(data)) + line)
    channel.sendall(data)


def receive(channel: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """Return one message, None where the input ends; raises OSError, TimeoutError where the channel has a timeout."""
    head = _receive_bytes(channel, LENGTH.size)
    message = head and _receive_bytes(channel, LENGTH.unpack(head)[0])
    if not message:
        return None
    line, _, data = message.partition(b"\n")
    return json.loads(line), data


def _receive_bytes(channel: socket.socket, count: int) -> bytes:
    """Return `count` bytes, none where the input ends before."""
    data = bytearray()
    while len(data) < count:
        chunk = channel.recv(min(count - len(data), CHUNK_BYTES))
        if not chunk:
            return b""
        data += chunk
    return bytes(data)

"""What a program that opens it as a file may wait for without end: a pipe, a socket, a device."""

import os
import socket


def make_irregular(path, kind):
    """Make `path` a pipe, a socket, or a link to a device that never ends."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        before = os.getcwd()
        os.chdir(path.parent)  # the name of a socket has at most 107 bytes
        try:
            socket.socket(socket.AF_UNIX).bind(path.name)
        finally:
            os.chdir(before)
    else:
        path.symlink_to("/dev/zero")

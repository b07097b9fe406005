"""Runs a command in a terminal of its own: terminal.py PATTERN COMMAND...

When what it draws matches PATTERN, the terminal is closed, as a lost connection closes it. Prints what was drawn until
then and, last, how the command ended: its exit code, or minus the signal.
"""
import os
import pty
import re
import sys

pattern = re.compile(sys.argv[1].encode())
child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
drawn = b""
while not pattern.search(drawn):
    try:
        more = os.read(terminal, 65536)
    except OSError:  # the command ended before
        break
    drawn += more
os.close(terminal)
_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(drawn)
sys.stdout.flush()
sys.stdout.write(f"\nended: {os.waitstatus_to_exitcode(status)}\n")

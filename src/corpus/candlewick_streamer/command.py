"""The command line, and which protocol it asks for."""

from . import serve
from .speaker import Speaker


def main(arguments, started, stdout):
    """Runs the process; does not return. `stdout` is a descriptor of what was standard output."""
    options = serve.parse_arguments(arguments)
    if options.protocol == "json":
        Speaker(options, started, stdout).run()
    serve.main(options, started)

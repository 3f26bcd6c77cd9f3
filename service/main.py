"""`virtrpcd`: reads the settings, opens the state, serves until it is told to stop."""

import asyncio
import os
import sys
from importlib.metadata import version

import click

from service.logs import configure_logs
from service.settings import ENVIRONMENT_PREFIX, Settings, with_settings


@click.command(
    context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX, "max_content_width": 100}
)
@click.version_option(version("virtrpcd"))
@with_settings
def main(settings: Settings) -> None:
    """Serves the hypervisor-driver contract of this host over gRPC."""
    # gRPC's fork handlers and the subprocesses of a backend do not mix.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    configure_logs(settings.log_format, settings.log_level)
    # gRPC reads its settings when it is imported.
    from service.daemon import StartError, serve  # noqa: PLC0415

    try:
        asyncio.run(serve(settings))
    except StartError as error:
        click.echo(f"virtrpcd: {error}", err=True)
        sys.exit(1)
    sys.stderr.flush()
    # Threads that hang in a hypervisor call must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()

"""`image pull`: the host fetches an image by itself."""

from __future__ import annotations

from typing import Any

import click

from virtrpc.cli.command import Verb, mutation_options, no_wait_option
from virtrpc.cli.image_declaration import declaration, declaration_options
from virtrpc.cli.image_view import summary
from virtrpc.cli.long_running import ended
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.standard_input import token
from virtrpc.v1 import image_pb2 as messages


@click.command("pull", cls=Verb)
@click.argument("image_id", metavar="IMAGE")
@click.argument("source")
@declaration_options
@click.option(
    "--secret",
    type=click.Choice(("bearer-token", "query")),
    help="Ask for a bearer token, or the address's query; standard input in a pipe.",
)
@no_wait_option
@mutation_options
@pass_session
def pull(
    session: Session,
    /,
    *,
    image_id: str,
    source: str,
    secret: str | None,
    no_wait: bool,
    request_id: str,
    validate_only: bool,
    **declared: Any,
) -> None:
    """Fetches an image from SOURCE, a file of the host or an http(s) address."""
    request = messages.PullImageRequest(
        image_id=image_id,
        declared=declaration(**declared),
        request_id=request_id,
        validate_only=validate_only,
        **_source(source, secret),
    )
    operation = session.client.images.PullImage(request)
    end = ended(session, operation, checked=validate_only, no_wait=no_wait, words=summary)
    session.output.document(end.document, lambda: f"{image_id}: {end.text}")


def _source(source: str, secret: str | None) -> dict[str, Any]:
    if not source.startswith(("http://", "https://")):
        if secret:
            raise click.UsageError("--secret is for addresses")
        return {"file": messages.ImageFileSource(path=source.removeprefix("file://"))}
    url, _, query = source.partition("?")
    http = messages.ImageHttpSource(url=url, query=query)
    if secret is not None:
        setattr(http, secret.replace("-", "_"), token(f"The {secret}"))
    return {"http": http}

"""The verb that puts the app on a Space of one's own."""

import os
import re
from typing import Annotated

import typer

from ftapp.contract.errors import HubError
from ftapp.settings import read_settings
from ftapp.space import Space, SpaceRequest
from ftapp.terminal.output import console

NEVER = -1


def deploy(
    space: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The Space; made if it is not there.")],
    hardware: Annotated[str, typer.Option(help="What it runs on, such as t4-small, l4x1 or a100-large.")] = "l4x1",
    sleep: Annotated[
        int, typer.Option(help="Seconds without a visitor after which it sleeps, runs at work or not; -1: never.")
    ] = NEVER,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A variable of this shell to hand over as a secret; may be repeated."),
    ] = None,
) -> None:
    """Make or update a private Space that runs this app, wait until it does, and print its address. HF_TOKEN pays."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", space):
        raise HubError(f"'{space}' is not the name of a Space.", "It has the form owner/name.")
    secrets = {name: os.environ.get(name, "") for name in secret or []}
    if empty := [name for name, value in secrets.items() if not value]:
        raise HubError(f"{', '.join(empty)} is not set in this shell.", f"Set it: export {empty[0]}=…")
    request = SpaceRequest(space, hardware, sleep, secrets)
    one, out = Space(request, read_settings().hub_token), console()
    out.print(f"{space}: {'made, private' if one.create() else 'is there already'}")
    one.configure()
    out.print(f"{one.upload()} files are there")
    one.rent()
    out.print(f"Asked for {hardware}; its hours are paid by {space.split('/')[0]} from now on")
    for stage in one.stages():
        out.print(stage.lower().replace("_", " "))
    out.print(one.address())

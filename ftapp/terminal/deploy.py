"""The verb that puts the app on a Space of one's own."""

import os
import re
from typing import Annotated

import typer

from ftapp.contract.errors import HubError
from ftapp.settings import read_settings
from ftapp.space import MOUNT, Space, SpaceRequest
from ftapp.terminal.output import console


def deploy(
    space: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The Space; made if it is not there.")],
    hardware: Annotated[str, typer.Option(help="What it runs on, such as t4-small, l4x1 or a100-large.")] = "l4x1",
    bucket: Annotated[
        str | None,
        typer.Option(metavar="[OWNER/]NAME", help="Private storage that outlives restarts; made if it is not there."),
    ] = None,
    sleep: Annotated[
        int, typer.Option(help="Seconds without a visitor after which it sleeps if no job is at work; -1: never.")
    ] = 3600,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A user or organisation that may train there too; may be repeated."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Everybody may look at it; to train one signs in.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Even if that cuts off a run at work there.")] = False,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VARIABLE]",
            help="A variable of this shell to hand over as the secret NAME; VARIABLE if it is called otherwise here.",
        ),
    ] = None,
) -> None:
    """Make or update a Space that runs this app, wait until it does, and print its address. HF_TOKEN's owner pays."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", space):
        raise HubError(f"'{space}' is not the name of a Space.", "It has the form owner/name.")
    if bucket and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", bucket):
        raise HubError(f"'{bucket}' is not the name of a bucket.", "It has the form name, or owner/name.")
    if bucket and "/" not in bucket:
        bucket = f"{space.split('/')[0]}/{bucket}"
    if odd := [name for name in allow or [] if not re.fullmatch(r"[\w.-]+", name)]:
        raise HubError(f"'{odd[0]}' is not the name of a user or an organisation.", "Repeat --allow for each name.")
    pairs = [(name, variable or name) for one in secret or [] for name, _, variable in [one.partition("=")]]
    secrets = {name: os.environ.get(variable, "") for name, variable in pairs}
    if empty := [name for name, value in secrets.items() if not value]:
        # what stands behind = is not repeated: it may be the secret itself
        raise HubError(
            f"There is no variable in this shell for the secret {empty[0]}.",
            "Export it, and give its name, not its value.",
        )
    request = SpaceRequest(space, hardware, sleep, secrets, bucket, tuple(allow or ()), public, restart)
    one, out = Space(request, read_settings().hub_token), console()
    out.print(f"{space}: {'made, private' if one.create() else 'is there already'}")
    if bucket:
        out.print(f"{bucket}: {'made, private' if one.keep_in_bucket() else 'is there already'}, at {MOUNT}")
    one.configure()
    out.print(f"{one.upload()} files are there")
    one.rent()
    out.print(f"Asked for {hardware}; its hours are paid by {space.split('/')[0]} from now on")
    for stage in one.stages():
        out.print(stage.lower().replace("_", " "))
    for remark in one.lacks():
        out.print(remark)
    out.print(one.address())

"""Who asks, and what they may do: a Studio acts for one person, and every verb that changes or costs something asks."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from ftapp.contract.errors import NotAllowed

P = ParamSpec("P")
R = TypeVar("R")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
"""What an account of the Hub is called; so no name leads out of the home, and none is one of ours."""


@dataclass(frozen=True)
class Person:
    """Whoever a Studio acts for."""

    name: str
    """The name of their folder."""
    may_act: bool = True
    """Whether they may change and start things, or only look at the demo."""
    shared: bool = False
    """Whether others use the same machine, so that only what is one's own or the Hub's may be used."""


LOCAL = Person("local")
"""Whoever sits at the machine, or has its password."""
VISITOR = Person("~visitor", may_act=False, shared=True)
"""Everybody who was not let in, all alike."""


def acts(verb: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A verb of Studio that changes, starts or costs something: it raises NotAllowed for whoever may only look."""

    @functools.wraps(verb)
    def asked(studio: Any, /, *arguments: P.args, **options: P.kwargs) -> R:
        if not studio.person.may_act:
            raise NotAllowed(
                "This is a demo to look at: nothing can be changed or started in it.",
                "Sign in with an account that its owner let in, or duplicate the Space and have it to yourself.",
            )
        return verb(studio, *arguments, **options)

    asked.__dict__["acts"] = True
    return asked


def in_turn(verb: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A verb that looks how much there is before it adds to it: two at once would both find room for one."""

    @functools.wraps(verb)
    def alone(studio: Any, /, *arguments: P.args, **options: P.kwargs) -> R:
        with studio.turn:
            return verb(studio, *arguments, **options)

    return alone


@dataclass(frozen=True)
class Access:
    """Who is let in to a shared installation: names of users and organisations, in any case of letters."""

    names: frozenset[str]

    @classmethod
    def of(cls, *names: str) -> "Access":
        """The access of these."""
        return cls(frozenset(name.strip().casefold() for name in names if name.strip()))

    def lets_in(self, name: str, organisations: list[str]) -> bool:
        """Whether somebody of that name, in these organisations, may train, chat and publish."""
        return bool(self.names & {one.casefold() for one in (name, *organisations)})

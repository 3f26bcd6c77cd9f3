"""`firewall`: security groups, and which interfaces have them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import click

from virtrpc.cli.change import duration
from virtrpc.cli.command import Noun, mutation_options, timeout_option
from virtrpc.cli.long_running import CHECKED
from virtrpc.cli.naming import instance_argument, instance_id
from virtrpc.cli.rule import RULE
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.tables import Column, listing
from virtrpc.cli.words import when
from virtrpc.v1 import firewall_pb2 as messages

_HELD = "kept; in force after `firewall apply`"


@click.group(cls=Noun)
def noun() -> None:
    """Which packets of instances pass."""


@noun.command("set-group")
@click.argument("group", type=click.UUID)
@click.option("--rule", "rules", type=RULE, multiple=True,
              help="in|out,tcp=80-90,remote=CIDR|GROUP,family=ipv6, … Repeatable.")  # fmt: skip
@click.option("--member", "members", metavar="ADDRESS", multiple=True,
              help="Address of a member. Repeatable.")  # fmt: skip
@click.option(
    "--revision", type=click.IntRange(min=0), default=0, help="Its number, if it has one."
)
@click.option("--stateless", is_flag=True, help="Replies need rules of their own.")
@mutation_options
@pass_session
def set_group(
    session: Session,
    /,
    *,
    group: uuid.UUID,
    rules: Sequence[messages.SecurityGroupRule],
    members: Sequence[str],
    revision: int,
    stateless: bool,
    **common: Any,
) -> None:
    """Gives a security group these rules and members in place of its former ones."""
    made = messages.SecurityGroup(
        security_group_id=str(group),
        rules=rules,
        member_addresses=members,
        revision=revision,
        stateless=stateless,
    )
    request = messages.RefreshSecurityGroupRequest(security_group=made, **common)
    response = session.client.firewall.RefreshSecurityGroup(request)
    session.output.document(response, lambda: CHECKED if request.validate_only else _told(response))


def _told(response: messages.RefreshSecurityGroupResponse) -> str:
    if response.superseded:
        return "a newer revision is known: nothing was changed"
    concerned = "".join(f"\n{instance}" for instance in response.instance_ids)
    return (_HELD if response.deferred else "in force") + concerned


@noun.command("set-interface")
@instance_argument
@click.argument("port", type=click.UUID)
@click.argument("groups", type=click.UUID, nargs=-1)
@click.option("--unfiltered", is_flag=True, help="No groups, and everything passes.")
@mutation_options
@pass_session
def set_interface(
    session: Session,
    /,
    *,
    instance: str,
    port: uuid.UUID,
    groups: Sequence[uuid.UUID],
    unfiltered: bool,
    **common: Any,
) -> None:
    """Says which groups an interface has; without any nothing passes it."""
    request = messages.RefreshInstanceSecurityRulesRequest(
        instance_id=instance_id(session.client, instance), **common
    )
    request.interfaces.add(
        port_id=str(port), security_group_ids=[str(g) for g in groups], unfiltered=unfiltered
    )
    response = session.client.firewall.RefreshInstanceSecurityRules(request)
    told = _HELD if response.deferred else "in force"
    session.output.document(response, lambda: CHECKED if request.validate_only else told)


@noun.command("ensure")
@instance_argument
@timeout_option("How long the kernel may take.  [default: 30]")
@mutation_options
@pass_session
def ensure(session: Session, /, *, instance: str, timeout_s: float | None, **common: Any) -> None:
    """Returns when an instance's rules are really in the kernel."""
    request = messages.EnsureFilteringRulesRequest(
        instance_id=instance_id(session.client, instance), timeout=duration(timeout_s), **common
    )
    response = session.client.firewall.EnsureFilteringRules(request)
    columns = (
        Column("PORT", whole=True), Column("DEVICE", whole=True),
        Column("RULES", right=True), Column("GROUPS"), Column("UNKNOWN GROUPS"),
    )  # fmt: skip
    rows = [
        (
            found.port_id,
            found.host_device,
            str(found.rule_count),
            ", ".join(found.security_group_ids),
            ", ".join(found.unknown_group_ids),
        )
        for found in response.interfaces
    ]
    checked = request.validate_only
    session.output.document(response, lambda: CHECKED if checked else listing(columns, rows))


@noun.command("unfilter")
@instance_argument
@mutation_options
@pass_session
def unfilter(session: Session, /, *, instance: str, **common: Any) -> None:
    """Removes the rules of an instance that has left the host."""
    request = messages.UnfilterInstanceRequest(
        instance_id=instance_id(session.client, instance), **common
    )
    response = session.client.firewall.UnfilterInstance(request)
    told = "there were no rules" if response.already_gone else "removed"
    session.output.document(response, lambda: CHECKED if request.validate_only else told)


@noun.command("defer")
@timeout_option("After how long they are applied anyway.  [default: 60]")
@mutation_options
@pass_session
def defer(session: Session, /, *, timeout_s: float | None, **common: Any) -> None:
    """Holds changes of rules back until they are applied together."""
    request = messages.DeferFilteringRequest(timeout=duration(timeout_s), **common)
    response = session.client.firewall.DeferFiltering(request)
    told = f"held back until {when(response.apply_at)}"
    session.output.document(response, lambda: CHECKED if request.validate_only else told)


@noun.command("apply")
@mutation_options
@pass_session
def apply(session: Session, /, **common: Any) -> None:
    """Applies all changes that were held back."""
    request = messages.ApplyFilteringRequest(**common)
    response = session.client.firewall.ApplyFiltering(request)
    told = "\n".join(["in force", *response.instance_ids])
    session.output.document(response, lambda: CHECKED if request.validate_only else told)

"""Writes docs/api, the reference of the contract, and says whether it is stale.

A page for each .proto file: its RPCs with what their options say and the messages
that are theirs alone, then what RPCs share. Comments are the text; nothing is
said here that the .proto files do not say.

    python protos/reference.py            write the pages
    python protos/reference.py --check    exit 1 when they are stale
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import prose
from contract import PACKAGE, Contract, ContractFile, Declared, load
from generate import ROOT, stale
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from rules import in_words

PAGES = ROOT / "docs" / "api"
INDEX = "README"
FIRST = "instance"
# Fields of every mutation: told once, on the first page.
COMMON_FIELDS = ("request_id", "validate_only")
KINDS = {
    "read": "read: changes nothing",
    "mutation": "mutation: replies when it is done",
    "long_running": "long-running: replies at once with the operation that does it",
    "stream": "stream",
    "control": "control: acts at once, is no operation",
}
RECOVERIES = {
    "roll_back": "rolled back; finished where it had passed its point of no return",
    "resume": "run again",
}


class Reference:
    """The pages of a contract."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract

    def pages(self) -> dict[str, str]:
        """Text of each page by its name."""
        pages = {file.name: self._page(file) for file in self._contract.files}
        return {name: f"{text}\n" for name, text in (*pages.items(), (INDEX, self._index()))}

    def _page(self, file: ContractFile) -> str:
        own = self._messages_of_rpcs(file)
        shared = [one for one in (*file.messages, *file.enums) if one.name not in own]
        parts = [f"# {title(file)}", self._text(file, file.comment)]
        for service in file.services:
            parts += [self._text(file, service.comment), "## RPCs", self._contents(service)]
            parts += [part for rpc in service.parts for part in self._rpc(file, rpc, own)]
        if shared:
            parts += ["## Messages and enums"]
            parts += [part for one in shared for part in self._type(file, one)]
        return "\n\n".join(filter(None, (_header(), *parts)))

    def _index(self) -> str:
        """The first page: all services with their RPCs, and what holds for all of them."""
        parts = [_header(), "# The API", _INTRODUCTION]
        for file in sorted(self._contract.files, key=lambda file: (file.name != FIRST, file.name)):
            for service in file.services:
                parts += [f"## [{service.name}]({file.name}.md)", _first_sentence(service.comment)]
                parts += [self._contents(service, page=f"{file.name}.md")]
        without = [file for file in self._contract.files if not file.services]
        parts += ["## Shared messages", "\n".join(
            f"- [{title(file)}]({file.name}.md): {_first_sentence(file.comment)}"
            for file in without
        )]  # fmt: skip
        return "\n\n".join(parts)

    def _contents(self, service: Declared, *, page: str = "") -> str:
        rows = ["| RPC | Kind | Role | What it does |", "| --- | --- | --- | --- |"]
        for rpc in service.parts:
            verb = self._verb(rpc)
            kind = self._contract.word("VerbKind", verb.kind).replace("_", "-")
            role = self._contract.word("Role", verb.role)
            link = f"[{rpc.name}]({page}#{rpc.name.lower()})"
            told = prose.in_a_cell(_first_sentence(rpc.comment), _plain)
            rows.append(f"| {link} | {kind} | {role} | {told} |")
        return "\n".join(rows)

    def _rpc(self, file: ContractFile, rpc: Declared, own: set[str]) -> Iterator[str]:
        proto = rpc.proto
        request, response = _local(proto.input_type), _local(proto.output_type)
        yield f"### {rpc.name}"
        yield (
            f"{_stream(proto.client_streaming)}{self._linked(file, request)} → "
            f"{_stream(proto.server_streaming)}{self._linked(file, response)}"
        )
        yield self._text(file, rpc.comment)
        yield "\n".join(("| | |", "| --- | --- |", *self._facts(file, rpc)))
        for name in dict.fromkeys((request, response)):
            if name in own:
                yield from self._type(file, self._contract.declared(name))

    def _facts(self, file: ContractFile, rpc: Declared) -> Iterator[str]:
        verb = self._verb(rpc)
        kind = self._contract.word("VerbKind", verb.kind)
        yield f"| Kind | {KINDS[kind]} |"
        if verb.result:
            yield f"| Result | {self._linked(file, _local(verb.result))} |"
        yield f"| Role | {self._contract.word('Role', verb.role)} |"
        if verb.driver_methods:
            yield f"| Driver methods | {_named(verb.driver_methods)} |"
        yield f"| Idempotency | {_idempotency(rpc.comment, kind)} |"
        if kind in ("mutation", "long_running"):
            yield f"| Excludes | {_excludes(self._contract, verb, _local(rpc.proto.input_type))} |"
            recovery = self._contract.word("Recovery", verb.recovery)
            yield f"| After the daemon's death | {RECOVERIES[recovery]} |"
        told = _named(prose.errors(rpc.comment))
        general = f"[those of every RPC]({_page_link(file, 'instance')}#instanceservice)"
        yield f"| Errors | {told}{', and ' if told else ''}{general} |"

    def _type(self, file: ContractFile, one: Declared) -> Iterator[str]:
        yield f"#### {one.name}"
        yield self._text(file, one.comment)
        if hasattr(one.proto, "value"):
            yield "\n".join(("| Value | Meaning |", "| --- | --- |", *self._values(file, one)))
            return
        rows = [self._field(file, one, part) for part in one.parts if part.name not in _common(one)]
        if rows:
            yield "\n".join(("| Field | Type | Meaning |", "| --- | --- | --- |", *rows))
        if _common(one):
            yield f"Also {_named(COMMON_FIELDS)}, [as every mutation]({INDEX}.md#mutations)."
        rules = self._contract.option(one, "buf.validate.message").cel
        if rules:
            yield "\n".join(f"- {rule.message}" for rule in rules)

    def _values(self, file: ContractFile, enum: Declared) -> Iterator[str]:
        for value in enum.parts or ():
            yield f"| `{value.name}` | {prose.in_a_cell(value.comment, self._link(file))} |"

    def _field(self, file: ContractFile, message: Declared, part: Declared) -> str:
        proto = part.proto
        meaning = [prose.in_a_cell(part.comment, self._link(file))]
        if self._contract.option(part, f"{PACKAGE}.secret"):
            meaning.append("*Secret.*")
        words = in_words(
            self._contract.option(part, "buf.validate.field"), partial(self._value_name, proto)
        )
        if words:
            meaning.append(f"*{words.replace('|', chr(92) + '|')}*")
        return (
            f"| `{part.name}` | {self._type_name(file, message, proto)} | {'<br>'.join(meaning)} |"
        )

    def _type_name(self, file: ContractFile, message: Declared, proto: Any) -> str:
        entry = _map_entry(message.proto, proto)
        if entry is not None:
            key, value = (self._type_name(file, message, part) for part in entry.field)
            return f"map of {key} to {value}"
        name = self._linked(file, _local(proto.type_name)) if proto.type_name else _scalar(proto)
        if proto.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"list of {name}"
        if proto.proto3_optional:
            return f"optional {name}"
        if proto.HasField("oneof_index"):
            return f"{name}, one of `{message.oneofs[proto.oneof_index].name}`"
        return name

    def _value_name(self, proto: Any, number: int) -> str:
        enum = self._contract.declared(_local(proto.type_name)).proto
        return next(str(value.name) for value in enum.value if value.number == number)

    def _messages_of_rpcs(self, file: ContractFile) -> set[str]:
        """Requests and responses that one RPC of the file has alone."""
        rpcs = [rpc.proto for one in self._contract.files for s in one.services for rpc in s.parts]
        used = [_local(t) for proto in rpcs for t in (proto.input_type, proto.output_type)]
        here = {message.name for message in file.messages}
        return {name for name in here if used.count(name) == 1}

    def _verb(self, rpc: Declared) -> Any:
        return self._contract.option(rpc, f"{PACKAGE}.verb")

    def _text(self, file: ContractFile, comment: str) -> str:
        return prose.markdown(comment, self._link(file))

    def _link(self, file: ContractFile) -> prose.Link:
        return partial(self._linked, file)

    def _linked(self, file: ContractFile, name: str) -> str:
        """The name of an RPC, message or enum as a link from a page; other words as they are."""
        home = self._contract.rpcs.get(name) or self._contract.homes.get(name)
        if home is None:
            return name.rpartition(".")[2]
        return f"[{name}]({_page_link(file, home)}#{name.lower()})"


_INTRODUCTION = """\
What the daemon serves, as the files in `protos/virtrpc/v1` declare it: a page for each service,
with its RPCs and their messages. What holds for every RPC, the errors among it, stands at
[InstanceService](instance.md#instanceservice).

**Kinds.** A *read* answers from known facts. A *mutation* replies when its change is done. A
*long-running* one replies at once with its [Operation](operation.md#operation), which
[WaitOperation](operation.md#waitoperation) and [WatchOperation](operation.md#watchoperation) follow
to its typed result. A *stream* stays open.

**Roles** are ordered: viewer, operator, admin; migrator is for peer daemons.

**Rules.** What is said of a field in *italics* is checked before anything else: a request that
breaks it is `INVALID_ARGUMENT / INVALID_REQUEST` with the field's path.

### Mutations

Every request that changes something has two more fields. `request_id` (at most 128 printable ASCII
characters): a repeat of the call with the same one returns the first outcome. `validate_only`: all
that stands in the way is looked for and told at once, and nothing is changed."""


def title(file: ContractFile) -> str:
    """Heading of a page."""
    return file.services[0].name if file.services else f"{file.name}.proto"


def _header() -> str:
    return "<!-- Made by protos/reference.py: change the .proto files, then `make protos`. -->"


def _named(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _first_sentence(comment: str) -> str:
    text = " ".join(comment.partition("\n\n")[0].split())
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]


def _idempotency(comment: str, kind: str) -> str:
    text = " ".join(comment.split())
    if kind == "read":
        return "a read"
    if "Not idempotent" in text:
        return "no: use a `request_id`"
    if "Idempotent by identity" in text:
        return "by identity: a repeat that finds its effect changes nothing"
    if "Idempotent" in text:
        return "yes"
    return "by `request_id`" if kind in ("mutation", "long_running") else "as its text says"


def _excludes(contract: Contract, verb: Any, request: str) -> str:
    if verb.concurrent:
        return "nothing: it guards what it changes itself"
    fields = {part.name for part in contract.declared(request).parts}
    lane = verb.lane or ("instance_id" if "instance_id" in fields else "")
    others = f"other mutations of the same `{lane}`" if lane else "other mutations of the host"
    return f"{others}, which it cancels and replaces" if verb.preempts else others


def _common(message: Declared) -> tuple[str, ...]:
    names = {part.name for part in message.parts}
    return COMMON_FIELDS if names.issuperset(COMMON_FIELDS) else ()


def _map_entry(message: Any, proto: Any) -> Any:
    entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
    return entries.get(proto.type_name.rpartition(".")[2])


def _scalar(proto: Any) -> str:
    return FieldDescriptorProto.Type.Name(proto.type).removeprefix("TYPE_").lower()


def _stream(streaming: bool) -> str:
    return "stream of " if streaming else ""


def _local(type_name: str) -> str:
    """ ".virtrpc.v1.Image" → "Image"; names of other packages whole."""
    return type_name.removeprefix(".").removeprefix(f"{PACKAGE}.")


def _page_link(file: ContractFile, home: str) -> str:
    return "" if home == file.name else f"{home}.md"


def _plain(name: str) -> str:
    return name


def write(folder: Path) -> None:
    """Writes all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in Reference(load()).pages().items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def main() -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        write(PAGES)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        names = stale(Path(folder), PAGES)
    if names:
        print("stale pages in docs/api, run `make protos`:", *names, sep="\n  ", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())

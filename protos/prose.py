"""Comments of the contract as Markdown.

    a paragraph                     stays one; what begins with a gRPC code is an item of a list
      CODE / REASON   what it is    indented: a table of errors
      anything else                 indented: a drawing, kept as it is

Names of RPCs and messages become links, pairs of code and reason code.
"""

import re
from collections.abc import Callable, Iterator

_CODES = (
    "CANCELLED|UNKNOWN|INVALID_ARGUMENT|DEADLINE_EXCEEDED|NOT_FOUND|ALREADY_EXISTS|"
    "PERMISSION_DENIED|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|ABORTED|OUT_OF_RANGE|"
    "UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS|UNAUTHENTICATED"
)
_PAIR = rf"(?:{_CODES})(?: / [A-Z][A-Z_]+)?"
_PAIRS = re.compile(rf"\b({_PAIR})\b")
_ITEM = re.compile(rf"{_PAIR}\b")
_ROW = re.compile(rf" +((?:{_PAIR})(?:, (?:{_PAIR}))*) +(\S.*)")
_CODE = re.compile(r"(`[^`]*`)")
_NAME = re.compile(r"\b(?:[A-Z][a-z0-9]+){2,}\b")
Link = Callable[[str], str]


def markdown(comment: str, link: Link) -> str:
    """A comment as paragraphs, lists, tables and drawings; `link` is given every CamelCase name."""
    return "\n\n".join(_block(lines, link) for lines in _blocks(comment))


def in_a_cell(comment: str, link: Link) -> str:
    """A comment in one line, for a cell of a table."""
    paragraphs = [" ".join(part.split()) for part in comment.split("\n\n")]
    return "<br>".join(_inline(part, link) for part in paragraphs).replace("|", "\\|")


def errors(comment: str) -> list[str]:
    """Pairs of code and reason that a comment names, each once, in order."""
    joined = " ".join(comment.split())
    return list(dict.fromkeys(pair for pair in _PAIRS.findall(joined) if "/" in pair))


def _blocks(comment: str) -> Iterator[list[str]]:
    """Runs of lines that are indented alike; an empty line ends a paragraph, but no drawing."""
    block: list[str] = []
    for line in comment.splitlines():
        if block and (_is_drawn(line) != _is_drawn(block[0]) if line else not _is_drawn(block[0])):
            yield block
            block = []
        if line or block:
            block.append(line)
    if block:
        yield block


def _is_drawn(line: str) -> bool:
    return line.startswith("  ")


def _block(lines: list[str], link: Link) -> str:
    if not _is_drawn(lines[0]):
        return "\n".join(_inline(part, link) for part in _items(lines))
    filled = [line for line in lines if line]
    if all(_ROW.match(line) or _goes_on(line) for line in filled):
        return _error_table(filled, link)
    return "\n".join(("```", *_dedented(lines), "```"))


def _goes_on(line: str) -> bool:
    """It belongs to the row above it: errors are never indented so far."""
    return line.startswith(" " * 20)


def _items(lines: list[str]) -> list[str]:
    """A paragraph's prose in one line, and a line with a bullet for each item in it."""
    parts: list[str] = []
    for line in lines:
        if _ITEM.match(line) and (not parts or parts[-1].endswith((".", ":"))):
            parts.append(f"- {line}")
        elif parts:
            parts[-1] += f" {line}"
        else:
            parts.append(line)
    return parts


def _error_table(lines: list[str], link: Link) -> str:
    rows: list[list[str]] = []
    for line in lines:
        row = None if _goes_on(line) else _ROW.match(line)
        if row:
            rows.append([row[1], row[2]])
        else:
            rows[-1][1] += f" {line.strip()}"
    table = ["| Error | When, and what to do |", "| --- | --- |"]
    table += [f"| {_inline(code, link)} | {in_a_cell(text, link)} |" for code, text in rows]
    return "\n".join(table)


def _dedented(lines: list[str]) -> list[str]:
    margin = min(len(line) - len(line.lstrip()) for line in lines if line)
    return [line[margin:] for line in "\n".join(lines).rstrip().splitlines()]


def _inline(text: str, link: Link) -> str:
    """Marks up what is not marked as code already."""
    pieces = _CODE.split(text)
    return "".join(piece if piece.startswith("`") else _marked_up(piece, link) for piece in pieces)


def _marked_up(text: str, link: Link) -> str:
    text = text.replace("<", "&lt;").replace("*", "\\*")
    text = _PAIRS.sub(r"`\1`", text)
    pieces = _CODE.split(text)
    return "".join(
        piece if piece.startswith("`") else _NAME.sub(lambda name: link(name[0]), piece)
        for piece in pieces
    )

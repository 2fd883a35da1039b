"""The code blocks of a page in Markdown, and how a reader follows them."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lipcert.cli import app

_FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?\n(.*?)^\1```$', re.DOTALL | re.MULTILINE)
PRINTS = "prints"  # title of a text block that shows what the block before prints
NEAR = 0.02  # how far numbers that are shown may be from those that come out


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language and title, its text."""

    page: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page.name, text.count("\n", 0, m.start()) + 1, m[2], m[3] or "", textwrap.dedent(m[4]))
        for m in _FENCE.finditer(text)
    ]


@dataclass
class Reader:
    """Someone who does in a folder what a page says, block by block."""

    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})
    output: str = ""
    code: int = 0

    def follow(self, block: Block) -> None:
        """Run a block, or write it where it has the name of a file; compare what it shows."""
        with contextlib.chdir(self.folder):
            if block.title == PRINTS:
                self._compare(block.text.splitlines(), str(block))
            elif block.title:
                (self.folder / block.title).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                with self._listening():
                    exec(compile("\n" * block.line + block.text, block.page, "exec"), self.names)
            elif block.language == "console":
                self._converse(block)
            else:
                for line in commands_of(block.text):
                    self._command(line)
                    assert self.code == 0, f"{block}: {line}\n{self.output}"

    def _converse(self, block: Block) -> None:
        """Run the commands behind a dollar; what stands below each is shown by it."""
        turns = [turn.splitlines() for turn in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]]
        for position, (line, *shown) in enumerate(turns):
            if line == "echo $?":
                assert shown == [str(self.code)], f"{block}: exit code {self.code}"
                continue
            self._command(line)
            self._compare(shown, f"{block}: {line}")
            asked = position + 1 < len(turns) and turns[position + 1][0] == "echo $?"
            assert asked or self.code == 0, f"{block}: {line}\n{self.output}"

    def _command(self, line: str) -> None:
        command, _, target = line.partition(" > ")
        program, *arguments = shlex.split(command, comments=True)
        if program == "python":
            found = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
            self.output, self.code = found.stdout + found.stderr, found.returncode
        else:
            assert program == "lipcert", f"a page may call lipcert and python, not {program}"
            with self._listening():
                self.code = app.run(arguments)
        if target:
            (self.folder / target.split()[0]).write_text(self.output, encoding="utf-8")

    @contextlib.contextmanager
    def _listening(self) -> Any:
        heard = io.StringIO()
        try:
            with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
                yield
        finally:
            self.output = heard.getvalue()

    def _compare(self, shown: list[str], where: str) -> None:
        """Each line that is shown comes out, in this order; others may stand between."""
        actual = iter(self.output.splitlines())
        for line in filter(str.strip, shown):
            found = any(similar(line, candidate) for candidate in actual)
            assert found, f"{where}: the page shows\n{line}\nand this came out:\n{self.output}"


def commands_of(text: str) -> list[str]:
    """Return the command lines of a block, without comments and empty lines."""
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def similar(shown: str, actual: str) -> bool:
    """Whether two lines agree word by word; numbers within 2 %, and `...` stands for anything."""
    words, found = shown.split(), actual.split()
    for position, word in enumerate(words):
        if word == "...":
            return position == len(words) - 1 or similar_somewhere(words[position + 1 :], found[position:])
        if position >= len(found) or not _agree(word, found[position]):
            return False
    return len(words) == len(found)


def similar_somewhere(words: list[str], found: list[str]) -> bool:
    """Whether the words agree with some end of those found."""
    return any(similar(" ".join(words), " ".join(found[start:])) for start in range(len(found) + 1))


def _agree(shown: str, actual: str) -> bool:
    if shown.endswith("..."):
        return actual.startswith(shown[:-3])
    if "..." in shown:
        head, _, tail = shown.partition("...")
        return actual.startswith(head) and actual.endswith(tail)
    try:
        return abs(float(shown.strip("%,")) - float(actual.strip("%,"))) <= NEAR * abs(float(shown.strip("%,")))
    except ValueError:
        return shown == actual

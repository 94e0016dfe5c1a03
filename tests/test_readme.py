"""The README: its examples run as its reader would run them, its commands exist, its links lead somewhere."""

import contextlib
import io
import re
import shlex
import tomllib
from pathlib import Path

import jax
import pytest

from probsoftmax import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_examples_print_what_they_say():
    names: dict = {}
    printed = []
    with jax.enable_x64(False):
        for language, text in BLOCKS:
            if language == "python":
                with contextlib.redirect_stdout(io.StringIO()) as output:
                    exec(compile(text, "README.md", "exec"), names)
                printed.append(output.getvalue())
    assert printed == [text for language, text in BLOCKS if language == "text"]


def test_the_first_example_is_about_ten_lines():
    first = next(text for language, text in BLOCKS if language == "python")
    assert len([line for line in first.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_to_files(link):
    assert (ROOT / link).is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)\b", README))))
def test_make_has_the_targets(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", re.findall(r"-m probsoftmax (.*)$", README, re.MULTILINE))
def test_the_commands_are_understood(command):
    assert cli._parser().parse_args(shlex.split(command)).data == "digits"


def test_the_extras_are_all_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = README[README.index("| extra |") :]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(project["optional-dependencies"])

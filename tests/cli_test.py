# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The command line before any command runs."""

import pathlib
import re
import tomllib

import pytest

import jdistill
from jdistill import cli, commands, types

ROOT = pathlib.Path(__file__).parents[1]


def test_help(capsys):
  assert cli.main(["--help"]) == 0
  text = capsys.readouterr().out
  assert all(f"  {name} " in text for name in cli.COMMANDS)


def test_every_command_exists_and_helps(capsys):
  for name in cli.COMMANDS:
    with pytest.raises(SystemExit) as end:
      cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"jdistill {name}" in capsys.readouterr().out


def test_nothing_asked(capsys):
  assert cli.main([]) == 2
  assert "usage" in capsys.readouterr().out


def test_version(capsys):
  assert cli.main(["--version"]) == 0
  said = capsys.readouterr().out.strip()
  assert said == jdistill.__version__
  # MAJOR.MINOR.PATCH, and what comes before it.
  assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", said)


def test_the_version_is_written_in_one_place():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())
  assert "version" not in project["project"]
  assert project["tool"]["hatch"]["version"] == {"path": "jdistill/__init__.py"}
  cited = (ROOT / "CITATION.cff").read_text()
  assert f"version: {jdistill.__version__}\n" in cited


def test_unknown_command(capsys):
  assert cli.main(["trian"]) == 2
  captured = capsys.readouterr()
  assert captured.out == ""
  assert "'trian'; did you mean train?" in captured.err
  assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
  ("error", "code", "said"),
  [
    (types.UserError("field: 3"), 2, "jdistill: field: 3\n"),
    (KeyboardInterrupt(), 130, ""),
    (BrokenPipeError(), 0, ""),
  ],
  ids=["fault", "interrupt", "pipe"],
)
def test_ends(monkeypatch, capsys, error, code, said):
  def command(argv):
    raise error

  monkeypatch.setattr(commands, "models", command)
  assert cli.main(["models", "x"]) == code
  assert capsys.readouterr().err == said


def test_other_errors_are_not_hidden(monkeypatch):
  def command(argv):
    raise RuntimeError("a bug")

  monkeypatch.setattr(commands, "models", command)
  with pytest.raises(RuntimeError, match="a bug"):
    cli.main(["models", "x"])

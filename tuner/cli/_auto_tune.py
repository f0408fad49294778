"""``auto-tune``: the flags and variables of ``auto_tune.py``, carried out as an experiment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.cli._options import add_json, add_settings
from tuner.cli._run_commands import carry_out
from tuner.compat import Problems
from tuner.compat.autotune import (
    RUNS,
    SETTINGS,
    Settings,
    Translator,
    TuneResults,
    TuneTranslation,
    asks_the_same,
    check_tune,
    fresh_name,
    read_secrets,
    read_settings,
    read_tune_results,
    run_name,
    start_of,
    unfinished,
)
from tuner.experiment import Document, Experiment, to_yaml

NAME = "auto-tune"


def add_commands(commands: Any) -> None:
    parser = commands.add_parser(
        NAME, help="run what auto_tune.py runs", allow_abbrev=False, epilog=_EPILOG
    )
    _define(parser)
    parser.set_defaults(command=_auto_tune)


def parse_flags(words: Sequence[str]) -> argparse.Namespace:
    """The command line after ``auto-tune``, for :func:`prepare`."""
    parser = argparse.ArgumentParser(prog=f"python -m tuner {NAME}", allow_abbrev=False)
    _define(parser)
    arguments, unknown = parser.parse_known_args(words)
    arguments.unknown = tuple(unknown)
    return arguments


def _define(parser: argparse.ArgumentParser) -> None:
    for setting in SETTINGS:
        named = f"variable {', '.join(setting.variables)}" if setting.variables else ""
        said = "; ".join(part for part in (setting.help, named) if part)
        if setting.switch:
            parser.add_argument(setting.flag, action="store_const", const="1", help=said)
        else:
            parser.add_argument(setting.flag, metavar="VALUE", help=said)
    parser.add_argument(
        "--skip_existing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="trials in the results file are measured already (default); --no-skip_existing: anew",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print-experiment", action="store_true", help="print it, start nothing")
    what.add_argument(
        "--dry_run", "--dry-run", action="store_true", help="print every trial, run none"
    )
    what.add_argument("--selftest", action="store_true", help="check everything, run no trial")
    parser.add_argument(
        "--selftest_notify", action="store_true", help="--selftest, with a test message to all"
    )
    add_settings(parser)
    add_json(parser)
    parser.set_defaults(collects_unknown=True)


_EPILOG = (
    "Flags go before variables, variables before defaults. tune_secrets.sh in the repo is read."
)


class Prepared:
    """A call of ``auto-tune``, understood and checked.

    Attributes:
        resume: The run it is about is unfinished, and is gone on with.
        results: What the results file holds before the call.
    """

    def __init__(
        self,
        settings: Settings,
        translation: TuneTranslation,
        document: Document,
        *,
        resume: bool,
    ) -> None:
        self.settings = settings
        self.translation = translation
        self.document = document
        self.resume = resume
        self.results = TuneResults({})

    def experiment(self) -> Experiment:
        """Raises ``ExperimentError``, its faults placed at flags and variables."""
        os.environ.update(self.translation.secrets)
        return check_tune(self.document, self.settings)


def prepare(arguments: argparse.Namespace) -> Prepared:
    """What a call stands for. All faults of flags, variables and files are raised at once."""
    problems: Problems = [(word, "unknown flag or value") for word in arguments.unknown]
    environment = _environment(arguments, problems)
    flags = {setting.name: getattr(arguments, setting.name) for setting in SETTINGS}
    settings = read_settings(flags, environment, problems)
    source = Document(NAME, {}, {})
    stem = run_name(settings)
    storage = Path(settings["repo"]).expanduser().absolute() / RUNS
    name = stem if arguments.skip_existing else fresh_name(storage, stem)
    translator = Translator(settings, problems, reuse=arguments.skip_existing, name=name)
    try:
        results = read_tune_results(translator.file("results"))
    except (OSError, ValueError) as error:
        problems.append((settings.place("results"), f"cannot be read: {error}"))
    if problems:
        raise source.error(problems)
    prepared = _chosen(translator, settings, arguments.settings)
    prepared.results = results
    return prepared


def _chosen(translator: Translator, settings: Settings, assignments: Sequence[str]) -> Prepared:
    """The run that is unfinished, as far as it asks the same; else one from the best known."""

    def prepared(base: Mapping[str, str]) -> Prepared:
        translation = translator.translation(base)
        document = Document(NAME, translation.data, {})
        for assignment in assignments:
            document.set(assignment)
        return Prepared(settings, translation, document, resume=False)

    fresh = prepared(translator.best)
    earlier = unfinished(fresh.translation.folder)
    if earlier is not None:
        again = prepared(start_of(earlier))
        if asks_the_same(again.document.data, earlier):
            again.resume = True
            return again
    return fresh


def _environment(arguments: argparse.Namespace, problems: Problems) -> Mapping[str, str]:
    """The variables of the caller, and over them those of ``tune_secrets.sh``, as if sourced."""
    repo = arguments.repo or os.environ.get("REPO") or "."
    return {**os.environ, **read_secrets(Path(repo).expanduser(), problems)}


def _auto_tune(arguments: argparse.Namespace) -> int:
    prepared = prepare(arguments)
    if arguments.print_experiment:
        print(_as_yaml(prepared), end="")
        return 0
    for note in [*prepared.translation.notes, *_reuse_notes(prepared)]:
        print(f"note: {note}", file=sys.stderr)
    if arguments.selftest or arguments.selftest_notify:
        from tuner.cli._selftest import selftest

        return selftest(prepared.experiment(), notify=arguments.selftest_notify)
    experiment = prepared.experiment()
    if arguments.dry_run:
        from tuner.cli._selftest import print_trials

        return print_trials(experiment)
    return run(experiment, resume=prepared.resume, as_json=arguments.json)


def run(experiment: Experiment, *, resume: bool, as_json: bool) -> int:
    """Carry it out; that it died, if it does, stands in the status file."""
    from tuner.views.autotune import say_crashed

    try:
        return carry_out(experiment, resume=resume, as_json=as_json)
    except Exception as error:
        say_crashed(experiment.views, f"{type(error).__name__}: {error}")
        raise


def _reuse_notes(prepared: Prepared) -> list[str]:
    view = prepared.translation.data["views"][0]
    if not view["reuse"]:
        return []
    results = prepared.results
    notes = []
    if results.trials:
        said = "count as measured; --no-skip_existing measures anew"
        notes.append(f"{len(results.trials)} trials in {view['results']} {said}")
    if results.broken:
        notes.append(f"{results.broken} lines of {view['results']} cannot be understood; left out")
    return notes


def _as_yaml(prepared: Prepared) -> str:
    """The experiment with the notes as comments, and the variables that it needs, not shown."""
    translation = prepared.translation
    comments = [*translation.notes]
    if translation.secrets:
        comments.append(f"export {', '.join(translation.secrets)} before it is run")
    text = "".join(f"# {comment}\n" for comment in comments)
    return text + to_yaml(prepared.document.data)

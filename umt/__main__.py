"""Console entry: `umt pretrain | finetune | test | predict ...`, also `python -m umt`.

Exit codes: 0 it went well; 2 something that the user can mend, said in one sentence; 75 stopped by a signal or
--max_hours, all saved; 69 another process of the run is lost; 130 interrupted. After 75, 69 and 130 the same command
goes on. A recipe is parsed, checked and printed (`--dry_run`) before torch is imported.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence

from umt import __version__
from umt.engine.preemption import Preemption
from umt.errors import EXIT_PREEMPTED, ConfigError, PeerLostError, PreemptedError, UserError
from umt.tasks.base import ALIASES, TASKS, entry_points

# Command -> module, which has `main(argv) -> exit code` and is imported when it is asked for, and what it is for. The
# commands that train are in `umt.tasks.base.TASKS`.
TOOLS = {
    "replay": ("umt.tools.replay", "recompute the step that a run stopped at because it was not finite"),
    "plan": ("umt.tools.plan.command", "parameters, memory and hours of an experiment, before it is started"),
    "doctor": ("umt.tools.doctor", "what this machine has, and what is missing for what"),
    "data": ("umt.tools.data.command", "data sets: prepare, transcode, check, shard, show"),
    "weights": ("umt.tools.weights.command", "weights of others: the visual tower of a CLIP as a teacher"),
    "predict": ("umt.tools.predict.command", "what is in videos: classes of the whole, or of a sliding window"),
    "extract": ("umt.tools.extract.command", "features of the videos of a list, with their recipe"),
    "probe": ("umt.tools.probe", "kNN, linear and attentive probes on frozen features"),
    "visualize": ("umt.tools.visualize.command", "what teacher and model look at, as pictures and a page"),
    "ensemble": ("umt.tools.ensemble.command", "one answer from several tests, with the gain per member"),
    "verify": ("umt.tools.verify.command", "test a checkpoint and hold it against its published number"),
    "export": ("umt.tools.export.command", "weights for others: safetensors, ONNX, torch.export, original"),
}


def usage() -> str:
    """What `umt --help` prints."""
    runs = {name: about for name, (_, about) in TASKS.items()} | {name: a[2] for name, a in ALIASES.items()}
    others = {name: f"of {point.dist.name}" for name, point in entry_points().items()}
    lines = [f"  umt {name:<9} --flag value ...   {about}" for name, about in (runs | others).items()]
    lines += [f"  umt {name:<28} {about}" for name, (_, about) in TOOLS.items()]
    return "\n".join(
        [
            f"umt {__version__}: video transformers by masked distillation from an image teacher",
            "",
            *lines,
            "",
            "umt COMMAND --help lists the flags; --dry_run prints the resolved run. "
            "Experiments: exp/, results: MODEL_ZOO.md.",
        ]
    )


def run(argv: Sequence[str]) -> None:
    """Does what `argv` asks for. Raises UserError for what the caller can mend."""
    command, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(usage())
    elif command == "--version":
        print(__version__)
    elif command in TOOLS:
        if code := importlib.import_module(TOOLS[command][0]).main(rest):
            raise SystemExit(code)
    elif command in TASKS or command in ALIASES or command in entry_points():
        _run_task(command, rest)
    else:
        commands = [*TASKS, *ALIASES, *entry_points(), *TOOLS]
        raise ConfigError(
            f"'{command}' is not a command. Choose one of {', '.join(commands)}, e.g. umt finetune --help."
        )


def _run_task(command: str, argv: list[str]) -> None:
    from umt.run.command_line import parse

    recipe = parse(command, argv)
    if recipe.runtime.dry_run and os.environ.get("UMT_PRINT_FLAGS"):  # `umt plan SCRIPT` asks
        print(f"UMT_FLAGS {json.dumps([recipe.command, *argv])}")
    elif recipe.runtime.dry_run:
        from umt.run.plan import render_dry_run

        print(render_dry_run(recipe))
    else:
        # The handlers come before torch, whose import takes seconds.
        with Preemption(max_hours=recipe.runtime.max_hours) as preemption:
            from umt.run.execute import execute

            try:
                execute(recipe, preemption)
            except (RuntimeError, MemoryError) as error:
                from umt.tools.plan.out_of_memory import explain, is_out_of_memory

                if not is_out_of_memory(error):
                    raise
                cause, error.__traceback__ = str(error), None  # lets go of the model
                raise explain(recipe, cause) from None


def main() -> int:
    """Runs the command line of this process; returns its exit code."""
    # SLURM's warning must not kill a run that has just ended, or not begun: while one is on, Preemption listens.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    try:
        run(sys.argv[1:])
    except UserError as error:
        return _say(str(error))
    except PreemptedError as error:
        return _say(str(error), EXIT_PREEMPTED)
    except PeerLostError as error:
        return _say(str(error), error.code)
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on, a run from its last checkpoint", 130)
    except BrokenPipeError:  # the reader of our output has gone, as in `umt finetune --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        return _say(
            f"the disk is full{where}. Free some space and start the same command again; "
            "it goes on from its last checkpoint."
        )
    return 0


def _say(sentence: str, code: int = 2) -> int:
    rank = os.environ.get("RANK", "")
    if sentence:
        print(f"umt{f' (rank {rank})' if rank else ''}: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

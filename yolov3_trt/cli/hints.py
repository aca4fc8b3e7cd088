"""Wrong usage, answered in the words of this command line: what another tool calls otherwise, and a setting by its option."""

import re
from typing import Any

import typer

from yolov3_trt.arguments import spelled_as_options
from yolov3_trt.cli.ending import Verbs
from yolov3_trt.errors import SettingError

_UsageError: Any = typer.BadParameter.__mro__[1]  # Click's, or Typer's own copy of it

# What other tools and older versions taught -> what it is here, the first that a verb has.
_MEANT: dict[str, tuple[str, ...]] = {
    name: meant
    for names, meant in (
        (
            "--thresh --threshold --conf-thresh --conf-thres --conf-threshold --confidence --score-threshold",
            ("--conf",),
        ),
        ("--nms-thresh --nms-threshold --iou-thresh --iou-thres --iou-threshold", ("--iou",)),
        ("--agnostic-nms --nms-kind", ("--nms",)),
        ("--max-det --top-k --topk", ("--max-detections",)),
        ("--imgsz --img --img-size --size --shape --input-shape --resolution", ("--input-size",)),
        ("--source --input --video --image --cam", ("SOURCE...", "--images", "ARTIFACT")),
        (
            "--model --cfg --config --engine --onnx --loadEngine --recipe",
            ("ARTIFACT", "ARTIFACT...", "MODEL", "MODEL|ONNX", "RECIPE|MODEL|ONNX"),
        ),
        ("--half --fp16 -fp16", ("--precision fp16",)),
        ("--int8", ("--precision int8",)),
        ("--fp32", ("--precision fp32",)),
        ("--calibration --calib --calibration-table --calib-cache", ("--table",)),
        ("--calib-images --calibration-images --data", ("--images",)),
        ("--bias-correction", ("--correct-biases",)),
        ("--no-bias-correction", ("--no-correct-biases",)),
        ("--skip-layers --exclude-layers", ("--float-layers",)),
        ("--rest", ("--float-precision",)),
        ("--workspace --workspace-size --memPoolSize", ("--workspace-mib",)),
        ("--opt-level --builder-optimization-level --builderOptimizationLevel", ("--optimization-level",)),
        ("--dla --useDLACore --use-dla-core", ("--dla-core",)),
        ("--timingCacheFile --timing-cache-file", ("--timing-cache",)),
        ("--batch-size --bs", ("--batch",)),
        ("--seconds --iterations --iters --avg-runs", ("--frames", "--duration")),
        ("--dynamic", ("--batch MIN:OPT:MAX",)),
        ("--classes-file --labels --class-names", ("--names",)),
        ("-o --output --out --out-dir --project --saveEngine", ("--output", "--save", "--sink", "--report", "--json")),
        ("--view --show --display", ("--sink window",)),
        ("--val --val-data", ("--val-images",)),
    )
    for name in names.split()
}


class HelpfulVerbs(Verbs):
    """A command group that answers unknown options by meaning, and shows a wrong setting as the option that it was typed as."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was asked for."""
        try:
            with spelled_as_options():
                return super().invoke(ctx)
        except SettingError as exc:
            verb = self.get_command(ctx, ctx.invoked_subcommand) if ctx.invoked_subcommand else None
            shown = option_of(verb, exc.setting)
            inner = None if verb is None else verb.make_context(verb.name, [], parent=ctx, resilient_parsing=True)
            raise typer.BadParameter(_in_options(verb, exc.problem), ctx=inner, param_hint=shown) from exc
        except _UsageError as exc:
            unknown = getattr(exc, "option_name", None)
            if hasattr(exc, "possibilities") and unknown and exc.ctx is not None:
                meant = meaning_of(exc.ctx.command, unknown)
                if meant is not None:
                    exc.message, exc.possibilities = f"No such option: {unknown}; here it is {meant}", None
            raise


def meaning_of(verb: Any, unknown: str) -> str | None:
    """What an option of another tool is called in a verb: an option, with its value, or an argument; None: nothing like it."""
    known = {option for parameter in verb.params for option in (*parameter.opts, *parameter.secondary_opts)}
    places = {_place(parameter) for parameter in verb.params if is_argument(parameter)}
    for meant in _MEANT.get(unknown, ()):
        if meant.split()[0] in known and meant.startswith("-"):
            return meant
        if meant in places:
            return f"given without one, as {meant}"
    return None


def option_of(verb: Any, setting: str) -> str:
    """How a setting was typed: `--float-layers` for `float_layers`; an argument by its place."""
    for parameter in verb.params if verb is not None else ():
        if parameter.name == setting:
            return _place(parameter) if is_argument(parameter) else max(parameter.opts, key=len)
    return f"--{setting.replace('_', '-')}"


def _in_options(verb: Any, problem: str) -> str:
    """A text with the settings that cannot be taken for words (`input_stage`) as the options they were typed as."""
    names = {parameter.name for parameter in (verb.params if verb is not None else ())}
    return re.sub(
        r"\b[a-z]+(?:_[a-z]+)+\b", lambda found: option_of(verb, found[0]) if found[0] in names else found[0], problem
    )


def is_argument(parameter: Any) -> bool:
    """Whether it is typed without a name."""
    return bool(parameter.param_type_name == "argument")


def _place(argument: Any) -> str:
    """How an argument stands in the usage line."""
    return str(argument.metavar or argument.name.upper())

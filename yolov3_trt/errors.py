"""The errors a user can meet, and the one way to import an optional package.

::

    Yolov3TrtError
    ├── CfgError(ValueError)            a Darknet .cfg: file and line
    ├── SpecError(ValueError)           a model that does not fit together: the layer
    ├── WeightsError(ValueError)        a .weights file, or weights that are not this model's
    ├── SettingError(ValueError)        a setting or argument that cannot be meant: its name
    ├── RecipeError(ValueError)         a build recipe: file and key
    ├── MetaError(ValueError)           a sidecar that is missing, damaged or another artifact's
    ├── FetchError                      weights that cannot be fetched, or are not those that were published
    ├── ImageError(ValueError)          an image, folder or video that cannot be read
    ├── OutputError(OSError)            a result that cannot be written
    ├── ExportError                     PyTorch -> ONNX
    ├── CalibrationError                pictures, ranges or a table that INT8 cannot rest on
    ├── BuildError                      ONNX -> engine; holds TensorRT's own messages
    ├── EngineError                     an engine that cannot run here
    ├── DeviceError                     a CUDA device that failed, or is used as it cannot be
    │   └── DeviceLostError             one that only a new process can use again
    ├── BackendError                    an artifact and a backend that do not go together
    ├── EvaluationError(ValueError)     a data set that does not go with a model
    ├── DataSetError(ValueError)        a data set: every fault with its file and line
    ├── TrainingError                   a training run that cannot start or go on
    ├── CameraError                     a source of frames or a sink that failed
    └── MissingDependency(ImportError)  an optional package

A text says where, what, what was got, what was expected and how to fix it, in one line. The command line prints it and
exits with 1; a traceback is a bug.
"""

import contextlib
import importlib
import io
import sys
import threading
from types import ModuleType

from yolov3_trt.masking import masked
from yolov3_trt.packages import how_to_install_extra


class Yolov3TrtError(Exception):
    """Base of every error this package raises on purpose. Its text shows no password of an address."""

    def __str__(self) -> str:
        return masked(super().__str__())


class CfgError(Yolov3TrtError, ValueError):
    """A Darknet `.cfg` that cannot be read; the text starts with `file:line:`."""


class SpecError(Yolov3TrtError, ValueError):
    """A model whose layers do not fit together.

    Attributes:
        layer: index of the layer at fault, or None when it is the model as a whole.
    """

    def __init__(self, message: str, *, layer: int | None = None) -> None:
        super().__init__(message)
        self.layer = layer


class WeightsError(Yolov3TrtError, ValueError):
    """A `.weights` file that is damaged, of another kind, or another model's."""


class SettingError(Yolov3TrtError, ValueError):
    """A setting that has no such value, or does not go with another.

    Attributes:
        setting: its name, as a Python keyword; recipes have the same, the command line writes it with dashes.
        problem: got, expected, how to fix it.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting, self.problem = setting, problem


class RecipeError(Yolov3TrtError, ValueError):
    """A build recipe that cannot be read, or asks for what cannot be built; the text names the key."""


class MetaError(Yolov3TrtError, ValueError):
    """A sidecar that is missing, damaged, or describes another file."""


class FetchError(Yolov3TrtError):
    """Weights that cannot be fetched, or are not those that were published."""


class ImageError(Yolov3TrtError, ValueError):
    """An image, image folder or video that cannot be read."""


class OutputError(Yolov3TrtError, OSError):
    """A result that cannot be written."""


class ExportError(Yolov3TrtError):
    """A model that cannot become an ONNX graph, or a graph that does not agree with its reference."""


class CalibrationError(Yolov3TrtError):
    """Pictures, ranges or a calibration table that INT8 cannot rest on."""


class BuildError(Yolov3TrtError):
    """An ONNX graph that did not become an engine.

    Attributes:
        log: TensorRT's own warnings and errors, oldest first.
    """

    def __init__(self, message: str, *, log: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log = log


class EngineError(Yolov3TrtError):
    """An engine that this machine cannot run."""


class DeviceError(Yolov3TrtError):
    """A CUDA device that failed, or a use of one that it does not allow; the text names the driver's call."""


class DeviceLostError(DeviceError):
    """A CUDA device after a fault, such as a kernel's illegal access, that no call of this process can use again.

    Only a new process helps: end with an exit code other than 0, and let systemd or the container start it again.
    """


class BackendError(Yolov3TrtError):
    """An artifact and a backend that do not go together, or a backend that failed."""


class EvaluationError(Yolov3TrtError, ValueError):
    """A data set whose classes are not the model's."""


class DataSetError(Yolov3TrtError, ValueError):
    """A data set that cannot be used.

    Attributes:
        faults: one line each, starting with `file:line:` where there is a line.
        notes: the same of what is odd but allowed.
    """

    def __init__(self, message: str, *, faults: tuple[str, ...] = (), notes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults
        self.notes = notes


class TrainingError(Yolov3TrtError):
    """A training run that cannot start, or a checkpoint that it cannot go on from."""


class CameraError(Yolov3TrtError):
    """A source of frames, or a sink of results, that cannot be opened or failed."""


class MissingDependency(Yolov3TrtError, ImportError):
    """An optional package that is not installed, or is but cannot be imported."""


_IMPORTING = threading.RLock()  # stderr is one for all threads


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional package at the moment it is first needed.

    Args:
        module: its import name, e.g. `"cv2"`.
        extra: the extra of this package that installs it.

    Raises:
        MissingDependency: it is not installed, and the text says what to run; or it is made for another NumPy, CUDA or system
            library than the one here, and the text says which.
    """
    if sys.modules.get(module) is not None:  # the rest is for the first time only
        return importlib.import_module(module)
    said = io.StringIO()
    try:
        # NumPy tells stderr at length, with tracebacks, about a package that was compiled for its first version.
        with _IMPORTING, contextlib.redirect_stderr(said):
            imported = importlib.import_module(module)
    except (ImportError, OSError, AttributeError, RuntimeError) as exc:
        if isinstance(exc, ModuleNotFoundError) and exc.name == module.partition(".")[0]:
            raise MissingDependency(f"{module} is not installed; {how_to_install_extra(extra)}") from exc
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise MissingDependency(
            f"{module} is installed, but does not import ({cause}); run: yolov3_trt doctor, which says how to mend it"
        ) from exc
    sys.stderr.write(said.getvalue())
    return imported

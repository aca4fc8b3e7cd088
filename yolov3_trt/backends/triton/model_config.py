"""A model's configuration, as Triton keeps it in `config.pbtxt`: plain values here, protobuf's message outside.

The message's definition comes with tritonclient (extra `triton`). A configuration is a dict by the names of the message's
fields; names of enums are texts, 64-bit integers may be texts, and what has its default value may be left out.
"""

from collections.abc import Mapping
from typing import Any

from yolov3_trt.errors import MetaError, require

ModelConfig = Mapping[str, Any]


def text_from_config(config: ModelConfig) -> str:
    """The content of a `config.pbtxt`, one field a line."""
    empty = _new_message()
    from google.protobuf import json_format, text_format

    return str(text_format.MessageToString(json_format.ParseDict(dict(config), empty), as_utf8=True))


def config_from_text(text: str, source: str) -> ModelConfig:
    """Read a `config.pbtxt`; fields that a newer Triton has are passed over.

    Args:
        text: of the file.
        source: what error texts call it.

    Raises:
        MetaError: it is no such text, or a field has another type.
    """
    empty = _new_message()
    from google.protobuf import text_format

    try:
        return config_from_message(text_format.Parse(text, empty, allow_unknown_field=True))
    except (text_format.ParseError, ValueError, RecursionError) as exc:
        said = " ".join(str(exc).split()).replace(" : ", ": ", 1)  # it begins with line and column
        said = said if len(said) <= 300 else f"{said[:150]}…{said[-150:]}"
        raise MetaError(f"{source}:{said}; correct it, or write the file again") from exc


def config_from_message(message: Any) -> ModelConfig:
    """The values of a `ModelConfig` message."""
    from google.protobuf import json_format

    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))


def parameters_of(config: ModelConfig) -> dict[str, str]:
    """The texts of a configuration's `parameters`, by their keys."""
    return {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()}


def _new_message() -> Any:
    require("grpc", extra="triton")  # which tritonclient alone does not bring
    return require("tritonclient.grpc.model_config_pb2", extra="triton").ModelConfig()

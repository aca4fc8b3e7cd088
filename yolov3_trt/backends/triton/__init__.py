"""Triton Inference Server as a backend: `triton://host:port[,host:port]/model[:version]`, or `tritons://` with TLS.

The server's configuration says which model it is and how to feed it (`contract.py`). Requests go by gRPC (`wire.py`), and are
repeated on another server when one fails (`remote.py`, `servers.py`).
"""

from yolov3_trt.backends.triton.address import parse_address
from yolov3_trt.backends.triton.contract import Variant
from yolov3_trt.backends.triton.pictures import TritonPictureBackend
from yolov3_trt.backends.triton.remote import RemoteModel
from yolov3_trt.backends.triton.tensors import TritonBackend

__all__ = ["TritonBackend", "TritonPictureBackend", "open_triton"]


def open_triton(url: str) -> TritonBackend | TritonPictureBackend:
    """Open a model on servers.

    Args:
        url: see `address.parse_address`; e.g. `triton://10.0.0.5:8001,10.0.0.6:8001/yolov3?deadline_ms=2000`.

    Raises:
        BackendError: the address is of another form, no server serves the model, or it is not this package's.
        MissingDependency: tritonclient is not installed.
    """
    address = parse_address(url)
    remote = RemoteModel(address)
    if remote.contract.variant is Variant.PYTHON:
        return TritonPictureBackend(remote, address.options.in_flight, address.options.encoding)
    return TritonBackend(remote)

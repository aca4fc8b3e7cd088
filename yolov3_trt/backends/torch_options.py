"""How the PyTorch reference may be run, known without PyTorch."""

from dataclasses import dataclass, replace

from yolov3_trt.errors import BackendError

DEVICES = ("cpu", "cuda")
DTYPES = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class TorchOptions:
    """Device, number format and form of the module; by default the reference itself."""

    device: str = "cpu"  # of DEVICES
    dtype: str = "fp32"  # of DTYPES; weights and activations
    channels_last: bool = False  # NHWC in memory
    compiled: bool = False  # by torch.compile, for the shapes that come

    @classmethod
    def parse(cls, text: str, device: str = "cpu") -> "TorchOptions":
        """`bf16`, `compile`, `cuda+fp16+channels_last`: any of them joined by `+`, the rest as in the reference.

        Raises:
            BackendError: one of them is unknown.
        """
        options = cls(device)
        for word in text.split("+"):
            if word in DTYPES:
                options = replace(options, dtype=word)
            elif word in DEVICES:
                options = replace(options, device=word)
            elif word == "channels_last":
                options = replace(options, channels_last=True)
            elif word == "compile":
                options = replace(options, compiled=True)
            else:
                known = ", ".join((*DTYPES, *DEVICES, "channels_last", "compile"))
                raise BackendError(f"PyTorch variant {text!r}: {word!r} is unknown; expected {known}, joined by +")
        return options

    def __str__(self) -> str:
        words = [self.device] if self.device != "cpu" else []
        words += [self.dtype] * (self.dtype != "fp32" or not words)
        words += ["channels_last"] * self.channels_last + ["compile"] * self.compiled
        return "+".join(words)

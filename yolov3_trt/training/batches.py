"""The batches of an epoch, in an order that depends on the seed and the epoch only, made ahead by threads."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from yolov3_trt.preprocess import GREY_OF_RGB
from yolov3_trt.training.assign import Objects
from yolov3_trt.training.augment import Sample, Samples
from yolov3_trt.training.settings import TrainSettings


@dataclass(frozen=True)
class Batches:
    """Samples by the batch; what does not fill a last batch of an epoch is left out of it."""

    samples: Samples
    settings: TrainSettings
    device: torch.device
    workers: int  # threads that make samples
    channels: int = 3  # 1: grey

    @property
    def size(self) -> int:
        """Pictures in a batch."""
        return min(self.settings.batch_size, len(self.samples))

    @property
    def per_epoch(self) -> int:
        """How many batches an epoch has."""
        return len(self.samples) // self.size

    def of_epoch(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Objects]]:
        """Batches `first`, `first` + 1, ... of an epoch; see `_batch_from_samples`."""
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.samples))
        mosaic = self.settings.uses_mosaic(epoch)
        indices = iter(order[first * self.size : self.per_epoch * self.size].tolist())
        with ThreadPoolExecutor(self.workers) as pool:
            pending = [
                pool.submit(self.samples, epoch, index, mosaic=mosaic) for index in islice(indices, 3 * self.size)
            ]
            try:
                while pending:
                    samples = [future.result() for future in pending[: self.size]]
                    ahead = islice(indices, self.size)
                    pending = pending[self.size :]
                    pending += [pool.submit(self.samples, epoch, index, mosaic=mosaic) for index in ahead]
                    yield _batch_from_samples(samples, self.device, self.channels)
            finally:
                for future in pending:
                    future.cancel()


def _batch_from_samples(samples: Sequence[Sample], device: torch.device, channels: int) -> tuple[Tensor, Objects]:
    """(N, 3, H, W) float32 RGB 0..1 on the device, channels last, or grey (N, 1, H, W), and the labels."""
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples])).to(device, non_blocking=True)
    # Reversed channels seen as NCHW: the memory stays (N, H, W, 3).
    images = pixels.flip(3).permute(0, 3, 1, 2).float() / 255
    if channels == 1:
        weights = torch.tensor(GREY_OF_RGB, device=images.device).reshape(1, 3, 1, 1)
        images = (images * weights).sum(dim=1, keepdim=True)
    objects = Objects(
        np.concatenate([sample.cxcywh for sample in samples]),
        np.concatenate([sample.class_ids for sample in samples]).astype(np.int64),
        np.repeat(np.arange(len(samples)), [len(sample.class_ids) for sample in samples]),
    )
    return images, objects

"""Layers in the making, for networks that are written in Python."""

from yolov3_trt.layers import Activation, Conv, HeadKind, Layer, MaxPool, Route, Shortcut, Upsample, Yolo

Anchors = tuple[tuple[float, float], ...]

# Of COCO's boxes at 416, input px: those of yolov3-tiny and of yolov4-tiny.
TINY_ANCHORS: Anchors = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))


class Net:
    """Each method appends and returns the index of its last layer."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []

    def add(self, layer: Layer) -> int:
        """Any layer."""
        self.layers.append(layer)
        return len(self.layers) - 1

    def conv(self, filters: int, size: int, stride: int = 1, activation: Activation = Activation.LEAKY) -> int:
        """Convolution, batch norm, activation: the unit of every Darknet network."""
        return self.add(Conv(filters, size, stride, size // 2, batch_norm=True, bias=False, activation=activation))

    def route(self, *sources: int) -> int:
        """Maps side by side, in this order."""
        return self.add(Route(sources))

    def residual_stage(self, filters: int, blocks: int) -> int:
        """Halve the map, then `blocks` times squeeze to half the channels, expand and add."""
        last = self.conv(filters, 3, stride=2)
        for _ in range(blocks):
            self.conv(filters // 2, 1)
            self.conv(filters, 3)
            last = self.add(Shortcut((last,)))
        return last

    def pyramid(self, filters: int) -> int:
        """Five alternating 1x1 and 3x3 convolutions; returns the last, from which the next scale branches off."""
        for _ in range(2):
            self.conv(filters, 1)
            self.conv(filters * 2, 3)
        return self.conv(filters, 1)

    def spatial_pyramid(self) -> int:
        """The largest value in windows of 5, 9 and 13 px around each place, beside the map itself."""
        squeezed = len(self.layers) - 1
        pool5 = self.add(MaxPool(5))
        self.route(squeezed)
        pool9 = self.add(MaxPool(9))
        self.route(squeezed)
        return self.route(self.add(MaxPool(13)), pool9, pool5, squeezed)

    def head(
        self, filters: int, anchors: Anchors, num_classes: int, scale_xy: float = 1.0, kind: HeadKind = HeadKind.YOLO
    ) -> int:
        """3x3 convolution, then logits."""
        self.conv(filters, 3)
        last = Activation.LOGISTIC if kind is HeadKind.SCALED else Activation.LINEAR
        self.add(Conv(len(anchors) * (5 + num_classes), 1, activation=last))
        return self.add(Yolo(anchors, num_classes, scale_xy, kind))

    def upsample_and_join(self, branch: int, filters: int, skip: int) -> int:
        """Squeeze the branch, double its size, append the backbone's map of that size."""
        self.route(branch)
        self.conv(filters, 1)
        upsampled = self.add(Upsample(2))
        return self.route(upsampled, skip)

"""A workload as a user writes it: three convolutions, found as `conv.py:ConvNet`."""

import torch

from flopray.workloads import Built, Field, Workload


class ConvNet(Workload):
    """Three 3 x 3 convolutions over square images."""

    name = "conv_net"
    fields = (
        Field(name="kernel", type=str, doc="size of the kernels", values=("3x3",), words={"1x1": "1x1", "3x3": "3x3"}),
        Field(name="channels", letter="c", doc="channels of each layer", values=(8, 16)),
        Field(name="image_size", letter="s", label="image", unit="px", doc="width and height", values=(8, 16, 32)),
        Field(name="images", letter="b", doc="images of a batch", values=(2, 4)),
    )

    def build(self, point, *, device, dtype, seed):
        torch.manual_seed(seed)
        size = int(point.kernel[0])
        layers = [
            torch.nn.Conv2d(point.channels, point.channels, size, padding="same", device=device, dtype=dtype)
            for _ in range(3)
        ]
        shape = (point.images, point.channels, point.image_size, point.image_size)
        return Built(torch.nn.Sequential(*layers), torch.randn(shape, device=device, dtype=dtype))

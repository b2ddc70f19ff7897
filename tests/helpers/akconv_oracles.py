"""Two slow reference implementations of AKConv: pixel by pixel in float64, and with four gathers per point in torch.

The first also gives the symmetric gradient of positions, by differences.
"""

import math

import numpy as np
import torch


def initial_shape(num_points):
    base = round(math.sqrt(num_points))
    rows, rest = num_points // base, num_points % base
    points = [(r, c) for r in range(rows) for c in range(base)]
    return points + [(rows, c) for c in range(rest)]


def sample_pixel(image, row, column, padding):
    """Return one bilinear sample, (C,), of an image (C, H, W)."""
    channels, height, width = image.shape
    if not (math.isfinite(row) and math.isfinite(column)):
        return np.full(channels, np.nan)
    if padding == "border":
        row, column = min(max(row, 0.0), height - 1.0), min(max(column, 0.0), width - 1.0)
    top, left = math.floor(row), math.floor(column)
    down, right = row - top, column - left
    total = np.zeros(channels)
    for r, row_weight in ((top, 1 - down), (top + 1, down)):
        for c, column_weight in ((left, 1 - right), (left + 1, right)):
            if padding == "border":
                r_read, c_read = min(r, height - 1), min(c, width - 1)
            elif 0 <= r < height and 0 <= c < width:
                r_read, c_read = r, c
            else:
                continue
            total += row_weight * column_weight * image[:, r_read, c_read]
    return total


def akconv_pixelwise(x, offset, weight, points, *, stride, padding):
    """Return y (B, O, h, w), and the scale of its rounding errors: the largest sum of magnitudes in one value.

    Of 3N offset channels the last N are factors of the samples.
    """
    x, offset, weight = (np.asarray(array, dtype=np.float64) for array in (x, offset, weight))
    batch, _, height, width = x.shape
    out_channels, channels, num_points, _ = weight.shape
    out_h, out_w = (height - 1) // stride + 1, (width - 1) // stride + 1
    y = np.zeros((batch, out_channels, out_h, out_w))
    scale = 0.0
    for b in range(batch):
        for i in range(out_h):
            for j in range(out_w):
                samples = np.zeros((channels, num_points))
                for n, (point_row, point_column) in enumerate(points):
                    row = i * stride + point_row + offset[b, n, i, j]
                    column = j * stride + point_column + offset[b, num_points + n, i, j]
                    samples[:, n] = sample_pixel(x[b], row, column, padding)
                    if offset.shape[1] == 3 * num_points:
                        samples[:, n] *= offset[b, 2 * num_points + n, i, j]
                products = weight[..., 0] * samples
                y[b, :, i, j] = products.sum((1, 2))
                scale = max(scale, np.abs(products).sum((1, 2)).max())
    return y, scale


def symmetric_gradient(x, offset, weight, points, upstream, *, stride, padding, step=2.0**-6):
    """Return the derivative by each offset and factor as the central difference of `akconv_pixelwise`.

    Between integers the output is linear, so that this is exact unless an integer is nearer than a step, but not at it.
    """
    gradient = np.zeros(offset.shape)
    for channel in range(offset.shape[1]):  # an offset moves its own output pixel only
        ends = []
        for sign in (1, -1):
            moved = np.array(offset)
            moved[:, channel] += sign * step
            ends.append(akconv_pixelwise(x, moved, weight, points, stride=stride, padding=padding)[0])
        gradient[:, channel] = ((ends[0] - ends[1]) * np.asarray(upstream)).sum(1) / (2 * step)
    return gradient


def akconv_gather(x, offset, weight, points, *, stride, padding):
    """Return y (B, O, h, w) in torch, with gradients; `points` is a list of (row, column). Positions must be finite."""
    batch, channels, height, width = x.shape
    num_points = len(points)
    out_h, out_w = offset.shape[2:]
    first_row = torch.arange(out_h, dtype=x.dtype).view(1, -1, 1) * stride
    first_column = torch.arange(out_w, dtype=x.dtype).view(1, 1, -1) * stride
    y = x.new_zeros(batch, weight.shape[0], out_h, out_w)
    for n, (point_row, point_column) in enumerate(points):
        row = first_row + point_row + offset[:, n]
        column = first_column + point_column + offset[:, num_points + n]
        if padding == "border":
            row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
        else:  # beyond, every sample is zero
            row, column = row.clamp(-1, height), column.clamp(-1, width)
        top, left = row.detach().floor(), column.detach().floor()
        sample = 0
        for r, row_weight in ((top, 1 - (row - top)), (top + 1, row - top)):
            for c, column_weight in ((left, 1 - (column - left)), (left + 1, column - left)):
                inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
                index = r.clamp(0, height - 1).long() * width + c.clamp(0, width - 1).long()
                read = x.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, channels, -1))
                keep = inside if padding == "zeros" else torch.ones_like(inside)
                sample = (
                    sample + read.view(batch, channels, out_h, out_w) * (row_weight * column_weight * keep)[:, None]
                )
        y = y + torch.einsum("oc,bchw->bohw", weight[:, :, n, 0], sample)
    return y

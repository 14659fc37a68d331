"""A reader of .whit files in 60 lines, from docs/format.md alone; it imports nothing of whit.

It knows plain MLPs and CNNs, float, binary or ternary: python read_whit.py m.whit inputs.npy
"""

import json
import pathlib
import struct
import sys
import zlib

import numpy as np


def bits(data, at, count):
    packed = np.frombuffer(data, "u1", -(-count // 8), at)
    return np.unpackbits(packed, bitorder="little")[:count]


def floats(data, at, count, missing):
    return np.frombuffer(data, "<f4", count, at) if count else np.float32([missing])


def weight(code, scales, shape, data, at):
    scale, at, count = floats(data, at, scales, 1), at + 4 * scales, shape[0] * shape[1]
    if code == 0:
        values = floats(data, at, count, 0)
    elif code == 1:
        values = 1 - 2.0 * bits(data, at, count)
    else:
        assert code == 8, f"weight format {code} is not known to this small reader"
        digits = np.frombuffer(data, "u1", -(-count // 5), at)[:, None] // 3 ** np.arange(5) % 3
        values = digits.ravel()[:count] - 1.0
    return values.reshape(shape) * scale[:, None]


def windows(x, size, stride, pad, fill):
    x = np.pad(x, ((0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2), constant_values=fill)
    found = np.lib.stride_tricks.sliding_window_view(x, size, (2, 3))
    return found[:, :, :: stride[0], :: stride[1]]


def step(record, x, data):
    kind, form, scale, operand, *_, rows, columns, first, second = record[:10]
    size, stride, pad, fill = record[10:12], record[12:14], record[14:16], record[16]
    many, wide = (0, 1, x.shape[1], x[0].size), (-1,) + (1,) * (x.ndim - 2)
    if kind in (1, 2):  # linear, conv2d (of one group, without dilation)
        w = weight(form, (0, 1, rows)[scale], (rows, columns), data, first)
        x = np.moveaxis(windows(x, size, stride, pad, fill), 1, 3) if kind == 2 else x
        y = x.reshape(*x.shape[: 3 if kind == 2 else 1], columns) @ w.T
        return np.moveaxis(y + floats(data, second, rows if operand else 0, 0), -1, 1)
    if kind in (3, 4):  # affine, normalize
        a = floats(data, first, many[scale], 1).reshape(wide)
        b = floats(data, second, many[operand], 0).reshape(wide)
        return x * a + b if kind == 3 else (x - b) / a
    if kind == 7:  # threshold
        t = np.frombuffer(data, ("<f4", "i1", "<i2", "<i4")[form], many[operand], first)
        flip = bits(data, second, t.size) if second != 0xFFFFFFFF else 0 * t
        t, flip = t.reshape(wide), flip.reshape(wide)
        return np.where(np.where(flip, x <= t, x >= t), 1.0, -1.0)
    if kind == 25:  # quantize
        (shift, factor), limits = floats(data, first, 2, 0), np.uint32([rows, columns])
        return np.clip(np.rint((x - shift) * factor), *limits.view(np.int32))
    if kind == 8:  # max_pool2d
        return windows(x, size, stride, pad, -np.inf).max((4, 5))
    assert kind in (5, 6, 9), f"operator {kind} is not known to this small reader"
    known = {5: np.maximum(x, 0), 6: np.where(x >= 0, 1.0, -1.0), 9: x.reshape(len(x), -1)}
    return known[kind]


def predict(path, x):
    blob = pathlib.Path(path).read_bytes()
    start = 8 + struct.unpack_from("<Q", blob)[0]
    header = json.loads(blob[8:start])
    spans = (header[name]["data_offsets"] for name in ("program", "data"))
    program, data = (blob[start + first : start + last] for first, last in spans)
    blank = blob[: start + 8] + bytes(4) + blob[start + 12 :]
    assert (program[:4], program[8:12]) == (b"WHIT", struct.pack("<I", zlib.crc32(blank)))
    values = [np.asarray(x, np.float32)]
    for record in struct.iter_unpack("<4B2H4I6BbB", program[40:]):
        values.append(step(record, values[record[4]], data).astype(np.float32))
    return values[-1]


if __name__ == "__main__":
    print(predict(sys.argv[1], np.load(sys.argv[2])).argmax(-1))

"""Remove rain with an exported ONNX file, numpy and onnxruntime alone: run_onnx.py NETWORK.onnx RAINY.npy DRY.npy.

RAINY.npy holds one image, uint8 (height, width, 3) in RGB, as ``numpy.save`` writes it; so will DRY.npy.
"""

import sys

import numpy as np
import onnxruntime

network, rainy, dry = sys.argv[1:]
session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
image = np.load(rainy).astype(np.float32) / 255
background, streak, *mask = session.run(None, {"rainy": image.transpose(2, 0, 1)[None]})
np.save(dry, (background[0].transpose(1, 2, 0) * 255).round().astype(np.uint8))
print(f"mean light removed: {255 * float((image - background[0].transpose(1, 2, 0)).mean()):.2f} of 255")

"""Images in the forms that PNG and JPEG have, and what Pillow and the processors of transformers make of them.

    python make_image_goldens.py ../../../fixtures/goldens/images

Written with Pillow 13.0.0, transformers 5.17.0 (Pillow backend), numpy 2.4.6.
"""
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file
from transformers import CLIPImageProcessorPil, ConvNextImageProcessorPil, ViTImageProcessorPil

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(5)
H, W = 23, 37
yy, xx = np.mgrid[0:H, 0:W]
base = np.stack([255 * xx / (W - 1), 255 * yy / (H - 1), 127 + 120 * np.sin(xx / 3) * np.cos(yy / 4)], -1)
noisy = np.clip(base + rng.normal(0, 25, base.shape), 0, 255).astype(np.uint8)
rgb = Image.fromarray(noisy)
tensors = {}
names = []


def keep(name, image):
    """The file's pixels as transformers loads them."""
    names.append(name)
    upright = ImageOps.exif_transpose(image)
    tensors[f"rgb.{name}"] = np.ascontiguousarray(np.array(upright.convert("RGB")))


def save(name, image, **options):
    image.save(out / name, **options)
    keep(name, Image.open(out / name))


save("rgb.png", rgb)
save("grey.png", rgb.convert("L"))
alpha = Image.fromarray(rng.integers(0, 256, (H, W), np.uint8))
rgba = rgb.copy()
rgba.putalpha(alpha)
save("rgba.png", rgba)
save("grey-alpha.png", rgba.convert("LA"))
save("palette.png", rgb.quantize(40))
save("palette-4-bits.png", rgb.quantize(11), bits=4)
save("palette-transparent.png", rgb.quantize(9), transparency=2)
save("one-bit.png", rgb.convert("1"))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(name, width, height, depth, colour, raw, interlace=0):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    (out / name).write_bytes(b"\x89PNG\r\n\x1a\n" + body)


# Forms that Pillow reads but does not write.
for depth in (2, 4):
    per, values = 8 // depth, rng.integers(0, 2**depth, (H, W))
    rows = np.zeros((H, -(-W // per) * per), np.int64)
    rows[:, :W] = values
    packed = sum(rows[:, i::per] << (depth * (per - 1 - i)) for i in range(per)).astype(np.uint8)
    write_png(f"grey-{depth}-bits.png", W, H, depth, 0, b"".join(b"\0" + row.tobytes() for row in packed))
    keep(f"grey-{depth}-bits.png", Image.open(out / f"grey-{depth}-bits.png"))
wide = (noisy.astype(np.uint16) << 8) | rng.integers(0, 256, noisy.shape).astype(np.uint16)
write_png("rgb-16-bits.png", W, H, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide))
keep("rgb-16-bits.png", Image.open(out / "rgb-16-bits.png"))
adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
raw = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in adam7 for row in noisy[y::dy, x::dx])
write_png("rgb-interlaced.png", W, H, 8, 2, raw, interlace=1)
keep("rgb-interlaced.png", Image.open(out / "rgb-interlaced.png"))

smooth = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))
save("baseline.jpg", smooth, quality=92, subsampling=0)
save("subsampled.jpg", smooth, quality=90, subsampling=2)
save("progressive.jpg", smooth, quality=92, subsampling=0, progressive=True)
save("grey.jpg", smooth.convert("L"), quality=92)
for orientation in range(2, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(f"turned-{orientation}.jpg", smooth.resize((12, 8)), quality=95, subsampling=0, exif=exif)

for resample in range(6):
    for width, height in ((12, 9), (64, 50), (37, 11), (20, 23)):
        tensors[f"resize.{resample}.{width}x{height}"] = np.array(rgb.resize((width, height), resample))
    tensors[f"resize.{resample}.grey"] = np.array(rgb.convert("L").resize((15, 31), resample))

mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
half = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
processors = {
    "vit": ViTImageProcessorPil(size={"height": 16, "width": 16}, resample=2, **half),
    "vit-nearest": ViTImageProcessorPil(size={"height": 30, "width": 20}, resample=0, do_normalize=False),
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, resample=3, image_mean=mean, image_std=std),
    "clip-padded": CLIPImageProcessorPil(size={"shortest_edge": 9}, crop_size={"height": 14, "width": 11}, resample=3, image_mean=mean, image_std=std),
    "clip-raw": CLIPImageProcessorPil(do_resize=False, crop_size={"height": 12, "width": 18}, do_rescale=False, image_mean=mean, image_std=std),
    "convnext": ConvNextImageProcessorPil(size={"shortest_edge": 14}, crop_pct=0.875, resample=3, image_mean=mean, image_std=std),
}
configs = {}
for name, processor in processors.items():
    config = json.loads(processor.to_json_string())
    config["image_processor_type"] = type(processor).__name__.removesuffix("Pil")
    configs[name] = config
    tensors[f"pixels.{name}"] = np.ascontiguousarray(processor(rgb, return_tensors="np")["pixel_values"][0].astype(np.float32))
(out / "processors.json").write_text(json.dumps(configs, indent=1) + "\n")
save_file(tensors, out / "golden.safetensors")
print({name: value.shape for name, value in tensors.items() if name.startswith("pixels")})

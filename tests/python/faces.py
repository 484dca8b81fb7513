"""Faces for the tests: three people, two images of each, that look like what a counter's camera sends."""

import io
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageEnhance

ROOT = Path(__file__).resolve().parents[2]
CROPS = ROOT.parent / "shared/faces/crops"
PHOTOS = ROOT / "data/photos"
BOXES = ROOT / "tests/data/faces.json"

# Two mated crops of each of three people.
PAIRS = [("stuart1", "stuart2"), ("howard1", "howard2"), ("amy1", "amy2")]


@dataclass(frozen=True)
class Person:
    """Two different images of one person, as encoded files."""

    reference: bytes
    probe: bytes


def people() -> list[Person]:
    """From the crops beside the repository; without them, cut out of the photos that come with the default model."""
    if CROPS.is_dir():
        print(f"faces: using the crops in {CROPS.relative_to(ROOT.parent)}")
        read = lambda name: (CROPS / f"{name}.png").read_bytes()
        return [Person(read(reference), read(probe)) for reference, probe in PAIRS]
    print("faces: no crops beside the repository, cutting faces out of the photos that `make model` fetched")
    return [person_in(PHOTOS, face) for face in json.loads(BOXES.read_text())["faces"]]


def person_in(photos: Path, face: dict) -> Person:
    """The probe is the same face as another camera might have framed, lit and stored it."""
    with Image.open(photos / face["photo"]) as opened:
        photo = opened.convert("RGB")
    reference = crop(photo, face["box"], margin=1.35, shift=0.0)
    probe = ImageEnhance.Brightness(crop(photo, face["box"], margin=1.5, shift=0.04)).enhance(1.12)
    return Person(encoded(reference, "PNG"), encoded(probe, "JPEG", quality=80))


def crop(photo: Image.Image, box: list[float], margin: float, shift: float) -> Image.Image:
    """A square of `margin` times the box's longer side around its centre, moved right by `shift` sides."""
    x, y, w, h = (share * size for share, size in zip(box, photo.size * 2))
    side = margin * max(w, h)
    left, top = x + w / 2 - side / 2 + shift * side, y + h / 2 - side / 2
    return photo.crop(tuple(round(edge) for edge in (left, top, left + side, top + side)))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A well-formed PNG file that claims a size and holds a single byte of pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")

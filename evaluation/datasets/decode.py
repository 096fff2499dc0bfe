"""Image files to one array of pixels."""

import io
import os
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from evaluation.datasets.containers import Container
from evaluation.datasets.progress import Watch
from spaces.errors import InputError
from spaces.files.untrusted_text import shortened

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
MOST_PIXELS = 25_000_000  # of one image: decoders need up to 16 bytes for each
_WEIGHT = {"WEBP": 1.25}  # whose decoder needs 20 bytes
STRIP = 1 << 20  # pixels that are converted at a time, since a conversion takes several copies


def decode(
    container: Container, names: Sequence[str], image_size: int, shape: tuple[int, ...] | None, watch: Watch
) -> tuple[np.ndarray, dict[str, int]]:
    """The images (N, C, H, W) in the order of ``names``, as uint8, and the number of files by format.

    Grey (C = 1) if all are, else RGB; or of the given ``shape``, whose channels grey and coloured images are brought
    to. A square of ``image_size`` pixels if that is not 0. Raises InputError for what is not an image, or of another size.

    Threads were measured not to help: for 50,000 JPEG files of 32×32, one took 6.0 s, and two 7.7 s in chunks of 500 and
    11.1 s one by one (two Xeon cores); Pillow's calls on such small images are too short.
    """
    position = {name: at for at, name in enumerate(names)}
    images: np.ndarray | None = None
    formats: Counter[str] = Counter()
    fixed = shape is not None
    with warnings.catch_warnings(), watch:
        warnings.simplefilter("ignore")  # of Pillow, on metadata that nobody reads
        for name, content in container.read(names):
            picture, kind = _picture(content, f"{container.path}/{name}", image_size)
            formats[kind] += 1
            shape = shape or (len(picture.getbands()), picture.height, picture.width)
            if picture.mode == "RGB" and shape[0] == 1 and not fixed:  # the first coloured image among grey ones
                shape = (3, *shape[1:])
                images = images if images is None else np.repeat(images, 3, axis=1)
            if (picture.height, picture.width) != shape[1:]:
                raise InputError(
                    f"{container.path}/{name} is {picture.width}×{picture.height} pixels where others are "
                    f"{shape[2]}×{shape[1]}; resize all with --image-size"
                )
            images = _room(len(names), shape) if images is None else images
            pixels = np.asarray(picture.convert("L" if shape[0] == 1 else "RGB"))
            images[position[name]] = pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1)
            watch.update(1)
    assert images is not None, "an empty part is refused before"
    return images, dict(sorted(formats.items()))


def _picture(content: bytes, where: str, image_size: int) -> tuple[Image.Image, str]:
    """The image, grey ("L") or "RGB", and its format; what is transparent becomes white. Raises InputError."""
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        if image.width * image.height * _WEIGHT.get(image.format, 1.0) > MOST_PIXELS:
            raise ValueError(f"{image.width}×{image.height} pixels are too many")
        if image.mode.startswith("I") or image.mode == "F":
            raise ValueError(f"its mode {image.mode} has more than 8 bits a channel; convert it to 8 bits")
        mode, kind = "L" if image.mode in ("1", "L", "LA") else "RGB", image.format or "unknown"
        picture = _on_white(image, mode) if image.has_transparency_data else image.convert(mode)
    except Image.UnidentifiedImageError:
        raise InputError(f"cannot read the image {where}: its content is not an image of a known format") from None
    except Exception as error:  # damaged files fail in many ways inside the decoders
        raise InputError(f"cannot read the image {where}: {shortened(str(error), 300)}") from None
    if image_size:
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return picture, kind


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    """The image on a white ground, strip by strip."""
    picture, height = Image.new(mode, image.size), max(1, STRIP // image.width)
    for top in range(0, image.height, height):
        strip = image.crop((0, top, image.width, min(top + height, image.height))).convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        picture.paste(strip.convert(mode), (0, top))
    return picture


def _room(count: int, shape: tuple[int, ...]) -> np.ndarray:
    """An array for the images. Raises InputError where they cannot fit into this machine's memory."""
    needed = count * int(np.prod(shape))
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        memory = needed + 1
    if needed < memory:
        return np.empty((count, *shape), dtype=np.uint8)
    size = f"{shape[2]}×{shape[1]}"
    raise InputError(
        f"{count:,} images of {size} pixels need {needed / 2**30:.0f} GiB, and this machine has {memory / 2**30:.0f}; "
        "make them smaller with --image-size"
    )

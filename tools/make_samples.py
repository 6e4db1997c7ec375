"""Draws the simulator's sample media: an invented card and face, and a nodding, blinking face on video.

Needs `pip install pillow av` and a CJK font (`apt-get install fonts-noto-cjk`), which the project itself does not. Run
in the project's root; writes simulator/samples/:

    python -m tools.make_samples
"""

import math
from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"
SAMPLES = Path("simulator/samples")
# The proportions of an ID-1 card.
CARD = (1280, 808)
FRAME = (480, 640)
FRAMES_PER_SECOND = 24
SECONDS = 5
BLINK_SECONDS = 0.15
FRONT_LINES = (
    "姓名  样本人",
    "性别  －    民族  －",
    "出生  0000年00月00日",
    "住址  样本省演示市测试区虚构路",
    "号码  000000 00000000 0000",
)
BACK_LINES = ("样本身份证件", "签发机关  演示市测试局", "有效期限  0000.00.00－长期")
PAPER, INK, SKIN, HAIR = (226, 238, 244), (45, 60, 80), (238, 204, 178), (70, 60, 62)


def main() -> None:
    """Writes the four files."""
    SAMPLES.mkdir(exist_ok=True)
    card(FRONT_LINES, with_face=True).save(SAMPLES / "id_card_front.jpg", quality=82)
    card(BACK_LINES, with_face=False).save(SAMPLES / "id_card_back.jpg", quality=82)
    frame(0.0).save(SAMPLES / "best_frame.jpg", quality=85)
    write_video(
        SAMPLES / "liveness_video.mp4", (frame(n / FRAMES_PER_SECOND) for n in range(FRAMES_PER_SECOND * SECONDS))
    )


def card(lines: tuple[str, ...], *, with_face: bool) -> Image.Image:
    """Draws one side of a card that no state issues."""
    image = Image.new("RGB", CARD, PAPER)
    draw = ImageDraw.Draw(image)
    for x in range(-CARD[1], CARD[0], 26):
        draw.line((x, CARD[1], x + CARD[1], 0), fill=(212, 226, 236), width=3)
    for number, line in enumerate(lines):
        draw.text((90, 110 + 125 * number), line, font=font(52), fill=INK)
    if with_face:
        image.paste(face(0.0, (330, 410)), (860, 130))
    return grained(watermarked(image))


def frame(second: float) -> Image.Image:
    """Draws the camera's picture at that second."""
    image = face(second, FRAME)
    draw = ImageDraw.Draw(image)
    draw.text((24, FRAME[1] - 64), f"样本 SYNTHETIC  {second:05.2f}", font=font(28), fill=(200, 40, 40))
    return grained(image)


def face(second: float, size: tuple[int, int]) -> Image.Image:
    """Draws a face that nods, looks around, blinks once a second and opens its mouth."""
    width, height = size
    image = Image.new("RGB", size, (150, 176, 190))
    draw = ImageDraw.Draw(image)
    x = width / 2 + width * 0.05 * math.sin(2 * second)
    y = height * 0.43 + height * 0.03 * math.sin(5 * second)
    unit = width / 10

    def oval(dx: float, dy: float, rx: float, ry: float, fill: tuple[int, int, int]) -> None:
        centre_x, centre_y = x + dx * unit, y + dy * unit
        draw.ellipse(
            (centre_x - rx * unit, centre_y - ry * unit, centre_x + rx * unit, centre_y + ry * unit), fill=fill
        )

    oval(0, 6.4, 4.4, 2.6, (88, 110, 150))
    oval(0, -0.6, 2.8, 3.3, HAIR)
    oval(0, 0.2, 2.5, 3.1, SKIN)
    is_blinking = second % 1 > 1 - BLINK_SECONDS
    for side in (-1, 1):
        oval(side * 1.0, -0.4, 0.45, 0.06 if is_blinking else 0.28, (250, 250, 250))
        oval(side * 1.0, -0.4, 0.2, 0.05 if is_blinking else 0.22, INK)
    oval(0, 0.6, 0.22, 0.4, (222, 180, 150))
    oval(0, 1.8, 0.8, 0.12 + 0.2 * abs(math.sin(3 * second)), (176, 84, 84))
    return image


def watermarked(image: Image.Image) -> Image.Image:
    """Writes a notice across the picture."""
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    for row in range(3):
        draw.text((90 + 60 * row, 90 + 250 * row), "样本 SYNTHETIC 样本", font=font(110), fill=(205, 40, 40, 90))
    return Image.alpha_composite(image.convert("RGBA"), layer.rotate(12)).convert("RGB")


def grained(image: Image.Image) -> Image.Image:
    """Adds a sensor's noise, which gives the file a realistic size."""
    noise = Image.effect_noise(image.size, 34).convert("RGB")
    return Image.blend(image, noise, 0.09)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Returns the CJK font."""
    return ImageFont.truetype(FONT, size)


def write_video(path: Path, frames: Iterator[Image.Image]) -> None:
    """Encodes H.264 in MP4, as phones record it."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"preset": "slow"})
        stream.bit_rate = 1_150_000
        stream.width, stream.height = FRAME
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()

"""The main job: a client sends an image, and gets the model's tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def test_a_picture_of_another_size_is_recognised_by_a_model_named_by_its_path(start_server, models: Path) -> None:
    picture = np.asarray(Image.open(models / "grace_hopper_300x300.bmp").convert("RGB"))[np.newaxis]
    with start_server("-j", "2").client() as client:
        (scores,) = client.predict(str(models / "mobilenet_v2_1.0_224_quant.tflite"), {"data": picture}).values()
    assert scores.shape == (1, 1001)
    assert scores.argmax() == 653
    assert 200 <= scores.max() <= 242


def test_a_digit_is_read_by_a_model_with_a_name(start_server) -> None:
    picture = np.asarray(Image.open(DIGITS / "pictures" / "3-a.png").convert("RGB"))[np.newaxis]
    with start_server("-j", "2", "-m", f"digits={DIGITS / 'digits.tflite'}").client() as client:
        outputs = client.predict("digits", {"data": picture})
    assert list(outputs) == ["digit"]
    assert outputs["digit"].argmax() == 3

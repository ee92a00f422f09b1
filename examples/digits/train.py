"""Train, quantise and measure the digits model, and write it together with its pictures.

This needs `train-requirements.txt` and takes a few minutes on two cores without a GPU.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import keras  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np
import tensorflow as tf  # type: ignore[import-not-found,import-untyped,unused-ignore]
from digits import Digits, split
from numpy.typing import NDArray
from rendering import INPUT_SIZE, Shrinking, chroma_subsampled, exam, gallery, noisy, random_look, render, shrink
from tensorflow.lite.tools import flatbuffer_utils  # type: ignore[import-not-found,import-untyped,unused-ignore]

Pictures = NDArray[np.uint8]  # [n, 32, 32, 3]

HERE = Path(__file__).parent
SHRINKINGS: tuple[Shrinking, ...] = ("smooth", "box", "sparse")
CALIBRATION_PICTURES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "digits.tflite", help="the model")
    parser.add_argument("--pictures", type=Path, default=HERE / "pictures", help="folder for held-back digits as PNG")
    parser.add_argument("--variants", type=int, default=20, help="pictures to draw of each digit learnt from")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    keras.utils.set_random_seed(args.seed)
    tf.config.experimental.enable_op_determinism()
    learn, held_back = split()

    pictures = draw(learn, args.variants, np.random.default_rng(args.seed))
    model = train(pictures, np.tile(learn.labels, args.variants), args.epochs)
    content = quantise(model, pictures[:: len(pictures) // CALIBRATION_PICTURES])
    args.output.write_bytes(content)

    args.pictures.mkdir(exist_ok=True)
    for name, picture in gallery(held_back.strokes, held_back.labels):
        picture.save(args.pictures / name, optimize=True)

    print(f"{args.output}: {len(content)} bytes, {model.count_params()} parameters")
    readers = {
        "float": lambda pictures: model.predict(_to_unit(pictures), verbose=0).argmax(axis=1),
        "uint8": lambda pictures: read_quantised(content, pictures),
    }
    report(readers, held_back)


def draw(digits: Digits, variants: int, rng: np.random.Generator) -> Pictures:
    def picture(stroke: NDArray[np.float32]) -> Pictures:
        drawn = render(stroke, random_look(rng))
        if rng.integers(2):
            drawn = chroma_subsampled(drawn)
        drawn = shrink(drawn, SHRINKINGS[rng.integers(len(SHRINKINGS))])
        if rng.integers(2):
            drawn = chroma_subsampled(drawn)
        return np.asarray(noisy(drawn, rng.uniform(0, 8), rng))

    return np.stack([picture(stroke) for _ in range(variants) for stroke in digits.strokes])


def train(pictures: Pictures, labels: NDArray[np.int64], epochs: int) -> keras.Model:
    layers = keras.layers

    def convolution(filters: int, stride: int) -> list[keras.Layer]:
        return [
            layers.Conv2D(filters, 3, stride, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]

    model = keras.Sequential(
        [
            layers.Input((*INPUT_SIZE, 3)),
            *convolution(16, stride=2),
            *convolution(32, stride=1),
            *convolution(48, stride=2),
            *convolution(64, stride=2),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    batch = 128
    steps = epochs * -(-len(pictures) // batch)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    data = tf.data.Dataset.from_tensor_slices((pictures, labels)).shuffle(len(pictures), seed=1)
    model.fit(data.batch(batch).map(lambda seen, label: (_to_unit(seen), label)), epochs=epochs, verbose=2)
    return model


def quantise(model: keras.Model, calibration: Pictures) -> bytes:
    """Quantise every tensor to 8 bits. A pixel of 0 to 255 then stands for 0 to 1, as in training."""

    def samples() -> Iterator[list[tf.Tensor]]:
        yield [tf.zeros((1, *INPUT_SIZE, 3))]
        yield [tf.ones((1, *INPUT_SIZE, 3))]
        for picture in calibration:
            yield [_to_unit(picture[np.newaxis])]

    recognise = tf.function(lambda data: model(data, training=False)).get_concrete_function(
        tf.TensorSpec((1, *INPUT_SIZE, 3), tf.float32, name="data")
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([recognise])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return _with_output_named(converter.convert(), "digit")


def read_quantised(content: bytes, pictures: Pictures) -> NDArray[np.int64]:
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (data,), (digit,) = interpreter.get_input_details(), interpreter.get_output_details()
    read = []
    for picture in pictures:
        interpreter.set_tensor(data["index"], picture[np.newaxis])
        interpreter.invoke()
        read.append(interpreter.get_tensor(digit["index"]).argmax())
    return np.array(read)


def report(readers: dict[str, Callable[[Pictures], NDArray[np.int64]]], held_back: Digits) -> None:
    labels = np.repeat(held_back.labels, 2)
    mistaken: Counter[tuple[int, int]] = Counter()
    for way, through_video in (("as drawn", False), ("through video", True)):
        seen = exam(held_back.strokes, through_video=through_video)
        for name, read_by in readers.items():
            read = read_by(seen)
            print(f"{name}, {way}: {np.mean(read == labels):.1%} of {len(labels)} pictures")
            if name == "uint8":
                wrong = read != labels
                mistaken.update(zip(labels[wrong].tolist(), read[wrong].tolist(), strict=True))
    for (label, taken_for), times in mistaken.most_common():
        print(f"uint8 took a {label} for a {taken_for}: {times} of {2 * np.sum(labels == label)}")


def _to_unit(pictures: Pictures | tf.Tensor) -> tf.Tensor:
    return tf.cast(pictures, tf.float32) / 255


def _with_output_named(content: bytes, name: str) -> bytes:
    """Rename the output, which the converter calls `Identity`. The input gets its name from the TensorSpec."""
    flatbuffer = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    (graph,) = flatbuffer.subgraphs
    graph.tensors[graph.outputs[0]].name = name.encode()
    return bytes(flatbuffer_utils.convert_object_to_bytearray(flatbuffer))


if __name__ == "__main__":
    main()

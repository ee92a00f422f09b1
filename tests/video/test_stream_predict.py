"""Models that run on the newest frame of a stream, and the frames that can be fetched again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import pytest
import video_client
from acap_runtime import NotReady
from acap_runtime_debug import read_stamp
from acap_runtime_libyuv import LibyuvBackend
from calls import SOON_S, code_of, soon
from converters import NO_CONVERTERS
from PIL import Image
from video_client import CODE, PLANAR_RGB, RGB, STARTED, UTC, YUV, processes_of, segments_mapped

MONO_CAPTURE, CLIENT_CAPTURE_DIFF = 8, 44
SIZE = (224, 224)
SHAPE = (1, 224, 224, 3)
PICTURE = 'inputs = [{name = "image", shape = [1, 224, 224, 3]}]'
MODELS = {
    "picture": PICTURE,
    "slow": f"{PICTURE}\ndelay = 0.6",
    "small": 'inputs = [{name = "image", shape = [1, 96, 128, 3]}]',
    "planar": 'inputs = [{name = "image", shape = [1, 3, 224, 224]}]',
    "nv12": 'inputs = [{name = "image", shape = [1, 336, 224]}]',
    "numbers": 'inputs = [{name = "image", dtype = "float32", shape = [1, 224, 224, 3]}]',
    "bytes": "",
    "two": (
        'inputs = [{name = "image", shape = [1, 224, 224, 3]}, {name = "threshold", dtype = "float32", shape = [1]}]'
    ),
    "pictures": 'inputs = [{name = "left", shape = [1, 224, 224, 3]}, {name = "right", shape = [1, 96, 128, 3]}]',
}


def libyuv_is_ready() -> bool:
    try:
        LibyuvBackend().probe()
    except NotReady:
        return False
    return True


needs_libyuv = pytest.mark.skipif(not libyuv_is_ready(), reason="libyuv is not installed")


class Video(video_client.Video):
    """Its streams are raw RGB of the model's size unless it says otherwise."""

    def open(
        self,
        stream_format: int = RGB,
        size: tuple[int, int] = SIZE,
        framerate: int = 20,
        timestamps: int = MONO_CAPTURE,
        camera: str = "1",
    ) -> int:
        return super().open(stream_format, size, framerate, timestamps, camera=camera)


def chip_worker(server: Any) -> int:
    cameras = {int(process) for _, process in STARTED.findall(server.log)}
    (worker,) = set(server.workers()) - cameras
    return worker


def valid_stamp(frame: Any, size: tuple[int, int] = SIZE) -> int:
    """The number in the pixels of an RGB frame, which are the very pixels of the frame that it says it is."""
    width, height = size
    stamp = read_stamp(np.frombuffer(frame.data, np.uint8).reshape(height, width, 3), "rgb-interleaved")
    assert stamp.captured_us == frame.timestamp
    return stamp.number


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    for name, content in MODELS.items():
        (folder / f"{name}.toml").write_text(content)
    return {name: str(folder / f"{name}.toml") for name in MODELS}


@pytest.fixture(scope="module")
def server(start_shared_server: Callable[..., Any], models: dict[str, str]) -> Any:
    preloaded = [word for name, path in models.items() for word in ("-m", f"{name}={path}")]
    return start_shared_server("-j", 1, *preloaded, "--camera", "test-pattern")


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    with server.client() as made:
        yield made


@pytest.fixture
def video(client: Any) -> Iterator[Video]:
    """A client, whose streams are gone after the test."""
    made = Video(client.channel)
    yield made
    made.close()


def test_the_model_sees_the_very_pixels_of_the_frame_that_is_referred_to(client: Any, video: Video) -> None:
    stream = video.open()
    for _ in range(3):
        answer = client.send(client.request("picture", stream_id=stream))
        assert answer.frame_reference > 0
        frame = video.frame(stream, answer.frame_reference)
        assert client.arrays(answer)["image"].tobytes() == frame.data
        assert frame.sequence_nbr == frame.id == answer.frame_reference
        assert frame.type == "rgb"
        valid_stamp(frame)


def test_a_model_runs_on_the_newest_frame_and_hands_out_none(client: Any, video: Video) -> None:
    stream = video.open(framerate=5)
    last = video.frame(stream)
    answers = [client.send(client.request("picture", stream_id=stream)) for _ in range(3)]
    assert all(answer.frame_reference >= last.sequence_nbr for answer in answers)
    assert answers[-1].frame_reference <= last.sequence_nbr + 2
    # What models saw is handed out all the same.
    following = video.frame(stream)
    assert last.sequence_nbr < following.sequence_nbr
    assert valid_stamp(following) - valid_stamp(last) == following.sequence_nbr - last.sequence_nbr


def test_the_first_prediction_waits_for_the_first_frame(client: Any, video: Video) -> None:
    assert client.send(client.request("picture", stream_id=video.open(framerate=1))).frame_reference == 1


def test_planar_and_nv12_models_take_frames_of_their_own_format_as_they_are(client: Any, video: Video) -> None:
    for model, stream_format in (("planar", PLANAR_RGB), ("nv12", YUV)):
        stream = video.open(stream_format)
        answer = client.send(client.request(model, stream_id=stream))
        assert client.arrays(answer)["image"].tobytes() == video.frame(stream, answer.frame_reference).data


def rgb_of(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """R, G and B of an NV12 frame, BT.601 with limited range."""
    width, height = size
    planes = np.frombuffer(frame.data, np.uint8).reshape(height * 3 // 2, width).astype(float)
    chroma = planes[height:].reshape(height // 2, width // 2, 2).repeat(2, axis=0).repeat(2, axis=1) - 128
    luma, blue, red = 1.164 * (planes[:height] - 16), chroma[..., 0], chroma[..., 1]
    pixels = [luma + 1.596 * red, luma - 0.392 * blue - 0.813 * red, luma + 2.017 * blue]
    return np.stack(pixels, axis=2).clip(0, 255).round().astype(np.uint8)


def difference(picture: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(picture.astype(float) - expected.astype(float)).mean())


@needs_libyuv
@pytest.mark.parametrize("size", [(640, 480), (224, 224), (1920, 1080), (320, 240)])
def test_nv12_becomes_rgb_of_the_models_size(client: Any, video: Video, size: tuple[int, int]) -> None:
    stream = video.open(YUV, size)
    answer = client.send(client.request("picture", stream_id=stream))
    frame = video.frame(stream, answer.frame_reference)
    assert frame.type == "yuv"
    image = client.arrays(answer)["image"]
    assert image.shape == SHAPE
    expected = Image.fromarray(rgb_of(frame, size)).resize(SIZE, Image.Resampling.BILINEAR)
    assert difference(image[0], np.asarray(expected)) < 6
    # Bars that are wide: in their middle no way of scaling matters.
    assert np.abs(image[0, 90, 14::28].astype(int) - np.asarray(expected)[90, 14::28].astype(int)).max() < 8


@needs_libyuv
@pytest.mark.parametrize(("stream_format", "size"), [(RGB, (640, 480)), (RGB, (301, 201)), (PLANAR_RGB, (224, 224))])
def test_other_raw_formats_and_sizes_are_converted_too(
    client: Any, video: Video, stream_format: int, size: tuple[int, int]
) -> None:
    stream = video.open(stream_format, size)
    answer = client.send(client.request("picture", stream_id=stream))
    width, height = size
    pixels = np.frombuffer(video.frame(stream, answer.frame_reference).data, np.uint8)
    pixels = pixels.reshape(height, width, 3) if stream_format == RGB else np.moveaxis(pixels.reshape(3, *SIZE), 0, 2)
    expected = Image.fromarray(np.ascontiguousarray(pixels)).resize(SIZE, Image.Resampling.BILINEAR)
    assert difference(client.arrays(answer)["image"][0], np.asarray(expected)) < 6


def test_without_a_chip_that_converts_the_answer_says_what_to_install(start_server, models: dict[str, str]) -> None:
    server = start_server("-j", 1, *NO_CONVERTERS, "-m", models["picture"], "--camera", "test-pattern")
    with server.client() as client:
        video = Video(client.channel)
        stream = video.open(YUV)
        code, details = code_of(lambda: client.send(client.request(models["picture"], stream_id=stream)))
        assert code == CODE.FAILED_PRECONDITION
        assert "acap-runtime-libyuv" in details
        assert client.send(client.request(models["picture"], stream_id=video.open())).frame_reference


def shape_only(client: Any, shape: tuple[int, ...] = SHAPE) -> Any:
    proto = client.stubs.tensor.TensorProto(dtype=client.stubs.types.DT_UINT8)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize("name", ["image", "data"])
def test_an_input_may_be_given_with_a_shape_alone(client: Any, video: Video, name: str) -> None:
    stream = video.open()
    answer = client.send(client.request("picture", {name: shape_only(client)}, stream_id=stream))
    assert client.arrays(answer)["image"].tobytes() == video.frame(stream, answer.frame_reference).data


@pytest.mark.parametrize("name", ["image", "data"])
def test_data_beside_the_picture_is_refused(client: Any, video: Video, name: str) -> None:
    request = client.request("picture", {name: np.zeros(SHAPE, np.uint8)}, stream_id=video.open())
    code, details = code_of(lambda: client.send(request))
    assert code == CODE.INVALID_ARGUMENT
    assert "'image'" in details
    assert f"'{name}'" in details


@pytest.mark.parametrize("model", ["numbers", "bytes"])
def test_a_model_that_takes_no_picture_is_refused(client: Any, video: Video, model: str) -> None:
    stream = video.open()
    code, details = code_of(lambda: client.send(client.request(model, stream_id=stream)))
    assert code == CODE.INVALID_ARGUMENT
    assert f"stream {stream}" in details
    assert ("float32" if model == "numbers" else "uint8") in details
    assert "rgb-interleaved" in details


def test_a_model_of_two_inputs_takes_the_picture_for_the_one_that_is_not_given(client: Any, video: Video) -> None:
    stream, threshold = video.open(), np.array([0.25], np.float32)
    for others in ({}, {"image": shape_only(client)}):
        request = client.request("two", {"threshold": threshold, **others}, stream_id=stream)
        answer = client.send(request)
        outputs = client.arrays(answer)
        assert outputs["threshold"].tolist() == [0.25]
        assert outputs["image"].tobytes() == video.frame(stream, answer.frame_reference).data
    both = {"threshold": threshold, "image": np.zeros(SHAPE, np.uint8)}
    for given in ({}, both, {"wrong": threshold}, {"threshold": shape_only(client)}):
        code, details = code_of(lambda given=given: client.send(client.request("two", given, stream_id=stream)))
        assert code == CODE.INVALID_ARGUMENT
        assert "'image'" in details
        assert "'threshold'" in details


@needs_libyuv
def test_a_model_of_two_pictures_takes_the_streams_for_one_and_a_tensor_for_the_other(
    client: Any, video: Video
) -> None:
    stream, right = video.open(), np.random.default_rng(1).integers(0, 256, (1, 96, 128, 3), np.uint8)
    answer = client.send(client.request("pictures", {"right": right}, stream_id=stream))
    outputs = client.arrays(answer)
    assert outputs["right"].tobytes() == right.tobytes()
    assert outputs["left"].tobytes() == video.frame(stream, answer.frame_reference).data
    left = np.zeros((1, 224, 224, 3), np.uint8)
    answer = client.send(client.request("pictures", {"left": left}, stream_id=stream))
    assert client.arrays(answer)["right"].shape == (1, 96, 128, 3)
    assert client.arrays(answer)["right"].any()


def test_an_output_filter_and_tensors_without_a_stream_work_as_ever(client: Any, video: Video) -> None:
    stream = video.open()
    request = client.request("two", {"threshold": np.ones(1, np.float32)}, stream_id=stream)
    request.output_filter.append("threshold")
    assert list(client.arrays(client.send(request))) == ["threshold"]
    image = np.full(SHAPE, 7, np.uint8)
    answer = client.send(client.request("picture", {"data": image}))
    assert client.arrays(answer)["image"].tobytes() == image.tobytes()
    assert answer.frame_reference == 0


def referred(client: Any, stream: int, count: int, model: str = "picture") -> list[Any]:
    """Answers on `count` different frames."""
    answers: dict[int, Any] = {}
    end = time.monotonic() + 10
    while len(answers) < count:
        answer = client.send(client.request(model, stream_id=stream))
        answers[answer.frame_reference] = answer
        assert time.monotonic() < end
        time.sleep(0.02)
    return list(answers.values())


@pytest.mark.parametrize("timestamps", [UTC, CLIENT_CAPTURE_DIFF])
def test_the_last_three_frames_of_models_stay_as_they_were(client: Any, video: Video, timestamps: int) -> None:
    stream = video.open(timestamps=timestamps)
    answers = referred(client, stream, 5)
    references = [answer.frame_reference for answer in answers]
    kept = {reference: video.frame(stream, reference) for reference in references[2:]}
    for answer in answers[2:]:
        assert kept[answer.frame_reference].data == client.arrays(answer)["image"].tobytes()
    for _ in range(25):  # more than the ring has slots
        video.frame(stream)
    for reference, before in kept.items():
        again = video.frame(stream, reference)
        assert again == before
        assert again.sequence_nbr == reference
        assert again.custom_timestamp == before.custom_timestamp
    for reference in references[:2]:
        code, details = code_of(lambda reference=reference: video.frame(stream, reference))
        assert code == CODE.NOT_FOUND
        assert f"frame {reference}" in details
        assert ", ".join(map(str, references[2:])) in details
        assert "--kept-frames 3" in details


def test_a_frame_that_no_model_ran_on_is_not_kept(client: Any, video: Video) -> None:
    stream = video.open()
    code, details = code_of(lambda: video.frame(stream, video.frame(stream).sequence_nbr))
    assert code == CODE.NOT_FOUND
    assert "none" in details


def test_streams_that_share_a_capture_keep_frames_of_their_own(client: Any, video: Video) -> None:
    streams = [video.open() for _ in range(6)]
    references = {}
    for stream in streams:
        references[stream] = [answer.frame_reference for answer in referred(client, stream, 3)]
    contents = {}
    for stream in streams:
        contents[stream] = [video.frame(stream, reference) for reference in references[stream]]
        for reference, frame in zip(references[stream], contents[stream], strict=True):
            assert frame.sequence_nbr == reference
            valid_stamp(frame)
    video.delete(streams[0])
    video.frame(streams[1])
    for stream in streams[1:]:
        assert [video.frame(stream, reference) for reference in references[stream]] == contents[stream]
        assert code_of(lambda stream=stream: video.frame(stream, references[streams[0]][0]))[0] == CODE.NOT_FOUND


def test_eight_clients_of_one_stream_each_get_right_answers_of_two_instances(
    start_server, models: dict[str, str]
) -> None:
    server = start_server(
        *("-j", 1, *NO_CONVERTERS, "-m", models["picture"], "--instances", 2),
        *("--camera", "test-pattern", "--kept-frames", 40),
    )
    with server.client() as client, ThreadPoolExecutor(9) as pool:
        video = Video(client.channel)
        stream, stop = video.open(framerate=30), threading.Event()

        def predict() -> set[int]:
            with server.client() as mine:
                own, references = Video(mine.channel), set()
                while not stop.is_set():
                    answer = mine.send(mine.request(models["picture"], stream_id=stream))
                    frame = own.frame(stream, answer.frame_reference)
                    assert mine.arrays(answer)["image"].tobytes() == frame.data
                    valid_stamp(frame)
                    references.add(answer.frame_reference)
            return references

        def watch() -> int:
            frames = []
            while not stop.is_set():
                frames.append(video.frame(stream).sequence_nbr)
            assert all(earlier < later for earlier, later in pairwise(frames))
            return len(frames)

        calls, watching = [pool.submit(predict) for _ in range(8)], pool.submit(watch)
        time.sleep(3)
        stop.set()
        assert all(len(call.result()) > 5 for call in calls)
        assert watching.result() > 20


def test_predictions_that_wait_for_the_chip_run_on_the_frame_that_is_newest_then(client: Any, video: Video) -> None:
    stream = video.open()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.send, client.request("slow", stream_id=stream)) for _ in range(4)]
        references = sorted(call.result().frame_reference for call in calls)
    # Two are with the chip at once; the third has its frame 0.6 s later.
    assert references[2] - references[0] >= 5
    assert references[3] - references[1] >= 5


@pytest.mark.parametrize("shared", [False, True])
def test_a_stream_that_is_deleted_while_models_run_on_it_ends_the_calls_in_order(
    client: Any, video: Video, shared: bool
) -> None:
    stream = video.open()
    other = video.open() if shared else 0
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.send, client.request("slow", stream_id=stream)) for _ in range(4)]
        time.sleep(0.3)
        video.delete(stream)
        for call in calls:
            error = call.exception()
            if error is None:
                assert client.arrays(call.result())["image"].any()
            else:
                assert error.code() == CODE.FAILED_PRECONDITION, error
                assert f"stream {stream} was deleted" in error.details()
    if shared:
        valid_stamp(video.frame(other))
    code, _ = code_of(lambda: client.send(client.request("slow", stream_id=stream)))
    assert code == CODE.FAILED_PRECONDITION
    assert client.send(client.request("picture", stream_id=video.open())).frame_reference


def test_predictions_of_a_camera_that_dies_end_and_work_again_when_it_is_back(
    server: Any, client: Any, video: Video
) -> None:
    stream = video.open()
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(client.send, client.request("slow", stream_id=stream)) for _ in range(6)]
        time.sleep(0.3)
        os.kill(processes_of(server, "test-pattern")[-1], signal.SIGKILL)
        answers = []
        for call in calls:
            error = call.exception()
            if error is None:
                answers.append(call.result())
            else:
                assert error.code() == CODE.UNAVAILABLE, error
                assert "SIGKILL" in error.details()
        # The chip had their frames already.
        assert len(answers) >= 1
        answers.sort(key=lambda answer: answer.frame_reference)  # the order in which they ran
        for answer in answers[-2:]:
            frame = video.frame(stream, answer.frame_reference)
            assert client.arrays(answer)["image"].tobytes() == frame.data
            valid_stamp(frame)
    end = time.monotonic() + SOON_S
    while True:
        try:
            answer = client.send(client.request("picture", stream_id=stream))
            break
        except grpc.RpcError as error:
            assert error.code() == CODE.UNAVAILABLE  # noqa: PT017
            assert time.monotonic() < end
            time.sleep(0.02)
    assert answer.frame_reference > max(each.frame_reference for each in answers)
    assert client.arrays(answer)["image"].tobytes() == video.frame(stream, answer.frame_reference).data


def test_a_chip_worker_that_is_killed_takes_only_its_calls_and_the_stream_goes_on(
    server: Any, client: Any, video: Video
) -> None:
    stream = video.open()
    answer = client.send(client.request("picture", stream_id=stream))
    kept = video.frame(stream, answer.frame_reference)
    camera = processes_of(server, "test-pattern")[-1]
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.send, client.request("slow", stream_id=stream)) for _ in range(4)]
        time.sleep(0.3)
        os.kill(chip_worker(server), signal.SIGKILL)
        errors = [call.exception() for call in calls]
    failed = [error for error in errors if error]
    assert len(failed) == 1
    assert failed[0].code() == CODE.UNAVAILABLE
    assert "SIGKILL" in failed[0].details()
    for call in calls:
        if call.exception() is None:
            assert call.result().frame_reference > 0
    answer = client.send(client.request("picture", stream_id=stream))
    assert client.arrays(answer)["image"].tobytes() == video.frame(stream, answer.frame_reference).data
    assert kept.data
    assert processes_of(server, "test-pattern")[-1] == camera
    assert valid_stamp(video.frame(stream)) > valid_stamp(kept)


def test_calls_that_clients_gave_up_let_go_of_their_frames(client: Any, video: Video) -> None:
    stream = video.open(framerate=30)
    stub = client.stubs.service.PredictionServiceStub(client.channel)
    for _ in range(15):  # more than the ring has slots
        models = ["picture"] * 4 + ["slow"]
        calls = [stub.Predict.future(client.request(model, stream_id=stream), timeout=10) for model in models]
        time.sleep(0.02)
        for call in calls:
            call.cancel()
        status, _ = code_of(lambda: client.send(client.request("slow", stream_id=stream), timeout=0.05))
        # Refused at once as soon as it is known how long the model takes.
        assert status in (CODE.DEADLINE_EXCEEDED, CODE.RESOURCE_EXHAUSTED)
    soon(lambda: client.send(client.request("picture", stream_id=stream)))
    first = video.frame(stream)
    following = [video.frame(stream) for _ in range(20)]
    assert [frame.sequence_nbr for frame in following] == list(
        range(first.sequence_nbr + 1, first.sequence_nbr + 21)
    ), "frames are lost for want of slots"


def test_the_chip_forgets_the_frames_memory_when_streams_are_deleted(server: Any, client: Any, video: Video) -> None:
    models = ("picture", "two", "pictures") if libyuv_is_ready() else ("picture", "two")
    extra = {"two": {"threshold": np.ones(1, np.float32)}, "pictures": {"right": np.zeros((1, 96, 128, 3), np.uint8)}}

    def use(count: int) -> None:
        streams = [video.open(framerate=21 + number) for number in range(count)]
        for stream in streams:
            for model in models:
                client.send(client.request(model, extra.get(model), stream_id=stream))
        for stream in streams:
            video.delete(stream)

    use(1)
    soon(lambda: server.workers() == [chip_worker(server)])
    worker = chip_worker(server)
    before = segments_mapped(worker), segments_mapped(server.process.pid)
    use(8)
    soon(lambda: segments_mapped(worker) <= before[0])
    soon(lambda: segments_mapped(server.process.pid) <= before[1])
    assert chip_worker(server) == worker


def test_a_camera_keeps_its_pace_while_models_hold_more_frames_than_a_ring_has_slots(start_server, write) -> None:
    model = write("model", PICTURE, "delay = 1.5")
    instances, framerate = 14, 25
    server = start_server("-j", 1, *NO_CONVERTERS, "-m", model, "--instances", instances, "--camera", "test-pattern")
    with server.client() as client, ThreadPoolExecutor(instances) as pool:
        video = Video(client.channel)
        stream = video.open(framerate=framerate)
        video.frame(stream)
        calls = []
        for _ in range(instances):
            calls.append(pool.submit(client.send, client.request(model, stream_id=stream)))
            time.sleep(1.2 / framerate)
        started, frames = time.monotonic(), 0
        while time.monotonic() - started < 0.6:
            video.frame(stream)
            frames += 1
        assert frames > 0.6 * framerate / 2
        assert len({call.result().frame_reference for call in calls}) > instances / 2


def test_memory_of_streams_that_are_deleted_under_models_goes_at_once(start_server, write) -> None:
    model = write("model", PICTURE, "delay = 0.1")
    server = start_server("-j", 1, *NO_CONVERTERS, "-m", model, "--camera", "test-pattern")
    with server.client() as client, ThreadPoolExecutor(4) as pool:
        video = Video(client.channel)
        other = video.open(framerate=1)

        def use(count: int) -> None:
            for number in range(count):
                stream = video.open(framerate=21 + number)
                calls = [pool.submit(client.send, client.request(model, stream_id=stream)) for _ in range(4)]
                time.sleep(0.15)
                video.delete(stream)
                for call in calls:
                    call.exception()

        use(2)
        client.send(client.request(model, stream_id=other))
        front, worker = server.process.pid, chip_worker(server)
        before = segments_mapped(front), segments_mapped(worker)
        use(8)
        client.send(client.request(model, stream_id=other))
        soon(lambda: segments_mapped(worker) <= before[1])
        soon(lambda: segments_mapped(front) <= before[0])

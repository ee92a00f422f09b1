from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_debug.model_file import DTYPES, LARGEST_FILE, read_model_file


@pytest.fixture
def read(tmp_path: Path):
    def write_and_read(content: str | bytes):
        path = tmp_path / "model.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_model_file(path)

    return write_and_read


def test_an_empty_file_takes_bytes_of_any_number(read):
    inputs, knobs = read("")
    assert inputs == (acap.TensorSpec("data", np.dtype("uint8"), (-1,)),)
    assert knobs == {}


def test_inputs_have_the_names_dtypes_and_shapes_of_the_file(read):
    inputs, _ = read('inputs = [{name = "a", dtype = "float32", shape = [1, -1]}, {name = "b", shape = []}]')
    assert inputs == (
        acap.TensorSpec("a", np.dtype("float32"), (1, -1)),
        acap.TensorSpec("b", np.dtype("uint8"), ()),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_can_be_asked_for(read, dtype):
    (spec,), _ = read(f'inputs = [{{name = "data", dtype = "{dtype}"}}]')
    assert spec.dtype == np.dtype(dtype)


def test_a_number_may_be_written_as_text(read):
    _, knobs = read('delay = "0.5"\ntrigger = "7"')
    assert knobs == {"delay": 0.5, "trigger": 7}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("inputs", "expected a TOML text"),
        (b"\xff\xfe", "expected a TOML text in UTF-8"),
        ("a = " + "[" * 20_000, "expected a TOML text"),
        ("#" * (LARGEST_FILE + 1), "at most 65536 bytes"),
        ("dalay = 1", "expected inputs, delay.*got .*dalay"),
        ("inputs = 3", "a list of at least one table, got 3"),
        ("inputs = []", "a list of at least one table"),
        ("inputs = [1]", "a table of name, dtype, shape; got 1"),
        ('inputs = [{name = "a", size = 3}]', "a table of name, dtype, shape; got"),
        ("inputs = [{shape = [1]}]", "name: expected a text that is not empty, got None"),
        ('inputs = [{name = ""}]', "name: expected a text that is not empty, got ''"),
        ('inputs = [{name = "a"}, {name = "a"}]', "different names"),
        ('inputs = [{name = "a", dtype = "float8"}]', "dtype: expected bool.*got 'float8'"),
        ('inputs = [{name = "a", dtype = ["uint8"]}]', "dtype: expected bool"),
        ('inputs = [{name = "a", shape = 3}]', "shape: expected a list .* got 3"),
        ('inputs = [{name = "a", shape = [-2]}]', "shape: expected a list"),
        ('inputs = [{name = "a", shape = [true]}]', "shape: expected a list"),
        ('inputs = [{name = "a", shape = [1.5]}]', "shape: expected a list"),
        ('inputs = [{name = "a", shape = [2147483648]}]', "shape: expected a list"),
        ("delay = true", "delay: expected 0 to 86400 seconds, got True"),
        ("delay = -1", "delay: expected"),
        ("delay = nan", "delay: expected"),
        ("load_delay = 1" + "0" * 400, "load_delay: expected"),
        ("load_delay = [1]", "load_delay: expected"),
        ('crash = "sometimes"', "crash: expected 'load' or 'run', got 'sometimes'"),
        ("hang = 1", "hang: expected 'load' or 'run'"),
        ("big_output = 0", "big_output: expected a number from 1 to 1073741824, got 0"),
        ("big_output = 1.5", "big_output: expected a number"),
        ("trigger = 256", "trigger: expected a number from 0 to 255"),
        ("trigger = false", "trigger: expected a number"),
        ('wrong_output = "value"', "wrong_output: expected 'name' or 'dtype' or 'shape', got 'value'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_expected(read, content, complaint):
    with pytest.raises(acap.InvalidRequest, match=complaint):
        read(content)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(acap.InvalidRequest, match="Is a directory"):
        read_model_file(tmp_path)

"""What is declared to cffi against larod's published header, of which a table of facts lies beside this file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from acap_runtime_larod.declarations import DECLARATIONS
from acap_runtime_larod.failure import CODES
from acap_runtime_larod.library import ffi, open_library
from acap_runtime_larod.tensors import DATA_TYPES, LAYOUT_420SP

PUBLISHED = json.loads(Path(__file__).with_name("larod_h_3_2_254.json").read_text())
DECLARED = re.findall(r"\b(larod\w+)\(", DECLARATIONS)


def plain(ctype) -> str:
    return re.sub(r"\s*\*\s*", "*", ctype.cname).replace("_Bool", "bool")


@pytest.mark.parametrize("name", DECLARED)
def test_a_function_has_the_result_and_the_arguments_of_the_published_one(name):
    declared = ffi.typeof(getattr(open_library().functions, name))
    assert [plain(declared.result), *map(plain, declared.args)] == PUBLISHED["functions"][name]


@pytest.mark.parametrize("name", ["larodAccess", "larodErrorCode", "larodTensorDataType", "larodTensorLayout"])
def test_an_enum_has_the_published_values(name):
    assert {word: value for value, word in ffi.typeof(name).elements.items()} == PUBLISHED["enums"][name]


@pytest.mark.parametrize("name", PUBLISHED["structs"])
def test_a_struct_has_the_published_fields(name):
    assert [[plain(field.type), word] for word, field in ffi.typeof(name).fields] == PUBLISHED["structs"][name]


@pytest.mark.parametrize("name", PUBLISHED["macros"])
def test_a_macro_has_the_published_value(name):
    assert getattr(open_library().functions, name) == PUBLISHED["macros"][name]


def test_numbers_that_stand_in_python_are_the_published_ones():
    types = PUBLISHED["enums"]["larodTensorDataType"]
    for number, dtype in DATA_TYPES.items():
        word = "unspecified" if number == 1 else dtype.name
        assert types[f"LAROD_TENSOR_DATA_TYPE_{word.upper()}"] == number
    assert PUBLISHED["enums"]["larodTensorLayout"]["LAROD_TENSOR_LAYOUT_420SP"] == LAYOUT_420SP
    assert {f"LAROD_ERROR_{name}": code for name, code in CODES.items()} == PUBLISHED["enums"]["larodErrorCode"]

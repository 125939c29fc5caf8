"""TFRecord files: all that the records hold is stored as TensorFlow reads it, or told, or refused."""

from __future__ import annotations

import gzip
import zlib

import pytest
import tensorflow as tf
from heliostat.data import BadColumnError, SourceError
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.from_tfrecord import TFRecordSource
from heliostat.data.foreign.tfrecord import records_of
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.engine


def ints(*values: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def floats(*values: float) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def data(*values: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def example(**features: tf.train.Feature) -> bytes:
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as file:
        for record in records:
            file.write(record)
    return path


def columns_of(dataset) -> dict:
    return next(dataset.batches(len(dataset), shuffle=False))


def account_of(path, **options) -> list[str]:
    """The lines of the account after all rows were read."""
    source = TFRecordSource([path], name=str(path), **options)
    assert sum(len(rows.batch) for rows in source.record_batches()) == source.num_rows
    return [str(entry) for entry in source.account.entries]


@pytest.fixture
def late(tmp_path):
    """A feature that only the last 3 of 2,003 records have."""
    records = [example(y=ints(row % 2)) for row in range(2000)] + [example(y=ints(1), late=ints(7))] * 3
    return write(tmp_path / "a.tfrecord", records)


def test_a_feature_of_the_last_records_is_a_column(tmp_path, late):
    found = columns_of(convert(late, tmp_path / "set"))
    assert found["late"].to_list() == [[]] * 2000 + [[7]] * 3
    assert account_of(late) == [
        "late: 2,000 records noticed: the feature is missing: an empty list is stored (with a fill value it may be a "
        "number)"
    ]


def test_a_feature_of_the_last_records_can_be_filled(tmp_path, late):
    found = columns_of(convert(late, tmp_path / "set", columns={"late": "int64"}, fill_nulls={"late": 0}))
    assert found["late"].tolist() == [0] * 2000 + [7] * 3
    (entry,) = account_of(late, columns={"late": "int64"}, fill_nulls={"late": 0})
    assert entry.startswith("late: 2,000 values filled")


def test_a_fill_value_that_is_no_value_of_the_column_is_refused(tmp_path, late):
    with pytest.raises(BadColumnError, match=r"'late' .*0\.5 is no whole number"):
        convert(late, tmp_path / "set", fill_nulls={"late": 0.5})


def test_a_number_of_values_that_the_last_record_has_makes_a_list(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(n=ints(row)) for row in range(1500)] + [example(n=ints(1, 2))])
    assert columns_of(convert(path, tmp_path / "set"))["n"].to_list()[-2:] == [[1499], [1, 2]]


def test_text_of_which_the_last_record_is_none_is_bytes(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(t=data(b"text"))] * 1500 + [example(t=data(b"\xff"))])
    dataset = convert(path, tmp_path / "set")
    assert dataset.schema["t"].kind == "bytes"
    assert columns_of(dataset)["t"].to_list()[-2:] == [b"text", b"\xff"]


def test_features_without_values_are_told(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(y=ints(1), nothing=tf.train.Feature())] * 3)
    assert account_of(path) == ["nothing: 3 records left out: the feature has no values"]


def sequence() -> bytes:
    found = tf.train.SequenceExample()
    found.context.feature["y"].int64_list.value.append(1)
    found.feature_lists.feature_list["tokens"].feature.add().int64_list.value.extend([1, 2, 3])
    return found.SerializeToString()


def test_feature_lists_are_refused_or_left_out_by_name(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(y=ints(1))] * 1100 + [sequence()] * 2)
    with pytest.raises(SourceError, match=r"SequenceExample with the feature lists 'tokens' \(in 2 records\)"):
        convert(path, tmp_path / "set")
    assert account_of(path, features=["y"]) == ["tokens: 2 records left out: a feature list of SequenceExample"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (b"\xff\xff not a message", "something else than tf.train.Example in row 1"),
        (b"\x1a\x03abc", "something else than tf.train.Example in row 1: a message with other fields"),
    ],
)
def test_records_of_another_kind_are_refused(tmp_path, record, said):
    path = write(tmp_path / "a.tfrecord", [example(y=ints(1)), record])
    with pytest.raises(SourceError, match=said):
        convert(path, tmp_path / "set")


def test_a_feature_of_two_types_is_refused(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(y=ints(1))] * 1200 + [example(y=floats(1.5))])
    with pytest.raises(BadColumnError, match=r"'y' is a int64_list in the records before row 1200 .* float_list"):
        convert(path, tmp_path / "set")


def test_all_features_that_need_an_answer_are_named_at_once(tmp_path):
    records = [example(y=ints(1), a=data(b"1", b"2"), b=data(b"x")), example(y=ints(1), a=data(b"1"))]
    with pytest.raises(BadColumnError, match=r"'a' has 1, 2 bytes values(.|\n)*'b' has 0, 1 bytes values"):
        convert(write(tmp_path / "a.tfrecord", records), tmp_path / "set")


@pytest.mark.parametrize(
    ("feature", "requested", "said"),
    [
        (floats(1.5, 70000.0), "list:float16", "70000.0 in row 2"),
        (ints((1 << 24) + 1), "float32", "16777217 in row 2"),
        (ints(300), "uint8", "300 in row 2"),
        (ints(-1), "uint64", "-1 in row 2"),
        (ints(2), "bool", "2 in row 2"),
        (floats(1e30), "int64", "in row 2"),
    ],
    ids=["float16", "float32", "uint8", "uint64", "bool", "int64"],
)
def test_numbers_that_a_requested_type_cannot_hold_are_refused(tmp_path, feature, requested, said):
    good = floats(1.0) if feature.HasField("float_list") else ints(1)
    path = write(tmp_path / "a.tfrecord", [example(n=good)] * 2 + [example(n=feature)])
    with pytest.raises(BadColumnError, match=f"'n' .*{said}"):
        convert(path, tmp_path / "set", columns={"n": requested})


def test_fractions_that_are_rounded_as_requested_are_counted(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(n=floats(0.1))] * 2 + [example(n=floats(0.5))])
    (entry,) = account_of(path, columns={"n": "float16"})
    assert entry.startswith("n: 2 values rounded")


@pytest.mark.parametrize(("name", "fill", "expected"), [("t", "007", "007"), ("n", "7", 7), ("b", "x", b"x")])
def test_a_fill_value_that_is_given_as_text_is_read_as_the_column_says(tmp_path, name, fill, expected):
    features = {"t": data(b"text"), "n": ints(1), "b": data(b"\xff")}
    path = write(tmp_path / "a.tfrecord", [example(y=ints(1), **{name: features[name]}), example(y=ints(1))])
    found = columns_of(convert(path, tmp_path / "set", fill_nulls={name: fill}))[name]
    assert (found.to_list() if hasattr(found, "to_list") else found.tolist())[1] == expected


@pytest.mark.parametrize("size", [1, 1 << 20, 9 << 20])
def test_few_large_records_are_read_at_once(tmp_path, size):
    path = write(tmp_path / "a.tfrecord", [example(b=data(bytes(size)))] * 20)
    assert max(sum(map(len, records)) for records in records_of(path, 1024)) <= max(8 << 20, size + 100)


INTS = st.one_of(
    st.integers(-3, 3),
    *(st.integers(size - 2, min(size + 2, (1 << 63) - 1)) for size in (1 << 24, 1 << 31, 1 << 53, 1 << 63)),
    st.integers(-(1 << 63), -(1 << 63) + 2),
)
FLOATS = st.floats(width=32, allow_nan=True)
NAMES = st.text(st.sampled_from("ab. ,é"), min_size=1, max_size=4)


@given(
    st.dictionaries(NAMES, st.sampled_from(["int", "float", "ints", "floats", "bytes"]), min_size=1, max_size=5),
    st.data(),
)
@settings(deadline=None, derandomize=True, max_examples=25)
def test_what_tensorflow_reads_is_stored_and_the_account_is_empty(tmp_path_factory, kinds, draw):
    values = {
        "int": INTS.map(lambda one: ints(one)),
        "float": FLOATS.map(lambda one: floats(one)),
        "ints": st.lists(INTS, max_size=4).map(lambda several: ints(*several)),
        "floats": st.lists(FLOATS, max_size=4).map(lambda several: floats(*several)),
        "bytes": st.binary(max_size=5).map(lambda one: data(one)),
    }
    records = draw.draw(st.lists(st.fixed_dictionaries({key: values[kind] for key, kind in kinds.items()}), min_size=1))
    folder = tmp_path_factory.mktemp("drawn")
    path = write(folder / "a.tfrecord", [example(**record) for record in records])
    found = columns_of(convert(path, folder / "set"))
    dtypes = {"i": tf.int64, "f": tf.float32, "b": tf.string}
    specs = {key: tf.io.RaggedFeature(dtypes[kind[0]]) for key, kind in kinds.items()}
    expected = tf.io.parse_example([example(**record) for record in records], specs)
    assert set(found) == set(kinds)
    for key, kind in kinds.items():
        there, here = expected[key].values.numpy(), found[key]
        if kind == "bytes":
            rows = [row.encode() if isinstance(row, str) else row for row in here.to_list()]
            assert rows == there.tolist()
        else:
            flat = here.values if hasattr(here, "row_splits") else here.reshape(-1)
            assert flat.dtype == there.dtype
            assert flat.tobytes() == there.tobytes()
    assert account_of(path) == []


# The frames of records: TensorFlow's reader takes some of what was cut short for the end.


def of_length(length: int) -> bytes:
    """A record of so many bytes."""
    found = length - 20
    while len(record := example(x=data(b"\xff" * found))) != length:
        found += length - len(record)
    return record


@pytest.mark.parametrize("length", [0x8B1F, 0x88B1F, 0x9C78])
def test_a_record_as_long_as_the_mark_of_compressed_files_is_no_mark(tmp_path, length):
    path = write(tmp_path / "a.tfrecord", [of_length(length), example(x=data(b"\xfe"))])
    found = columns_of(convert(path, tmp_path / "set"))
    assert [len(value) for value in found["x"].to_list()][1:] == [1]


@pytest.mark.parametrize("cut", [1, 8])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda data: gzip.compress(data) + gzip.compress(b"")])
def test_compressed_data_without_its_end_is_refused(tmp_path, pack, cut):
    packed = pack(write(tmp_path / "plain.tfrecord", [example(x=ints(row)) for row in range(50)]).read_bytes())
    path = tmp_path / "a.tfrecord"
    path.write_bytes(packed)
    assert columns_of(convert(path, tmp_path / "set"))["x"].tolist() == [*range(50)]
    path.write_bytes(packed[:-cut])
    with pytest.raises(SourceError, match=r"a\.tfrecord cannot be read as TFRecord after row"):
        convert(path, tmp_path / "cut")


def test_members_of_gzip_that_follow_one_another_are_all_read(tmp_path):
    parts = [write(tmp_path / "p.tfrecord", [example(x=ints(row))]).read_bytes() for row in range(3)]
    (tmp_path / "a.tfrecord.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    assert columns_of(convert(tmp_path / "a.tfrecord.gz", tmp_path / "set"))["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("length", range(1, 12))
def test_a_record_of_which_only_the_head_is_there_is_refused(tmp_path, length):
    path = write(tmp_path / "a.tfrecord", [example(x=ints(1))])
    path.write_bytes(path.read_bytes() * 3 + path.read_bytes()[:length])
    with pytest.raises(SourceError, match=f"after row 3: ({length} bytes follow that are no record|truncated)"):
        convert(path, tmp_path / "set")


def test_what_tensorflow_says_of_damage_is_told_without_its_own_places(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(x=ints(row)) for row in range(3)])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(SourceError, match="cannot be read as TFRecord after row 0: truncated record at") as error:
        convert(path, tmp_path / "set")
    assert "function_node" not in str(error.value)


def test_an_index_of_another_program_is_no_tfrecord(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.tfrecord", [example(x=ints(1))])
    (tmp_path / "in" / "a.tfrecord.idx").write_text("0 25\n")
    dataset = convert(tmp_path / "in", tmp_path / "set")
    assert [str(entry) for entry in dataset.account] == [
        "a.tfrecord.idx: 1 file left out: not of kind tfrecord; --kind chooses another"
    ]


def test_looking_through_records_is_told_before_rows_are_written(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(x=ints(row)) for row in range(3000)])
    told = []
    convert(path, tmp_path / "set", on_progress=told.append)
    looked = [now.num_bytes for now in told if now.columns is None]
    assert looked == sorted(looked)
    assert looked[-1] == path.stat().st_size
    assert [now.columns is None for now in told] == sorted((now.columns is None for now in told), reverse=True)


def test_a_fill_value_of_a_list_is_told_not_to_be_used(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(x=ints(1, 2)), example(x=ints(1)), example(y=ints(1))])
    assert (
        "x: 1 record noticed: the feature is missing: an empty list is stored (lists cannot be filled)"
        in account_of(path, fill_nulls={"x": 7, "y": 0})
    )

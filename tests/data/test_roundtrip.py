"""Converters against the source library's own reader, for every dtype: numpy, Arrow, pandas, PIL; and back again."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from heliostat.data import DatasetExistsError, UnknownColumnError, write_dataset
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.from_objects import (
    from_arrow,
    from_dataset,
    from_generator,
    from_pandas,
    from_ray_dataset,
)
from heliostat.data.conversion.idx import read_idx
from heliostat.data.errors import BadColumnError, SourceError
from heliostat.data.format.columns import DTYPE_NAMES
from heliostat.data.format.ragged import Ragged
from heliostat.data.views.export import to_record_batches

from .old_parquet import write_parquet

NUM_ROWS = 1000


def columns_of(dataset) -> dict:
    return next(dataset.batches(len(dataset), shuffle=False))


def numbers(dtype: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Random numbers over the whole range of a dtype, with its largest and smallest ones."""
    random, kind = np.random.default_rng(3), np.dtype(dtype)
    if kind.kind == "b":
        return random.random((NUM_ROWS, *shape)) < 0.5
    if kind.kind == "f":
        found = (random.normal(size=(NUM_ROWS, *shape)) * 100).astype(kind)
        found.reshape(-1)[:4] = [np.nan, np.inf, -np.inf, -0.0]
        return found
    limits = np.iinfo(kind)
    found = random.integers(limits.min, limits.max, (NUM_ROWS, *shape), dtype=kind, endpoint=True)
    found.reshape(-1)[:2] = [limits.min, limits.max]
    return found


def lists(dtype: str) -> list[np.ndarray]:
    flat = np.concatenate([numbers(dtype)] * 3)
    lengths = np.random.default_rng(4).integers(0, 6, NUM_ROWS)
    return np.split(flat[: lengths.sum()], np.cumsum(lengths)[:-1])


ARRAYS = {name: numbers(name) for name in DTYPE_NAMES}
TENSORS = {f"{name}s": numbers(name, (2, 3)) for name in DTYPE_NAMES}
LISTS = {f"{name}_lists": lists(name) for name in DTYPE_NAMES}
TEXTS = [f"text {number} é\n" * (number % 4) for number in range(NUM_ROWS)]
BYTES = [bytes([number % 256]) * (number % 5) for number in range(NUM_ROWS)]


def assert_same(found, expected) -> None:
    """Values and dtypes are equal, NaN and the sign of zero among them."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


def assert_same_lists(found: Ragged, expected) -> None:
    assert found.lengths.tolist() == [len(row) for row in expected]
    assert_same(found.values, np.concatenate([np.asarray(row) for row in expected]))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_as_numpy_reads_it(tmp_path, save):
    arrays = {**ARRAYS, **TENSORS, "fortran": np.asfortranarray(numbers("float32", (5,))), "big": ARRAYS["int32"]}
    arrays["big"] = arrays["big"].astype(">i4")
    save(tmp_path / "a.npz", texts=np.array(TEXTS), **arrays)
    found = columns_of(convert(tmp_path / "a.npz", tmp_path / "set", rows_per_shard=333))
    with np.load(tmp_path / "a.npz") as expected:
        assert found.pop("texts").to_list() == expected["texts"].tolist()
        for name, values in found.items():
            assert_same(values, expected[name].astype(expected[name].dtype.newbyteorder("=")))
        assert set(found) == {*expected.files} - {"texts"}


def test_npy_files_as_numpy_reads_them(tmp_path):
    for name, values in {**ARRAYS, **TENSORS}.items():
        np.save(tmp_path / f"{name}.npy", values)
    found = columns_of(convert(tmp_path, tmp_path / "set"))
    for name, values in found.items():
        assert_same(values, np.load(tmp_path / f"{name}.npy"))
    only = convert(tmp_path / "bool.npy", tmp_path / "one")
    assert_same(columns_of(only)["bool"], ARRAYS["bool"])


def arrow_table() -> pa.Table:
    columns = {name: pa.array(values) for name, values in ARRAYS.items()}
    for name, values in TENSORS.items():
        columns[name] = pa.FixedShapeTensorArray.from_numpy_ndarray(values) if values.dtype.kind != "b" else None
    for name, values in LISTS.items():
        columns[name] = pa.array([row.tolist() for row in values], pa.list_(pa.from_numpy_dtype(values[0].dtype)))
    columns["text"], columns["bytes"] = pa.array(TEXTS), pa.array(BYTES)
    return pa.table({name: values for name, values in columns.items() if values is not None})


def assert_as_table(found, table: pa.Table) -> None:
    assert set(found) == set(table.column_names)
    for name, values in found.items():
        column = table.column(name).combine_chunks()
        if name in ("text", "bytes"):
            assert values.to_list() == column.to_pylist()
        elif isinstance(values, Ragged):
            assert_same_lists(values, LISTS[name])
        elif isinstance(column, pa.FixedShapeTensorArray):
            assert_same(values, column.to_numpy_ndarray())
        else:
            assert_same(values, column.to_numpy(zero_copy_only=False))


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_parquet_as_pyarrow_reads_it(tmp_path, compression):
    pq.write_table(arrow_table(), tmp_path / "a.parquet", row_group_size=300, compression=compression)
    found = columns_of(convert(tmp_path / "a.parquet", tmp_path / "set"))
    assert_as_table(found, pq.read_table(tmp_path / "a.parquet"))


@pytest.mark.parametrize("compression", ["uncompressed", "lz4"])
def test_feather_as_pyarrow_reads_it(tmp_path, compression):
    pyarrow.feather.write_feather(arrow_table(), tmp_path / "a.feather", compression=compression, chunksize=300)
    found = columns_of(convert(tmp_path / "a.feather", tmp_path / "set"))
    assert_as_table(found, pyarrow.feather.read_table(tmp_path / "a.feather"))


def write_stream(table: pa.Table, path, chunk_rows: int = 300) -> None:
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=chunk_rows)


def test_arrow_streams_as_pyarrow_reads_them(tmp_path):
    write_stream(arrow_table(), tmp_path / "a.arrow")
    with pa.ipc.open_stream(tmp_path / "a.arrow") as stream:
        assert_as_table(columns_of(convert(tmp_path / "a.arrow", tmp_path / "set")), stream.read_all())


def test_arrow_in_memory_and_back(tmp_path):
    table = arrow_table()
    dataset = from_arrow(table, tmp_path / "set", rows_per_shard=256)
    assert_as_table(columns_of(dataset), table)
    back = dataset.to_arrow()
    for name in table.column_names:
        found, expected = back.column(name).combine_chunks(), table.column(name).combine_chunks()
        if expected.type == pa.string() or expected.type == pa.binary() or pa.types.is_list(expected.type):
            found = found.cast(expected.type)
        assert found.type == expected.type
        # As text: NaN is not equal to itself.
        assert str(found.to_pylist()) == str(expected.to_pylist())
    assert_as_table(columns_of(from_arrow(to_record_batches(dataset), tmp_path / "again")), table)


@pytest.mark.parametrize("columns", [None, ["text", "int8"]])
def test_parquet_written_from_a_dataset_is_the_same_dataset(tmp_path, columns):
    dataset = from_arrow(arrow_table(), tmp_path / "set")
    path = dataset.to_parquet(tmp_path / "out" / "a.parquet", columns=columns)
    again = convert(path, tmp_path / "again")
    whole = dataset if columns is None else dataset.select_columns(columns)
    assert again.fingerprint == from_dataset(whole, tmp_path / "copy").fingerprint
    with pytest.raises(DatasetExistsError):
        dataset.to_parquet(path)
    assert dataset.to_parquet(path, columns=["bool"], overwrite=True) == path
    assert pq.read_schema(path) == pa.schema([pa.field("bool", pa.bool_(), nullable=False)])
    assert [one.name for one in path.parent.iterdir()] == ["a.parquet"]


def test_an_unknown_column_is_named_before_anything_is_written(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"x": np.arange(3)})
    with pytest.raises(UnknownColumnError):
        dataset.to_parquet(tmp_path / "a.parquet", columns=["z"])
    assert not (tmp_path / "a.parquet").exists()


def frame_of(pd):
    columns = {name: values for name, values in ARRAYS.items() if name != "float16"}
    frame = pd.DataFrame({**columns, "float16": ARRAYS["float16"], "text": TEXTS, "bytes": BYTES})
    frame["nullable"] = pd.array(ARRAYS["int32"], dtype="Int32")
    frame["category"] = pd.Categorical([text[:1] for text in TEXTS])
    frame["tensor"] = list(TENSORS["int16s"])
    frame["list"] = LISTS["float32_lists"]
    return frame.set_index(frame.index[::-1])


def test_frames_as_pandas_has_them_and_back(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = frame_of(pd)
    dataset = from_pandas(frame, tmp_path / "set", rows_per_shard=300)
    found = columns_of(dataset)
    for name in ARRAYS:
        assert_same(found[name], frame[name].to_numpy())
    assert found["text"].to_list() == frame["text"].tolist()
    assert found["bytes"].to_list() == BYTES
    assert_same(found["nullable"], ARRAYS["int32"])
    assert found["category"].to_list() == frame["category"].tolist()
    assert_same(found["tensor"], TENSORS["int16s"])
    assert_same_lists(found["list"], LISTS["float32_lists"])
    back = dataset.to_pandas()
    assert list(back.columns) == list(frame.columns)
    for name in ARRAYS:
        pd.testing.assert_series_equal(back[name], frame[name].reset_index(drop=True))
    pd.testing.assert_series_equal(back["text"], frame["text"].reset_index(drop=True), check_dtype=False)
    assert back["bytes"].tolist() == BYTES
    assert all(map(np.array_equal, back["tensor"], TENSORS["int16s"]))
    assert all(row.tobytes() == one.tobytes() for row, one in zip(back["list"], LISTS["float32_lists"], strict=True))
    assert {row.dtype for row in back["list"]} == {np.dtype(np.float32)}


def test_what_a_frame_cannot_give_is_named(tmp_path):
    pd = pytest.importorskip("pandas")
    with pytest.raises(BadColumnError, match=r"'a' has 1 missing value, the first in row 1"):
        from_pandas(pd.DataFrame({"a": pd.array([1, None], dtype="Int8")}), tmp_path / "set")
    filled = from_pandas(pd.DataFrame({"a": pd.array([1, None], dtype="Int8")}), tmp_path / "a", fill_nulls={"a": 5})
    assert columns_of(filled)["a"].tolist() == [1, 5]
    with pytest.raises(BadColumnError, match="'a' has dtype datetime64"):
        from_pandas(pd.DataFrame({"a": pd.to_datetime(["2024-05-06"])}), tmp_path / "set")
    with pytest.raises(BadColumnError, match="different texts"):
        from_pandas(pd.DataFrame({0: [1]}), tmp_path / "set")
    with pytest.raises(BadColumnError, match="0 rows"):
        from_pandas(pd.DataFrame({"a": []}), tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_csv_as_pandas_reads_it(tmp_path):
    pd = pytest.importorskip("pandas")
    names = ["bool", "int8", "int64", "uint32", "float64"]
    frame = pd.DataFrame({name: ARRAYS[name] for name in names}).iloc[4:]
    frame["text"] = [text or "none" for text in TEXTS[4:]]
    frame.to_csv(tmp_path / "a.csv", index=False)
    expected, found = pd.read_csv(tmp_path / "a.csv"), columns_of(convert(tmp_path / "a.csv", tmp_path / "set"))
    assert found.pop("text").to_list() == expected.pop("text").tolist()
    for name in names:
        assert_same(found[name], expected[name].to_numpy())


def test_json_lines_as_pandas_reads_them(tmp_path):
    pd = pytest.importorskip("pandas")
    rows = [
        {
            "a": int(ARRAYS["int32"][n]),
            "b": n / 7,
            "t": TEXTS[n],
            "ok": n % 2 == 0,
            "ids": LISTS["int16_lists"][n].tolist(),
        }
        for n in range(4, NUM_ROWS)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected, found = (
        pd.read_json(tmp_path / "a.jsonl", lines=True, precise_float=True),
        columns_of(convert(tmp_path / "a.jsonl", tmp_path / "set")),
    )
    for name in ("a", "b", "ok"):
        assert_same(found[name], expected[name].to_numpy())
    assert found["t"].to_list() == expected["t"].tolist()
    assert found["ids"].to_list() == expected["ids"].tolist()


FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["bad", "good"], "_type": "ClassLabel"},
    "pixels": {"shape": [2, 3], "dtype": "uint8", "_type": "Array2D"},
    "image": {"_type": "Image"},
    "tokens": {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "List"},
    "more": {"score": {"dtype": "float32", "_type": "Value"}},
}


def hugging_face_table() -> pa.Table:
    pixels = pa.array([row.tolist() for row in TENSORS["uint8s"]], pa.list_(pa.list_(pa.uint8())))
    images = pa.array([{"bytes": one, "path": None} for one in BYTES], pa.struct({"bytes": "binary", "path": "string"}))
    return pa.table(
        {
            "text": TEXTS,
            "label": pa.array(np.arange(NUM_ROWS) % 2),
            "pixels": pixels,
            "image": images,
            "tokens": pa.array([row.tolist() for row in LISTS["int32_lists"]], pa.list_(pa.int32())),
            "more": pa.array([{"score": n / 2} for n in range(NUM_ROWS)], pa.struct({"score": pa.float32()})),
        }
    )


def assert_hugging_face(dataset) -> None:
    found = columns_of(dataset)
    assert dataset.metadata["class_names"] == {"label": ["bad", "good"]}
    assert found["text"].to_list() == TEXTS
    assert_same(found["label"], np.arange(NUM_ROWS) % 2)
    assert_same(found["pixels"], TENSORS["uint8s"])
    assert found["image"].to_list() == BYTES
    assert_same_lists(found["tokens"], LISTS["int32_lists"])
    assert_same(found["more.score"], (np.arange(NUM_ROWS) / 2).astype(np.float32))


def hugging_face_dataset():
    """What the table is in the library itself."""
    library = pytest.importorskip("datasets")
    features = library.Features.from_dict(FEATURES | {"more": {"score": {"dtype": "float32", "_type": "Value"}}})
    return library.Dataset.from_dict(hugging_face_table().to_pydict(), features=features)


def test_hugging_face_folders(tmp_path):
    dataset = hugging_face_dataset()
    dataset.save_to_disk(tmp_path / "hf", num_shards=2)
    assert_hugging_face(convert(tmp_path / "hf", tmp_path / "set"))
    small = convert(tmp_path / "hf", tmp_path / "small", target="label", features=["more.score"])
    assert small.metadata["class_names"] == {"y": ["bad", "good"]}
    assert columns_of(small)["x"][:3].tolist() == [[0], [0.5], [1]]
    dataset.select(range(NUM_ROWS - 1, -1, -1)).save_to_disk(tmp_path / "turned")
    assert columns_of(convert(tmp_path / "turned", tmp_path / "other"))["text"].to_list() == TEXTS[::-1]


def test_hugging_face_folders_of_several_splits(tmp_path):
    dataset = hugging_face_dataset()
    pytest.importorskip("datasets").DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path / "hf")
    assert_hugging_face(convert(tmp_path / "hf", tmp_path / "set", split="test"))
    for split, said in ((None, "none was chosen"), ("dev", "'dev' is none of them")):
        with pytest.raises(SourceError, match=f"'train', 'test'; {said}"):
            convert(tmp_path / "hf", tmp_path / "other", split=split)


def test_folders_of_the_hugging_face_cache(tmp_path):
    dataset, cache = hugging_face_dataset(), tmp_path / "cache"
    cache.mkdir()
    for split, part in (("train", dataset), ("test", dataset.select(range(10)))):
        part.save_to_disk(tmp_path / split)
        (tmp_path / split / "data-00000-of-00001.arrow").rename(cache / f"sst2-{split}.arrow")
    (tmp_path / "train" / "dataset_info.json").rename(cache / "dataset_info.json")
    assert_hugging_face(convert(cache, tmp_path / "set", split="train"))
    with pytest.raises(SourceError, match="'test', 'train'"):
        convert(cache, tmp_path / "other")


def test_parquet_that_hugging_face_wrote_keeps_class_names_and_shapes(tmp_path):
    noted = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    pq.write_table(hugging_face_table().replace_schema_metadata(noted), tmp_path / "a.parquet")
    assert_hugging_face(convert(tmp_path / "a.parquet", tmp_path / "set"))


def test_idx_files_as_read_idx_reads_them(tmp_path):
    head = {1: b"\0\0\x08\1", 3: b"\0\0\x08\3"}
    for split, count in (("train", 6), ("t10k", 2)):
        y = (np.arange(count) % 3).astype(np.uint8)
        x = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2)
        for name, array in ((f"{split}-labels-idx1-ubyte", y), (f"{split}-images-idx3-ubyte", x)):
            shape = np.array(array.shape, ">u4").tobytes()
            (tmp_path / name).write_bytes(head[array.ndim] + shape + array.tobytes())
    found = columns_of(convert(tmp_path, tmp_path / "set", split="test"))
    assert_same(found["x"], read_idx(tmp_path / "t10k-images-idx3-ubyte"))
    assert_same(found["y"], read_idx(tmp_path / "t10k-labels-idx1-ubyte").astype(np.int64))
    with pytest.raises(SourceError, match="the splits 'test', 'train' by the names of its files"):
        convert(tmp_path, tmp_path / "other")


@pytest.mark.parametrize("batched", [False, True])
def test_generators(tmp_path, batched):
    def rows():
        for low in range(0, NUM_ROWS, 100):
            named = {**ARRAYS, "image": TENSORS["uint8s"], "ids": LISTS["int32_lists"], "text": TEXTS, "raw": BYTES}
            part = {name: values[low : low + 100] for name, values in named.items()}
            yield from [part] if batched else ({name: part[name][n] for name in part} for n in range(100))

    found = columns_of(from_generator(rows, tmp_path / "set", batched=batched, rows_per_shard=64))
    for name, values in ARRAYS.items():
        assert_same(found[name], values)
    assert_same(found["image"], TENSORS["uint8s"])
    assert_same_lists(found["ids"], LISTS["int32_lists"])
    assert found["text"].to_list() == TEXTS
    assert found["raw"].to_list() == BYTES


def test_generators_of_pairs(tmp_path):
    dataset = from_generator((({"a": n, "b": n / 2}, n % 2, 1.0) for n in range(5)), tmp_path / "set")
    found = columns_of(dataset)
    assert {name: values.tolist() for name, values in found.items()} == {
        "a": [0, 1, 2, 3, 4],
        "b": [0, 0.5, 1, 1.5, 2],
        "y": [0, 1, 0, 1, 0],
        "sample_weight": [1] * 5,
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([3], "Row 0 is int: 3. A row is a dict"),
        ([({"y": 1}, 2)], "two columns 'y'"),
        ([{"a": 1}, {"b": 1}], "'b' in row 1 and 'a' before"),
    ],
)
def test_rows_that_are_none_are_refused(tmp_path, rows, said):
    with pytest.raises(SourceError, match=said):
        from_generator(rows, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_a_generator_of_nothing_is_refused(tmp_path):
    with pytest.raises(SourceError, match="generator has no rows"):
        from_generator([], tmp_path / "set")


class RayLike:
    """What of a Ray dataset is used."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def iter_batches(self, *, batch_size: int, batch_format: str):
        assert batch_format == "pyarrow"
        for low in range(0, len(self._table), batch_size):
            yield self._table.slice(low, batch_size)


def test_datasets_that_give_arrow_batches(tmp_path):
    assert_as_table(columns_of(from_ray_dataset(RayLike(arrow_table()), tmp_path / "set")), arrow_table())
    with pytest.raises(SourceError, match="ray data has no rows"):
        from_ray_dataset(RayLike(arrow_table().slice(0, 0)), tmp_path / "other")


def test_tensors_of_ray_keep_their_shape(tmp_path):
    tensors = pytest.importorskip("ray.data.extensions").ArrowTensorArray
    arrays = {name: TENSORS[name] for name in ("uint8s", "float32s", "int64s")}
    table = pa.table({name: tensors.from_numpy(values) for name, values in arrays.items()})
    ragged = np.empty(NUM_ROWS, object)
    ragged[:] = LISTS["float32_lists"]
    table = table.append_column("lists", tensors.from_numpy(ragged))
    found = columns_of(from_ray_dataset(RayLike(table), tmp_path / "set"))
    for name, values in arrays.items():
        assert_same(found[name], values)
    assert_same_lists(found["lists"], LISTS["float32_lists"])


def test_a_view_becomes_a_dataset_of_its_own(tmp_path):
    dataset = from_arrow(arrow_table(), tmp_path / "set")
    view = dataset.filter(lambda rows: rows["int8"] > 0, columns=["int8"])
    stored = from_dataset(view, tmp_path / "view")
    assert len(stored) == (ARRAYS["int8"] > 0).sum()
    assert_same(columns_of(stored)["int64"], ARRAYS["int64"][ARRAYS["int8"] > 0])


def test_a_dataset_becomes_one_of_another_format(tmp_path):
    arrow = from_arrow(arrow_table(), tmp_path / "set", metadata={"note": "kept"})
    parquet = write_parquet(tmp_path / "parquet", arrow.to_arrow(), metadata=arrow.metadata)
    back = convert(tmp_path / "parquet", tmp_path / "back", features=["text", "int8"])
    assert back.metadata["note"] == "kept"
    assert_as_table(columns_of(parquet), arrow_table())
    assert columns_of(back)["text"].to_list() == TEXTS
    assert len(arrow) == len(back)

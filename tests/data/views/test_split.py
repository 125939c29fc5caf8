"""Splits by customer, in proportion to classes, and with a gap: who is where, and that it stays so."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from heliostat.data import Dataset, UnknownColumnError, write_dataset
from heliostat.data.errors import PlanError, SelectionError
from hypothesis import given, settings
from hypothesis import strategies as st


def column_of(dataset: Dataset, name: str) -> list:
    with dataset.reader([name]) as reader:
        values = reader.gather(np.arange(len(dataset)))[name]
    return values.to_list() if not isinstance(values, np.ndarray) else values.tolist()


@pytest.fixture(scope="module")
def customers(tmp_path_factory) -> Dataset:
    numbers = np.random.default_rng(5)
    who = numbers.integers(0, 60, 1000)
    columns = {
        "id": np.arange(1000),
        "customer": who,
        "name": [f"Müller {one}" for one in who],
        "raw": [bytes([one, 0]) for one in who],
        "weight": who / 7,
        "flag": who % 2 == 0,
        "y": who % 3,
        "rare": (np.arange(1000) % 250 == 0).astype(np.uint8),
        "x": np.zeros((1000, 2)),
        "tokens": [np.arange(one % 3) for one in range(1000)],
    }
    return write_dataset(tmp_path_factory.mktemp("customers") / "set", columns, rows_per_shard=300)


@pytest.mark.parametrize("by", ["customer", "name", "raw", "weight"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_rows_of_one_value_stay_together_in_about_the_share(customers, by, fraction):
    parts = customers.split(fraction, seed=3, by=by)
    ids = [column_of(part, "id") for part in parts]
    assert sorted(ids[0] + ids[1]) == list(range(1000))
    assert [sorted(each) == each for each in ids] == [True, True]
    first, second = (set(column_of(part, by)) for part in parts)
    assert not first & second
    largest = max(np.bincount(column_of(customers, "customer")))
    assert abs(len(ids[0]) - 1000 * fraction) <= largest


@pytest.mark.parametrize("stratify", ["y", "rare", "flag", "name"])
@pytest.mark.parametrize("fraction", [0.2, 0.75])
def test_both_parts_have_their_share_of_every_class(customers, stratify, fraction):
    first, second = customers.split(fraction, stratify=stratify)
    assert len(first) == round(1000 * fraction)
    assert sorted(column_of(first, "id") + column_of(second, "id")) == list(range(1000))
    whole, found = column_of(customers, stratify), column_of(first, stratify)
    for value in set(whole):
        assert abs(found.count(value) - whole.count(value) * fraction) <= 1


def test_both_at_once_if_every_group_is_of_one_class(customers):
    first, second = customers.split(0.5, by="customer", stratify="y")
    assert not set(column_of(first, "customer")) & set(column_of(second, "customer"))
    counts = np.bincount(column_of(customers, "y"))
    assert np.abs(np.bincount(column_of(first, "y")) - counts / 2).max() < 30
    with pytest.raises(SelectionError, match=r"rows \d+ and \d+ have the same 'customer' and different 'rare'"):
        customers.split(0.5, by="customer", stratify="rare")


@settings(deadline=None, derandomize=True, max_examples=60)
@given(data=st.data(), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**64 - 1))
def test_any_groups_are_divided_without_loss(tmp_path_factory, data, fraction, seed):
    groups = data.draw(st.lists(st.integers(-3, 4), min_size=2, max_size=40).filter(lambda one: len(set(one)) > 1))
    dataset = write_dataset(
        tmp_path_factory.mktemp("any") / "set", {"g": np.array(groups), "id": np.arange(len(groups))}
    )
    first, second = dataset.split(fraction, seed=seed, by="g")
    assert sorted(column_of(first, "id") + column_of(second, "id")) == list(range(len(groups)))
    assert not set(column_of(first, "g")) & set(column_of(second, "g"))


def test_groups_keep_their_sides_when_rows_are_added(customers, tmp_path):
    few = set(column_of(customers.take(900).split(0.8, by="customer")[0], "customer"))
    all_rows = set(column_of(customers.split(0.8, by="customer")[0], "customer"))
    assert len(few ^ all_rows) <= 3


def test_it_depends_on_the_seed_and_on_values_alone(customers, tmp_path):
    again = write_dataset(tmp_path / "set", {n: column_of(customers, n) for n in ("id", "customer")})
    one, other = customers.split(0.5, by="customer")[0], again.split(0.5, by="customer")[0]
    assert column_of(one, "id") == column_of(other, "id")
    assert column_of(one, "id") != column_of(customers.split(0.5, seed=1, by="customer")[0], "id")
    assert one.fingerprint != customers.split(0.5, seed=1, by="customer")[0].fingerprint
    assert pickle.loads(pickle.dumps(one)).fingerprint == one.fingerprint
    assert one.name.endswith("split(0.5, seed=0, by='customer')[0]")


@pytest.mark.parametrize(
    ("fraction", "gap", "sizes"), [(0.5, 0, (500, 500)), (0.8, 100, (720, 180)), (0.9, 7, (894, 99))]
)
def test_a_gap_lies_between_past_and_future(customers, fraction, gap, sizes):
    past, future = customers.split(fraction, gap=gap)
    assert (len(past), len(future)) == sizes
    assert column_of(past, "id") == list(range(sizes[0]))
    assert column_of(future, "id") == list(range(sizes[0] + gap, 1000))


def test_what_does_not_go_together_is_refused(customers):
    for options in ({"by": "customer"}, {"stratify": "y"}, {"seed": 1}):
        with pytest.raises(SelectionError, match="gap= divides the rows in stored order"):
            customers.split(0.5, gap=1, **options)
    with pytest.raises(SelectionError, match=r"gap=999\) leaves no two rows"):
        customers.split(0.5, gap=999)
    with pytest.raises(PlanError, match="gap is -1"):
        customers.split(0.5, gap=-1)
    with pytest.raises(SelectionError, match="one number, text or bytes per row"):
        customers.split(0.5, by="x")
    with pytest.raises(SelectionError, match="one number, text or bytes per row"):
        customers.split(0.5, stratify="tokens")
    with pytest.raises(UnknownColumnError, match="no column 'z'"):
        customers.split(0.5, by="z")
    random = customers.map(lambda rows, seeds: {"z": seeds[:, 0]}, ["y"], random=True)
    with pytest.raises(SelectionError, match="differ from pass to pass"):
        random.split(0.5, by="z")
    with pytest.raises(SelectionError, match="leaves no row"):
        customers.filter(lambda rows: rows["customer"] == 3).split(0.9, by="customer")

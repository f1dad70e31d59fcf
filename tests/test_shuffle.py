"""Shuffling array memory by significance, and back."""

import random

import pytest

from spectral_alloc import _frame


@pytest.mark.parametrize("item_size", [1, 2, 3, 4, 7, 8, 12, 16, 24, 255])
@pytest.mark.parametrize("portable", [False, True])
def test_shuffle_groups_bytes_by_significance_and_unshuffle_undoes_it(item_size, portable):
    """Plane b holds byte b of every item, and the tail stays; at every length around the vector steps."""
    data = random.Random(4).randbytes(3 * 16 * item_size + item_size)
    for length in {*range(2 * item_size + 2), *range(14 * item_size, 18 * item_size + 2, 3), len(data)}:
        piece = data[:length]
        whole = length // item_size * item_size
        planes = [piece[:whole][plane::item_size] for plane in range(item_size)]
        expected = b"".join(planes) + piece[whole:]
        assert _frame.shuffle(piece, item_size, portable) == expected
        assert _frame.unshuffle(expected, item_size, portable) == piece


def test_shuffle_of_a_megabyte_comes_back():
    """Work long enough to release the GIL gives the same bytes."""
    data = random.Random(5).randbytes((1 << 20) + 5)
    assert _frame.unshuffle(_frame.shuffle(data, 8), 8, portable=True) == data


@pytest.mark.parametrize("item_size", [0, -1, 256])
def test_shuffle_refuses_other_item_sizes(item_size):
    """The message names the size and the limit."""
    with pytest.raises(ValueError, match=rf"{item_size}.*255"):
        _frame.shuffle(b"abc", item_size)

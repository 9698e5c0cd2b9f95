"""Blocks of rows: which rows belong together, patterns, and few blocks for many."""

import numpy as np
import pytest

from mixedlearn.data.blocks import find_blocks, make_sets, pooled


def test_rows_that_share_a_level_of_any_factor_are_one_block():
    patient = np.array([0, 0, 1, 1, 2, 3])
    site = np.array([0, 0, 0, 0, 1, 1])
    assert len(set(find_blocks([patient]))) == 4
    blocks = find_blocks([patient, site])
    assert blocks[0] == blocks[2] != blocks[4] == blocks[5]


@pytest.mark.parametrize("n", [5, 400])
def test_pooled_blocks_have_the_same_sum_of_products(n):
    rng = np.random.default_rng(0)
    blocks = np.empty((n, 3, 4))
    blocks[..., 0] = 1.0
    blocks[..., 1] = rng.normal(size=(n, 1))
    blocks[..., 2] = 0.0
    blocks[..., 3] = rng.normal(size=(n, 3))
    few = pooled(blocks)
    expected = np.einsum("nsa,ntb->satb", blocks, blocks)
    np.testing.assert_allclose(np.einsum("nsa,ntb->satb", few, few), expected, atol=1e-10)
    # The constant, zero, the covariate of the level, three columns of the response.
    assert len(few) == min(n, 6)


def test_sets_hold_every_row_once_in_its_place():
    rng = np.random.default_rng(1)
    blocks = np.repeat(np.arange(40), 4)
    occasion = np.tile(np.arange(4), 40)
    kept = rng.random(160) < 0.8
    # A block whose occasions nobody else has.
    blocks, occasion = np.append(blocks[kept], [40, 40]), np.append(occasion[kept], [7, 9])
    order = np.lexsort((occasion, blocks))
    sets = make_sets(blocks, order, occasion[:, None].astype(float))
    seen = [row for own in sets for members in own.members for row in members.ravel()]
    assert sorted(seen) == list(range(len(blocks)))
    for own in sets:
        for there, members in zip(own.is_there, own.members, strict=True):
            assert (blocks[members] == blocks[members[:, :1]]).all()
            if own.is_shared:
                assert (occasion[members] == occasion[own.example][there]).all()


def test_two_rows_in_one_place_make_a_block_by_itself():
    blocks = np.array([0, 0, 1, 1, 2, 2])
    occasion = np.array([0, 1, 0, 1, 1, 1])
    sets = make_sets(blocks, np.arange(6), occasion[:, None].astype(float))
    assert not any(own.is_shared for own in sets)

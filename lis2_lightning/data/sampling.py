"""Random numbers that are looked up, not drawn: from a seed, an epoch and an index.

What happens to a sample depends on these three alone, and never on how many numbers were drawn
before, by how many workers, or on which other samples share its batch. The mixing function is the
finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014) in the variant 13 of D. Stafford, "Better Bit Mixing" (2011).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2 to the 64 over the golden ratio: the increment of SplitMix64
ROUNDS = 8  # of the Feistel network: more than enough, and enough for lengths of a few items too
CHUNK = 32  # samples for which normal numbers are drawn together


def random_keys(seed: int, epoch: int, indices: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Give each sample its random key for an epoch.

    Args:
        seed: Any whole number.
        epoch: The epoch, from 0.
        indices: Indices of samples, `(N,)`.

    Returns:
        Keys that are as good as independent for any two different triples, `(N,)`.

    >>> keys = random_keys(1, 0, np.arange(4))
    >>> bool(keys[2] == random_keys(1, 0, np.array([2]))[0])
    True
    """
    return fork(np.asarray(indices).astype(np.uint64), combine(seed, epoch))


def combine(*numbers: int) -> int:
    """Reduce whole numbers, in their order, to one key of 64 bits.

    >>> combine(1, 2) == combine(2, 1)
    False
    """
    key = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        key = fork(key, number)
    return int(key[0])


def fork(keys: NDArray[np.uint64], stream: int) -> NDArray[np.uint64]:
    """Derive from each key an independent one, a different one for each stream.

    Args:
        keys: Keys, of any shape.
        stream: Which of the keys that can be derived; any whole number.
    """
    return _mix(keys + _offset(stream))


def uniform(keys: NDArray[np.uint64], stream: int) -> NDArray[np.float64]:
    """Draw a number in [0, 1) from each key, another one for each stream; multiples of 2**-53.

    >>> numbers = uniform(random_keys(0, 0, np.arange(10_000)), stream=0)
    >>> bool(abs(numbers.mean() - 0.5) < 0.01)
    True
    """
    return (fork(keys, stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(keys: NDArray[np.uint64], stream: int, count: int) -> NDArray[np.float32]:
    """Draw standard normal numbers from each key.

    Args:
        keys: Keys, `(N,)`.
        stream: Which of the independent draws of a key.
        count: How many numbers from each.

    Returns:
        `(N, count)`, by the method of Box and Muller (1958) from pairs of 32-bit uniform numbers.
    """
    numbers = np.empty((len(keys), count), dtype=np.float32)
    for begin in range(0, len(keys), CHUNK):  # what stays in the cache is twice as fast
        part = slice(begin, begin + CHUNK)
        numbers[part] = _box_muller(fork(keys[part], stream), count)
    return numbers


class KeyedPermutation:
    """A shuffled order of any length that takes no memory: each position is computed.

    A Feistel network permutes the numbers of as many bits as the length needs; a result beyond the
    length is permuted again until it is inside ("cycle walking": Black and Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002), fewer than twice on average.

    Args:
        length: How many positions, at least 0.
        key: Which order; any whole number, such as `combine(seed, epoch)`.

    Raises:
        ValueError: The length is negative.

    >>> order = KeyedPermutation(5, key=1)
    >>> sorted(order(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, length: int, key: int) -> None:
        if length < 0:
            raise ValueError(f"a permutation has a length of at least 0, not {length}")
        bits = max(0, length - 1).bit_length()
        self.length = length
        self._low = np.uint64((bits + 1) // 2)
        self._masks = (np.uint64((1 << bits // 2) - 1), np.uint64((1 << (bits + 1) // 2) - 1))
        self._offsets = fork(np.arange(ROUNDS, dtype=np.uint64), combine(key))

    def __len__(self) -> int:
        """How many positions there are."""
        return self.length

    def __call__(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Say which item stands at each position.

        Args:
            positions: Positions, each from 0 to the length, of any shape.

        Returns:
            Items, each from 0 to the length, of the same shape.

        Raises:
            IndexError: A position is outside the length.
        """
        positions = np.asarray(positions)
        if positions.size and not 0 <= positions.min() <= positions.max() < self.length:
            raise IndexError(f"positions go from 0 to {self.length - 1}")
        items = self._permute(positions.astype(np.uint64).ravel())
        outside = np.flatnonzero(items >= self.length)
        while len(outside):
            items[outside] = self._permute(items[outside])
            outside = outside[items[outside] >= self.length]
        return items.astype(np.int64).reshape(positions.shape)

    def _permute(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Permute all numbers of the network's width: each half in turn is changed by the other."""
        high, low = numbers >> self._low, numbers & self._masks[1]
        for number, offset in enumerate(self._offsets):
            if number % 2:
                low = low ^ (_mix(high + offset) & self._masks[1])
            else:
                high = high ^ (_mix(low + offset) & self._masks[0])
        return (high << self._low) | low


def _box_muller(keys: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """Draw normal numbers from keys that are used for nothing else, `(N, count)`."""
    pairs = (count + 1) // 2
    steps = np.arange(1, pairs + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    scaled = _mix(keys[:, None] + steps).view(np.uint32).astype(np.float32)
    scaled *= np.float32(2.0**-32)
    radius = np.log(scaled[:, 0::2] + np.float32(2.0**-33))  # never the logarithm of 0
    radius *= np.float32(-2)
    np.maximum(radius, 0, out=radius)  # rounding may leave the logarithm of a little more than 1
    np.sqrt(radius, out=radius)
    angle = scaled[:, 1::2] * np.float32(2 * np.pi)
    numbers = np.concatenate((np.cos(angle), np.sin(angle)), axis=1)
    numbers[:, :pairs] *= radius
    numbers[:, pairs:] *= radius
    return numbers[:, :count]


@lru_cache(maxsize=4096)
def _offset(stream: int) -> np.uint64:
    """Say what to add to keys for a stream.

    Scrambled, or the streams of keys that differ by the increment would be the same numbers.
    """
    offset: np.uint64 = _mix(np.array([(stream * GOLDEN + GOLDEN) & MASK], dtype=np.uint64))[0]
    return offset


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers; a bijection."""
    shifted = numbers >> np.uint64(30)
    mixed = numbers ^ shifted
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(mixed, np.uint64(27), out=shifted)
    mixed ^= shifted
    mixed *= np.uint64(0x94D049BB133111EB)
    np.right_shift(mixed, np.uint64(31), out=shifted)
    mixed ^= shifted
    return mixed

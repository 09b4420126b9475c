"""Counter-based random numbers: functions of a seed, an epoch and an index.

They do not depend on earlier draws, workers or other samples. The mixing function is the finaliser
of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) in Stafford's variant 13 (2011).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2 to the 64 over the golden ratio: the increment of SplitMix64
ROUNDS = 8  # of the Feistel network; enough even for a few items
TOGETHER = 2**15  # normal numbers that are drawn at a time, to stay in the cache


def random_keys(seed: int, epoch: int, indices: NDArray[np.integer]) -> NDArray[np.uint64]:
    """The random key of each of N samples in an epoch, practically independent, `(N,)`.

    >>> keys = random_keys(1, 0, np.arange(4))
    >>> bool(keys[2] == random_keys(1, 0, np.array([2]))[0])
    True
    """
    return fork(np.asarray(indices).astype(np.uint64), combine(seed, epoch))


def combine(*numbers: int) -> int:
    """Hash a sequence of integers to a key of 64 bits."""
    key = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        key = fork(key, number)
    return int(key[0])


def fork(keys: NDArray[np.uint64], stream: int) -> NDArray[np.uint64]:
    """Derive an independent key from each key, of any shape, for a stream (any integer)."""
    return _mix(keys + _offset(stream))


def uniform(keys: NDArray[np.uint64], stream: int) -> NDArray[np.float64]:
    """A uniform number in [0, 1) for each key and stream, a multiple of 2**-53."""
    return (fork(keys, stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(keys: NDArray[np.uint64], stream: int, count: int) -> NDArray[np.float32]:
    """`count` standard normal numbers for each of N keys and a stream, `(N, count)`.

    By the method of Box and Muller (1958) from pairs of 32-bit uniform numbers.
    """
    numbers = np.empty((len(keys), count), dtype=np.float32)
    step = max(1, TOGETHER // max(count, 1))
    for begin in range(0, len(keys), step):
        part = slice(begin, begin + step)
        numbers[part] = _box_muller(fork(keys[part], stream), count)
    return numbers


class KeyedPermutation:
    """A random permutation of any length in constant memory.

    A Feistel network permutes the integers of as many bits as the length needs; results beyond the
    length are permuted again ("cycle walking": Black and Rogaway, "Ciphers with arbitrary finite
    domains", CT-RSA 2002), fewer than twice on average.

    >>> order = KeyedPermutation(5, key=1)
    >>> sorted(order(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, length: int, key: int) -> None:
        bits = max(0, length - 1).bit_length()
        self.length = length
        self._low = np.uint64((bits + 1) // 2)
        self._masks = (np.uint64((1 << bits // 2) - 1), np.uint64((1 << (bits + 1) // 2) - 1))
        self._offsets = fork(np.arange(ROUNDS, dtype=np.uint64), combine(key))

    def __call__(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """The items at these positions, of any shape."""
        items = self._permute(positions.astype(np.uint64).ravel())
        outside = np.flatnonzero(items >= self.length)
        while len(outside):
            items[outside] = self._permute(items[outside])
            outside = outside[items[outside] >= self.length]
        return items.astype(np.int64).reshape(positions.shape)

    def _permute(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Permute integers of the network's width: each half in turn is changed by the other."""
        high, low = numbers >> self._low, numbers & self._masks[1]
        for number, offset in enumerate(self._offsets):
            if number % 2:
                low = low ^ (_mix(high + offset) & self._masks[1])
            else:
                high = high ^ (_mix(low + offset) & self._masks[0])
        return (high << self._low) | low


def _box_muller(keys: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """Normal numbers from keys without other uses, `(N, count)`."""
    pairs = (count + 1) // 2
    steps = np.arange(1, pairs + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    scaled = _mix(keys[:, None] + steps).view(np.uint32).astype(np.float32)
    scaled *= np.float32(2.0**-32)
    radius = np.log(scaled[:, 0::2] + np.float32(2.0**-33))  # avoids log(0)
    radius *= np.float32(-2)
    np.maximum(radius, 0, out=radius)  # rounding may make the logarithm slightly positive
    np.sqrt(radius, out=radius)
    angle = scaled[:, 1::2] * np.float32(2 * np.pi)
    numbers = np.concatenate((np.cos(angle), np.sin(angle)), axis=1)
    numbers[:, :pairs] *= radius
    numbers[:, pairs:] *= radius
    return numbers[:, :count]


@lru_cache(maxsize=4096)
def _offset(stream: int) -> np.uint64:
    """The offset of a stream, scrambled so that streams of nearby keys do not coincide."""
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

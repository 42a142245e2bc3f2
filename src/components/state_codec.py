"""Nested states as plain JSON plus a flat table of tensors, and back, exactly.

JSON holds what it can express as it is. Everything else is an object with the key ``"#"`` that names its kind:
tuples, dictionaries with other than plain string keys, big integers, non-finite floats (by their bits), tensors
and arrays (by their name in the table).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

TAG = "#"
PLAIN_INT_LIMIT = 2**53  # integers up to here are exact in every JSON reader

JSON = Any
Table = dict[str, torch.Tensor]


class StateFormatError(ValueError):
    """An encoded state that this decoder does not understand."""


def encode_state(state: Any) -> tuple[JSON, Table]:
    """Splits a nested state into JSON and tensors.

    Args:
        state: dictionaries (str or int keys), lists, tuples, tensors, numeric or boolean numpy arrays, int, float,
            str, bool, None. Subclasses of dict come back as dict.

    Returns:
        The JSON value and the table name -> CPU tensor, each tensor with a storage of its own. A tensor that is
        already such is not copied: write the table before the state changes.

    Raises:
        TypeError: another type, naming its path inside the state.
    """
    table: Table = {}
    return _Encoder(table).encode(state, ""), table


def decode_state(encoded: JSON, table: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of :func:`encode_state`; calls nothing that the data names.

    Raises:
        StateFormatError: unknown kind, missing tensor, or sizes that do not fit.
    """
    try:
        return _decode(encoded, table)
    except StateFormatError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
        raise StateFormatError(f"malformed entry ({type(error).__name__}: {error})") from error


class _Encoder:
    def __init__(self, table: Table) -> None:
        self.table = table
        self._storages: set[int] = set()

    def encode(self, value: Any, path: str) -> JSON:
        if value is None or type(value) is bool:
            return value
        if type(value) in _SCALARS:
            return _SCALARS[type(value)](value)
        if isinstance(value, dict):
            return self._dict(value, path)
        if type(value) is list:
            return self._items(value, path)
        if type(value) is tuple:
            return {TAG: "tuple", "items": self._items(value, path)}
        if isinstance(value, torch.Tensor):
            return {TAG: "tensor", "name": self._add(self._own_tensor(value, path), path)}
        if type(value) in (np.ndarray, np.memmap):
            return self._array(value, path)
        raise TypeError(_refusal(value, path))

    def _items(self, values: list[Any] | tuple[Any, ...], path: str) -> list[JSON]:
        return [self.encode(value, f"{path}[{index}]") for index, value in enumerate(values)]

    def _dict(self, value: dict[Any, Any], path: str) -> JSON:
        for key in value:
            if type(key) not in (str, int):
                where = path or "the state"
                raise TypeError(f"{where}: key {key!r} is {_type_name(key)}; dictionary keys must be str or int")
        children = {key: self.encode(item, _child_path(path, key)) for key, item in value.items()}
        if all(_is_plain_key(key) for key in value):
            return children
        return {TAG: "dict", "items": [[_SCALARS[type(key)](key), item] for key, item in children.items()]}

    def _array(self, value: np.ndarray, path: str) -> JSON:
        if value.dtype.kind not in "biufc":
            raise TypeError(
                f"{path or 'the state'}: arrays of dtype {value.dtype} cannot be saved, only numeric or bool"
            )
        # Bytes, because torch knows neither long doubles nor foreign byte orders.
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        raw = torch.from_numpy(flat if flat.flags.writeable else flat.copy())
        name = self._add(self._own_tensor(raw, path), path)
        return {TAG: "numpy", "name": name, "dtype": value.dtype.str, "shape": list(value.shape)}

    def _own_tensor(self, value: torch.Tensor, path: str) -> torch.Tensor:
        if value.layout != torch.strided or value.device.type == "meta" or value.is_quantized:
            raise TypeError(
                f"{path or 'the state'}: only dense tensors can be saved, got {value.layout} on {value.device}"
            )
        tensor = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        storage = tensor.untyped_storage()
        # torch.save would write the whole storage of a view, and let two aliases share memory after loading.
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in self._storages:
            tensor = tensor.clone()
        if tensor.nbytes:
            self._storages.add(tensor.untyped_storage().data_ptr())
        return tensor

    def _add(self, tensor: torch.Tensor, path: str) -> str:
        base = (path or "state").encode("utf-8", "backslashreplace").decode()
        name, number = base, 2
        while name in self.table:
            name, number = f"{base}~{number}", number + 1
        self.table[name] = tensor
        return name


def _encode_int(value: int) -> JSON:
    return value if abs(value) <= PLAIN_INT_LIMIT else {TAG: "int", "hex": hex(value)}


def _encode_float(value: float) -> JSON:
    return value if math.isfinite(value) else {TAG: "float", "bits": struct.pack(">d", value).hex()}


def _encode_str(value: str) -> JSON:
    # JSON would join a high and a low surrogate into one character.
    return value if _is_unicode(value) else {TAG: "str", "utf8": value.encode("utf-8", "surrogatepass").hex()}


_SCALARS: dict[type, Callable[[Any], JSON]] = {int: _encode_int, float: _encode_float, str: _encode_str}


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _is_plain_key(key: Any) -> bool:
    return isinstance(key, str) and not key.startswith(TAG) and _is_unicode(key)


def _child_path(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _refusal(value: Any, path: str) -> str:
    hint = "; convert it with .item()" if isinstance(value, np.generic) else ""
    return f"{path or 'the state'}: a checkpoint cannot hold {_type_name(value)}{hint}"


def _decode(encoded: JSON, table: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(encoded, list):
        return [_decode(item, table) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if TAG not in encoded:
        return {key: _decode(item, table) for key, item in encoded.items()}
    kind = encoded[TAG]
    if kind not in _DECODERS:
        raise StateFormatError(f"unknown kind {kind!r}")
    return _DECODERS[kind](encoded, table)


def _decode_dict(encoded: dict[str, Any], table: Mapping[str, torch.Tensor]) -> dict[str | int, Any]:
    return {_decode(key, table): _decode(item, table) for key, item in encoded["items"]}


def _decode_array(encoded: dict[str, Any], table: Mapping[str, torch.Tensor]) -> np.ndarray:
    dtype = np.dtype(str(encoded["dtype"]))
    if dtype.kind not in "biufc":
        raise StateFormatError(f"array {encoded['name']!r} has dtype {dtype}, which is neither numeric nor bool")
    raw = _tensor(encoded, table)
    if raw.dtype != torch.uint8 or raw.ndim != 1:
        raise StateFormatError(f"array {encoded['name']!r} is not stored as bytes")
    shape = [int(size) for size in encoded["shape"]]
    if min(shape, default=0) < 0:
        raise StateFormatError(f"array {encoded['name']!r} has the shape {shape}")
    return raw.numpy().view(dtype).reshape(shape)


def _tensor(encoded: dict[str, Any], table: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if encoded["name"] not in table:
        raise StateFormatError(f"tensor {encoded['name']!r} is missing")
    return table[encoded["name"]]


_DECODERS: dict[Any, Callable[[dict[str, Any], Mapping[str, torch.Tensor]], Any]] = {
    "tuple": lambda encoded, table: tuple(_decode(item, table) for item in encoded["items"]),
    "dict": _decode_dict,
    "int": lambda encoded, table: int(encoded["hex"], 16),
    "float": lambda encoded, table: struct.unpack(">d", bytes.fromhex(encoded["bits"]))[0],
    "str": lambda encoded, table: bytes.fromhex(encoded["utf8"]).decode("utf-8", "surrogatepass"),
    "tensor": _tensor,
    "numpy": _decode_array,
}

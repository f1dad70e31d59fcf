"""Types of the compiled module; the words are explained in cython_ext/core/graph_stream.h."""

from typing import Any, Final

from typing_extensions import Buffer

GRAPH_VERSION: Final[int]

def write_graph(value: Any, portable: bool = False) -> bytes | None: ...
def graph_content(value: Any, portable: bool = False) -> bytes | None: ...
def read_graph(data: Buffer) -> Any: ...

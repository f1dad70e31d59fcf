"""Arbitrary object graphs with sharing and cycles, from lists of numbers that Hypothesis can shrink."""

import collections
import types

import closure_kinds as kinds
import numpy as np
from hypothesis import strategies as st

MUTABLE = (
    "list",
    "dict",
    "instance",
    "slots",
    "deque",
    "ordered",
    "default",
    "named list",
    "namespace",
    "record",
)
IMMUTABLE = ("tuple", "point", "frozen", "set", "bytes", "array", "view")

graphs = st.lists(
    st.tuples(st.sampled_from(MUTABLE + IMMUTABLE), st.lists(st.integers(0, 11), max_size=4)),
    min_size=1,
    max_size=12,
)


def build(graph):
    """[root] of the graph; node numbers that an immutable node cannot refer to stand for numbers."""
    empty = {
        "list": list,
        "dict": dict,
        "instance": kinds.Plain,
        "slots": kinds.SlottedWithDict,
        "deque": collections.deque,
        "ordered": collections.OrderedDict,
        "default": lambda: collections.defaultdict(list),
        "named list": kinds.ListWithName,
        "namespace": types.SimpleNamespace,
        "record": kinds.Record,
    }
    nodes = [empty[kind]() if kind in empty else None for kind, _ in graph]
    for number, (kind, edges) in enumerate(graph):
        parts = [nodes[e] if e < len(nodes) and nodes[e] is not None else e * 1000 for e in edges]
        if kind in ("tuple", "frozen"):
            nodes[number] = tuple(parts) if kind == "tuple" else kinds.Frozen(parts[:1], tuple(parts))
        elif kind == "point":
            nodes[number] = kinds.Point(parts, number)
        elif kind == "set":
            nodes[number] = {e * 1000 for e in edges}
        elif kind == "bytes":
            nodes[number] = bytearray(edges)
        elif kind in ("array", "view"):
            nodes[number] = np.arange(10 + number * 100.0)[:: 1 if kind == "array" else 2][number:]
        else:
            fill(nodes[number], parts)
    kept = set(map(id, parts_inside(nodes[0])))
    for node in nodes:  # what the root does not lead to must not hold it from a dead cycle
        if id(node) not in kept:
            if isinstance(node, (list, dict, set, collections.deque)):
                node.clear()
            if hasattr(node, "__dict__") and not isinstance(node, kinds.Frozen):
                vars(node).clear()
    return [nodes[0]]


def fill(node, parts):
    for place, part in enumerate(parts):
        if isinstance(node, (list, collections.deque)):
            node.append(part)
        elif isinstance(node, dict):
            node[f"key {place}"] = part
        else:
            setattr(node, f"attribute_{place}", part)


def parts_inside(root):
    """All mutable objects of a graph, the root first, without keeping any."""
    seen, waiting = {}, [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (int, str, type, float)):
            continue
        seen[id(value)] = value
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, collections.deque)):
            waiting.extend(value)
        if hasattr(value, "__dict__"):
            waiting.extend(vars(value).values())
    return [value for value in seen.values() if not isinstance(value, (tuple, kinds.Point))]

from typing import Any

class Cost: ...

class Recipe:
    key: Any
    function: Any
    args: tuple[Any, ...]
    size_bytes: int

class RecipeBook:
    recipes: dict[int, Any]
    keys: dict[int, Any]
    @property
    def proof_count(self) -> int: ...
    @property
    def index_bytes(self) -> int: ...
    def limit(self, bytes_max: int) -> None: ...

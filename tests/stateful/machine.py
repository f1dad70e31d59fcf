"""The state machine that uses two ThermalDicts and two dicts in the same way and compares all that can be seen."""

import gc
from collections.abc import Callable
from typing import Any, ClassVar

import edits
import recipes
import specimens
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from shapes import Isomorphism

from spectral_alloc import ThermalDict

MAXIMUM_HELD = 8
LIMITS_BYTES = [1, 1, 1, 3_000, 30_000, 10_000_000]

KEY_OBJECTS = [specimens.Key(number) for number in range(3)]
KEYS = st.sampled_from([0, 1, 2, "a", "b", (1, "t"), *KEY_OBJECTS])
INDEX = st.integers(0, 7)
PATH = st.lists(st.integers(0, 3), max_size=4)
WHICH = st.integers(0, 1)
MOVES = ["demote", "demote", "promote", "pin", "unpin", "where", "temperature"]


class ThermalDictMachine(RuleBasedStateMachine):
    """Subclasses give ``values``, the strategy of what is stored.

    Every operation runs on the subject and on the model through parallel references; ``aliases`` and ``holders`` are
    what the program holds, as pairs (of the subject's side, of the model's side).
    """

    values: ClassVar[st.SearchStrategy[recipes.Recipe]]
    opened_with: ClassVar[dict[str, Any]] = {}
    total_demotions: ClassVar[int] = 0
    total_promotions: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.dicts: list[tuple[ThermalDict, dict[Any, Any]]] = []
        self.aliases: list[tuple[Any, Any]] = []
        self.holders: list[tuple[edits.Holder, edits.Holder]] = []
        self.iterators: list[tuple[Any, Any]] = []
        self.compare_always = True
        specimens.Finalised.start_logs()
        specimens.Counting.restored = 0
        specimens.Key.raising = False
        specimens.Hook.function = self._reenter

    @initialize(limits=st.tuples(*[st.sampled_from(LIMITS_BYTES)] * 2), compare_always=st.booleans())
    def start(self, limits: tuple[int, int], compare_always: bool) -> None:
        """Two dicts of their own limits; comparing reads everything, so half of the runs do it only at times."""
        self.dicts = [(ThermalDict.open(memory_limit=limit, **self.opened_with), {}) for limit in limits]
        self.compare_always = compare_always

    def _reenter(self) -> None:
        """What misbehaving keys and values do with the dict in the middle of its work."""
        for subject, model in self.dicts:
            len(subject)
            for key in list(model)[:2]:
                if key in subject:
                    subject.get(key)
                    subject.where(key)

    def _build(self, recipe: recipes.Recipe) -> tuple[Any, Any]:
        subject, model = (
            recipes.Builder(side, [pair[side] for pair in self.aliases]).build(recipe) for side in (0, 1)
        )
        return subject, model

    def _both(self, operation: Callable[[int], Any]) -> Any:
        """Run on either side; both give alike results or alike errors. Returns both outcomes, the subject's first."""
        outcomes = []
        for side in (0, 1):
            try:
                outcomes.append(("value", operation(side)))
            except Exception as error:
                outcomes.append(("error", (type(error), str(error))))
        (subject_kind, subject), (model_kind, model) = outcomes
        assert subject_kind == model_kind, f"{subject_kind} {subject!r} for {model_kind} {model!r}"
        self._isomorphism().compare(subject, model, "result")
        return outcomes

    def _isomorphism(self, materialise: bool = False) -> Isomorphism:
        """An isomorphism that knows what the program holds, so that a copy in the place of a held object is found."""
        isomorphism = Isomorphism(materialise)
        for subject, model in [*self.dicts, *self.aliases]:
            isomorphism.bind(subject, model, "held")
        for subject, model in self.holders:
            if isinstance(subject, edits.NamespaceHolder):
                isomorphism.bind(subject.thing, model.thing, "held namespace")
        return isomorphism

    def _keep(self, pair: tuple[Any, Any]) -> None:
        if edits.is_editable(pair[1]) and len(self.aliases) < MAXIMUM_HELD:
            self.aliases.append(pair)

    def _present(self, which: int, index: int) -> Any:
        keys = list(self.dicts[which][1])
        return keys[index % len(keys)] if keys else "absent"

    def _node(self, side: int, which: int, key: Any, path: list[int]) -> Any:
        """The object that a path of child numbers leads to, from the value of a key."""
        node = self.dicts[which][side][key]
        for step in path:
            inside = edits.children(node)
            child = inside[step % len(inside)] if inside else None
            # the dicts themselves are not edited as values: only one of the two sides can be weakly referenced
            if not edits.is_editable(child) or any(child is pair[side] for pair in self.dicts):
                break
            node = child
        return node

    # what changes the dict

    @rule(which=WHICH, key=KEYS, data=st.data())
    def assign(self, which: int, key: Any, data: st.DataObject) -> None:
        """d[key] = value"""
        pair = self._build(data.draw(self.values))
        self._both(lambda side: self.dicts[which][side].__setitem__(key, pair[side]))

    @rule(which=WHICH, key=KEYS, data=st.data())
    def assign_and_keep(self, which: int, key: Any, data: st.DataObject) -> None:
        """value = ...; d[key] = value, and the program goes on using the value"""
        pair = self._build(data.draw(self.values))
        self._both(lambda side: self.dicts[which][side].__setitem__(key, pair[side]))
        self._keep(pair)

    @rule(which=WHICH, key=KEYS, index=INDEX)
    def assign_held(self, which: int, key: Any, index: int) -> None:
        """d[key] = an object that is held, and perhaps under another key or in the other dict already"""
        if self.aliases:
            pair = self.aliases[index % len(self.aliases)]
            self._both(lambda side: self.dicts[which][side].__setitem__(key, pair[side]))

    @rule(which=WHICH, key=KEYS)
    def assign_itself(self, which: int, key: Any) -> None:
        """d[key] = [d]"""
        self._both(lambda side: self.dicts[which][side].__setitem__(key, [self.dicts[which][side]]))

    @rule(which=WHICH, first=INDEX, key=KEYS)
    def assign_from_other_key(self, which: int, first: int, key: Any) -> None:
        """d[key] = d[other]: one object under two keys"""
        other = self._present(which, first)
        self._both(lambda side: self.dicts[which][side].__setitem__(key, self.dicts[which][side].get(other)))

    @rule(which=WHICH, index=INDEX, how=st.sampled_from(["del", "pop", "popitem", "reinsert", "pop default"]))
    def remove(self, which: int, index: int, how: str) -> None:
        """del d[key] and its relatives"""
        key = self._present(which, index)

        def operation(side: int) -> Any:
            d = self.dicts[which][side]
            if how == "reinsert":
                value = d[key]
                del d[key]
                d[key] = value
                return None
            return {"del": lambda: d.__delitem__(key), "pop": lambda: d.pop(key), "popitem": d.popitem,
                    "pop default": lambda: d.pop("absent", None)}[how]()  # fmt: skip

        self._both(operation)

    @rule(which=WHICH, keys=st.lists(KEYS, max_size=4), data=st.data(), how=st.sampled_from(["update", "|=", "kw"]))
    def update(self, which: int, keys: list[Any], data: st.DataObject, how: str) -> None:
        """d.update(...), d |= ..."""
        pair = self._build(data.draw(self.values))

        def operation(side: int) -> None:
            d = self.dicts[which][side]
            given = dict.fromkeys(keys, pair[side])
            if how == "update":
                d.update(given)
            elif how == "|=":
                d |= given.items()
            else:
                d.update(given, kw=pair[side])

        self._both(operation)

    @rule(which=WHICH, key=KEYS, data=st.data())
    def setdefault(self, which: int, key: Any, data: st.DataObject) -> None:
        """d.setdefault(key, value), held if it is a container"""
        pair = self._build(data.draw(self.values))
        outcomes = self._both(lambda side: self.dicts[which][side].setdefault(key, pair[side]))
        self._keep((outcomes[0][1], outcomes[1][1]))

    @rule(which=WHICH, sure=st.integers(0, 5))
    def clear(self, which: int, sure: int) -> None:
        """d.clear(), seldom"""
        if sure == 0:
            self._both(lambda side: self.dicts[which][side].clear())

    # what edits values in place

    @rule(which=WHICH, index=INDEX, path=PATH, edit=INDEX, data=st.data())
    def edit_in_place(self, which: int, index: int, path: list[int], edit: int, data: st.DataObject) -> None:
        """d[key]...append(x): nothing is held before or after"""
        key = self._present(which, index)
        pair = self._build(data.draw(self.values))
        if edits.is_editable(self.dicts[which][1].get(key)):
            self._both(lambda side: edits.apply_edit(edit, self._node(side, which, key, path), pair[side]))

    @rule(index=INDEX, edit=INDEX, data=st.data())
    def edit_held(self, index: int, edit: int, data: st.DataObject) -> None:
        """held.append(x)"""
        if self.aliases:
            target = self.aliases[index % len(self.aliases)]
            pair = self._build(data.draw(self.values))
            self._both(lambda side: edits.apply_edit(edit, target[side], pair[side]))

    @rule(index=INDEX, edit=INDEX, data=st.data())
    def use_holder(self, index: int, edit: int, data: st.DataObject) -> None:
        """An edit through a namespace, a bound method, a closure, a memoryview ... or a step of an iterator"""
        if self.holders:
            holder = self.holders[index % len(self.holders)]
            pair = self._build(data.draw(self.values))
            self._both(lambda side: holder[side].use(edit, pair[side]))

    # what the program keeps and lets go

    @rule(which=WHICH, index=INDEX, path=PATH)
    def keep_inner(self, which: int, index: int, path: list[int]) -> None:
        """held = d[key]..."""
        key = self._present(which, index)
        if key in self.dicts[which][1]:
            self._keep(tuple(self._node(side, which, key, path) for side in (0, 1)))

    @rule(which=WHICH, index=INDEX, path=PATH, kind=st.sampled_from(sorted(edits.HOLDERS)))
    def keep_by_holder(self, which: int, index: int, path: list[int], kind: str) -> None:
        """held = d[key]....append, vars(d[key]), memoryview(d[key]) ..."""
        key = self._present(which, index)
        if key not in self.dicts[which][1] or len(self.holders) >= MAXIMUM_HELD:
            return
        pair = [edits.hold(kind, self._node(side, which, key, path)) for side in (0, 1)]
        assert (pair[0] is None) == (pair[1] is None), f"{kind} of only one side"
        if pair[0] is not None:
            self.holders.append((pair[0], pair[1]))

    @rule(index=INDEX)
    def drop_alias(self, index: int) -> None:
        """del held"""
        if self.aliases:
            del self.aliases[index % len(self.aliases)]

    @rule(index=INDEX)
    def drop_holder(self, index: int) -> None:
        """Let go of an iterator, a memoryview ..."""
        if self.holders:
            for holder in self.holders.pop(index % len(self.holders)):
                holder.release()

    @rule()
    def drop_everything(self) -> None:
        """The program holds nothing any more"""
        self.aliases.clear()
        self.iterators.clear()
        while self.holders:
            self.drop_holder(0)

    # iteration while everything moves

    @rule(which=WHICH, view=st.sampled_from(["__iter__", "values", "items", "__reversed__"]))
    def start_iteration(self, which: int, view: str) -> None:
        """it = iter(d.items())"""
        if len(self.iterators) < 3:
            pair = [iter(getattr(d, view)()) for d in self.dicts[which]]
            self.iterators.append((pair[0], pair[1]))

    @rule(index=INDEX, keep=st.booleans())
    def step_iteration(self, index: int, keep: bool) -> None:
        """next(it), perhaps keeping the value"""
        if self.iterators:
            pair = self.iterators[index % len(self.iterators)]
            outcomes = self._both(lambda side: next(pair[side], "exhausted"))
            if keep and outcomes[0][0] == "value":
                self._keep((outcomes[0][1], outcomes[1][1]))

    # what moves values between tiers

    @rule(which=WHICH, index=INDEX, how=st.sampled_from(MOVES))
    def move(self, which: int, index: int, how: str) -> None:
        """Explicit moves of one key"""
        key = self._present(which, index)
        if key in self.dicts[which][1]:
            getattr(self.dicts[which][0], how)(key)

    @rule(which=WHICH, how=st.sampled_from(["prefetch", "get_many", "sync", "stats", "demote all"]))
    def move_many(self, which: int, how: str) -> None:
        """Moves of many keys at once"""
        subject, model = self.dicts[which]
        if how in ("prefetch", "get_many"):
            getattr(subject, how)(list(model))
        elif how == "demote all":
            for key in model:
                subject.demote(key)
        else:
            getattr(subject, how)()

    @rule(which=WHICH, limit=st.sampled_from(LIMITS_BYTES))
    def change_limit(self, which: int, limit: int) -> None:
        """d.memory_limit = ..."""
        self.dicts[which][0].memory_limit = limit

    @rule(which=WHICH, index=INDEX)
    def read(self, which: int, index: int) -> None:
        """d[key], nothing held"""
        key = self._present(which, index)
        self._both(lambda side: self.dicts[which][side][key])

    @rule(which=WHICH)
    def read_with_raising_keys(self, which: int) -> None:
        """d[key] with a key whose comparison raises: the error comes through and nothing is harmed"""
        probe = specimens.Key(101)
        if not any(isinstance(key, specimens.Key) and key.number == 1 for key in self.dicts[which][1]):
            return
        specimens.Key.raising = True
        try:
            self._both(lambda side: self.dicts[which][side][probe])
            self._both(lambda side: self.dicts[which][side].get(probe))
            self._both(lambda side: self.dicts[which][side].__setitem__(probe, [1]))
            self._both(lambda side: self.dicts[which][side].pop(probe, None))
        finally:
            specimens.Key.raising = False

    @rule()
    def collect(self) -> None:
        """The cycle collector runs"""
        gc.collect()

    @rule()
    def compare_now(self) -> None:
        """Everything is read"""
        self._compare(materialise=False)

    @invariant()
    def everything_is_alike(self) -> None:
        """Contents, order, sharing and all that holders show are alike, and the dict's own invariants hold."""
        for subject, model in self.dicts:
            subject.check()
            assert len(subject) == len(model)
        if self.compare_always:
            self._compare(materialise=False)

    def _compare(self, materialise: bool) -> None:
        if any(isinstance(holders[0], edits.WeakHolder) for holders in self.holders):
            gc.collect()  # cycles of the two sides may be in generations of different age
        isomorphism = self._isomorphism(materialise)
        for number, (subject, model) in enumerate(self.dicts):
            isomorphism.compare(list(subject.items()), list(model.items()), f"dict {number}")
        # bound pairs are not walked by compare(): the program reads them too
        for number, pair in enumerate(self.aliases):
            isomorphism._inside(*pair, f"alias {number}")
            isomorphism.compare(0, 0, "")
        for number, holders in enumerate(self.holders):
            isomorphism.compare(holders[0].shown(), holders[1].shown(), f"holder {number}")
        assert specimens.Counting.restored == 0, "a value was restored by its own code"

    def teardown(self) -> None:
        """At the end everything is compared, then let go; what has a finaliser has died as often as in the model."""
        if not self.dicts:
            return
        try:
            self._compare(materialise=True)
            for subject, _ in self.dicts:
                note(repr(subject.stats()))
                type(self).total_demotions += subject.stats().demotions
                type(self).total_promotions += subject.stats().promotions
            self.drop_everything()
            for subject, model in self.dicts:
                subject.clear()
                model.clear()
            del subject, model
            gc.collect()
            died = [sorted(log) for log in specimens.Finalised.died]
            assert died[0] == died[1], "finalisers ran at other times than in a dict"
        finally:
            specimens.Hook.function = None
            for subject, _ in self.dicts:
                subject.close()
